"""What entries and providers are tested with: the authority, and the secrets of an attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.engine.credentials import Credential
from app.errors import ToolError
from app.keychain.providers import Surroundings
from app.keychain.secrets import Means
from tests.keychain.authority import Authority
from tests.keychain.authority import authority as serve


@dataclass(slots=True)
class Known:
    """Credentials and variables by name, and what was concealed."""

    credentials: dict[str, dict[str, Any]] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    concealed: set[str] = field(default_factory=set)

    def credential(self, name: str) -> Credential:
        if name not in self.credentials:
            raise ToolError(f"there is no credential {name!r}", kind="auth")
        return Credential(name, "", self.credentials[name])

    def variable(self, name: str) -> str:
        if name not in self.variables:
            raise ToolError(f"no secret named {name!r} is configured", kind="auth")
        return self.variables[name]

    def conceal(self, *values: str) -> None:
        self.concealed.update(values)


@pytest.fixture
def authority() -> Iterator[Authority]:
    with serve() as state:
        yield state


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture
def means(known: Known) -> Callable[..., Means]:
    """``means(**changes of the surroundings)``."""

    def make(**changes: Any) -> Means:
        return Means(known, Surroundings(variable=known.variable, **changes))

    return make


@pytest.fixture(scope="session")
def service_account() -> Mapping[str, Any]:
    """A service account with a key of its own."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "type": "service_account",
        "project_id": "project",
        "client_email": "robot@project.example",
        "private_key": pem.decode(),
        "private_key_id": "1",
    }
