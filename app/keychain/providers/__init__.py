"""Who keeps secrets: one port, one file for each.

A provider is opened with what opens it (the fields of a credential) and then read, as often as it
takes. It raises ``ToolError``: auth, not_found, connection (retryable), rate_limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from app.errors import ToolError
from app.keychain.web import Web

#: By the names that playbooks use; each is imported when it is first asked for.
MODULES = {
    "env": "env",
    "environment": "env",
    "file": "file",
    "vault": "vault",
    "hashicorp": "vault",
    "gcp": "gcp",
    "google": "gcp",
    "google_secret_manager": "gcp",
    "aws": "aws",
    "aws_secrets_manager": "aws",
    "ssm": "aws",
    "azure": "azure",
    "azure_key_vault": "azure",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The secret that is meant. ``field`` picks one of a secret that has several."""

    name: str
    version: str | None = None
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker lets providers use.

    ``ambient``: the machine's own identity (metadata service, service account, environment), which
    all playbooks share; else only what a credential says.
    """

    variable: Callable[[str], str]
    folder: Path | None = None
    ambient: bool = False
    web: Web = field(default_factory=Web)

    def check_ambient(self, provider: str) -> None:
        """Raises ``ToolError`` where the worker's own identity may not be used."""
        if not self.ambient:
            raise ToolError(
                f"provider {provider!r} was given no credential: name one under 'auth', or let "
                "playbooks use the worker's own identity (CALLBOARD_SECRETS_AMBIENT=true)",
                kind="auth",
            )


class Reader(Protocol):
    """An opened provider."""

    def read(self, wanted: Wanted) -> str | dict[str, Any]:
        """The secret: text, or its fields."""


class Provider(Protocol):
    """A module of this package."""

    def open(
        self, access: Mapping[str, Any], about: Mapping[str, Any], surroundings: Surroundings
    ) -> Reader:
        """Open it with *access*, the fields of a credential. *about* is what the playbook says:
        never where the secrets of a credential are sent to."""


def provider(name: Any) -> Provider:
    """The provider of that name. Raises ``ToolError`` that names those there are."""
    module = MODULES.get(str(name).lower())
    if module is None:
        known = ", ".join(sorted(set(MODULES.values())))
        raise ToolError(f"there is no provider {str(name)!r} of secrets; use {known}", kind="auth")
    found: Provider = import_module(f"{__name__}.{module}")
    return found
