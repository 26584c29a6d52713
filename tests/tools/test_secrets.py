"""The tool ``secrets``: what it asks for, what it gives, and what its steps hand on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.errors import ToolError
from app.keychain.providers import Surroundings
from app.keychain.secrets import Means, asked
from app.tools import load_tool
from tests.keychain.authority import AWS_SECRET, SECRETS, VAULT_TOKEN, Authority
from tests.keychain.authority import authority as serve
from tests.tools.conftest import Call, Known


@dataclass(slots=True)
class Asking(Known):
    """As the worker's: providers are asked for real."""

    folder: Path | None = None
    questions: list[Mapping[str, Any]] = field(default_factory=list)

    def external(self, about: Mapping[str, Any]) -> Any:
        self.questions.append(about)
        return asked(about, Means(self, Surroundings(variable=self.variable, folder=self.folder)))


@pytest.fixture
def authority() -> Iterator[Authority]:
    with serve() as state:
        yield state


@pytest.fixture
def secrets(authority: Authority, tmp_path: Path) -> Asking:
    (tmp_path / "note").write_text("canary-file\n")
    vault = f'{{"address": "{authority.url}", "token": "{VAULT_TOKEN}"}}'
    aws = (
        '{"aws_access_key_id": "AKIATEST", "aws_secret_access_key": "canary-key", '
        f'"region": "eu-central-1", "endpoint_url": "{authority.url}"}}'
    )
    values = {"key": "canary-variable", "vault": vault, "aws": aws}
    return Asking(values, folder=tmp_path)


@pytest.mark.parametrize(
    ("config", "value"),
    [
        pytest.param({"name": "key"}, "canary-variable", id="env"),
        pytest.param({"name": "key", "provider": "ENV"}, "canary-variable", id="env, said"),
        pytest.param({"secret_name": "note", "provider": "file"}, "canary-file", id="file"),
        pytest.param(
            {"name": "secret/app/db", "provider": "vault", "auth": "vault", "key": "password"},
            SECRETS["app/db"]["password"],
            id="vault, field",
        ),
        pytest.param(
            {"name": "secret/app/db", "provider": "vault", "credential": "vault"},
            SECRETS["app/db"],
            id="vault, all fields",
        ),
        pytest.param(
            {
                "provider": "vault",
                "auth": {"credential": "vault"},
                "map": {"p": "secret/app/db#password", "q": {"name": "secret/app/plain"}},
            },
            {"p": SECRETS["app/db"]["password"], "q": SECRETS["app/plain"]["value"]},
            id="vault, map",
        ),
        pytest.param({"name": "app", "provider": "aws", "auth": "aws"}, AWS_SECRET, id="aws"),
    ],
)
def test_it_gives_the_value_and_how_to_get_it_again(
    config: dict[str, Any], value: Any, call: Call, secrets: Asking
) -> None:
    result = call("secrets", config, secrets=secrets)
    assert result["value"] == value
    assert result["provider"] == config.get("provider", "env").lower()
    question = result["_secret"]
    assert "canary" not in str(question)
    assert secrets.external(question) == value


@pytest.mark.parametrize(
    ("config", "kind", "said"),
    [
        pytest.param({"name": "other"}, "auth", "'other'", id="no such variable"),
        pytest.param({"name": "x", "provider": "magic"}, "auth", "'magic'", id="no such provider"),
        pytest.param(
            {"name": "../x", "provider": "file"}, "auth", "folder", id="out of the folder"
        ),
        pytest.param({"name": "none", "provider": "file"}, "not_found", "'none'", id="no file"),
        pytest.param(
            {"name": "secret/none", "provider": "vault", "auth": "vault"},
            "not_found",
            "404",
            id="not in the vault",
        ),
        pytest.param(
            {"name": "secret/x", "provider": "vault", "auth": "none"}, "auth", "'none'", id="auth"
        ),
        pytest.param({"name": "key", "map": {"a": ["x"]}}, "auth", "'name'", id="odd map"),
    ],
)
def test_it_fails_with_a_kind(
    config: dict[str, Any],
    kind: str,
    said: str,
    fail: Callable[..., ToolError],
    secrets: Asking,
) -> None:
    error = fail("secrets", config, secrets=secrets)
    assert (error.kind, error.retryable) == (kind, False)
    assert said in str(error)


@pytest.mark.parametrize("status", [429, 500])
def test_what_may_pass_is_retryable(
    status: int, fail: Callable[..., ToolError], secrets: Asking, authority: Authority
) -> None:
    authority.instead["/v1/secret/data/app/db"] = (status, {})
    config = {"name": "secret/app/db", "provider": "vault", "auth": "vault"}
    assert fail("secrets", config, secrets=secrets).retryable


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({"name": "key"}, False),
        ({"map": {"a": "b"}}, False),
        ({"provider": "env"}, True),
        ({"name": "key", "provder": "env"}, True),
    ],
)
def test_it_complains_before_it_runs(config: dict[str, Any], wrong: bool) -> None:
    assert bool(load_tool("secrets").complaints(config)) is wrong
