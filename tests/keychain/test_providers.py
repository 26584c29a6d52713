"""Each provider against a real server that speaks as it does: what it gives, how it fails."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from app.errors import ToolError
from app.keychain.secrets import Means, asked
from app.keychain.web import Web
from tests.keychain.authority import (
    AWS_PARAMETER,
    AWS_SECRET,
    AZURE_SECRET,
    CLIENT_SECRET,
    GCP_SECRET,
    SECRETS,
    VAULT_TOKEN,
    Authority,
)
from tests.keychain.conftest import Known

MakeMeans = Callable[..., Means]


@pytest.fixture
def credentials(authority: Authority, known: Known, service_account: Mapping[str, Any]) -> None:
    url = authority.url
    known.credentials = {
        "vault": {"address": url, "token": VAULT_TOKEN},
        "vault-v1": {"address": url, "token": VAULT_TOKEN, "kv_version": 1},
        "vault-role": {"address": f"{url}/", "role_id": "role", "secret_id": CLIENT_SECRET},
        "vault-wrong": {"address": url, "token": "wrong-token"},
        "vault-nothing": {"address": url},
        "vault-pod": {"address": url, "method": "kubernetes", "role": "r"},
        "gcp": {**service_account, "token_uri": f"{url}/token", "endpoint": url},
        "gcp-text": {
            "service_account_json": json.dumps({**service_account, "token_uri": f"{url}/token"}),
            "endpoint": url,
        },
        "gcp-key": {**service_account, "private_key": "canary-no-key", "endpoint": url},
        "aws": {
            "aws_access_key_id": "AKIATEST",
            "aws_secret_access_key": "canary-aws-key",
            "region": "eu-central-1",
            "endpoint_url": url,
        },
        "aws-wrong": {
            "aws_access_key_id": "AKIAOTHER",
            "aws_secret_access_key": "canary-aws-key",
            "region": "eu-central-1",
            "endpoint_url": url,
        },
        "azure": {
            "tenant_id": "tenant",
            "client_id": "me",
            "client_secret": CLIENT_SECRET,
            "authority": url,
            "vault_url": url,
        },
        "azure-wrong": {
            "tenant_id": "tenant",
            "client_id": "me",
            "client_secret": "canary-wrong",
            "authority": url,
            "vault_url": url,
        },
    }
    known.variables = {"key": "canary-variable"}


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("about", "value"),
    [
        pytest.param({"provider": "env", "name": "KEY"}, "canary-variable", id="env"),
        pytest.param(
            {"provider": "env", "name": "NOETL_SECRET_KEY"}, "canary-variable", id="env, whole name"
        ),
        pytest.param(
            {"provider": "vault", "auth": "vault", "name": "secret/app/db"},
            SECRETS["app/db"],
            id="vault",
        ),
        pytest.param(
            {"provider": "vault", "auth": "vault", "name": "secret/data/app/db#password"},
            SECRETS["app/db"]["password"],
            id="vault, path of the API and a field",
        ),
        pytest.param(
            {"provider": "vault", "auth": "vault", "name": "app/plain", "mount": "secret"},
            SECRETS["app/plain"],
            id="vault, mount",
        ),
        pytest.param(
            {"provider": "vault", "auth": "vault-v1", "name": "kv1/app/db", "field": "password"},
            SECRETS["app/db"]["password"],
            id="vault, version 1",
        ),
        pytest.param(
            {"provider": "vault", "auth": "vault-role", "map": {"pw": "secret/app/db#password"}},
            {"pw": SECRETS["app/db"]["password"]},
            id="vault, AppRole and map",
        ),
        pytest.param(
            {"provider": "gcp", "auth": "gcp", "name": "projects/p/secrets/app"},
            GCP_SECRET,
            id="gcp",
        ),
        pytest.param(
            {"provider": "gcp", "auth": "gcp-text", "name": "app", "version": 3},
            GCP_SECRET,
            id="gcp, account as text, name and version",
        ),
        pytest.param({"provider": "aws", "auth": "aws", "name": "app"}, AWS_SECRET, id="aws"),
        pytest.param(
            {"provider": "aws", "auth": "aws", "name": "/app/key"}, AWS_PARAMETER, id="aws, ssm"
        ),
        pytest.param(
            {"provider": "azure", "auth": "azure", "name": "app"}, AZURE_SECRET, id="azure"
        ),
    ],
)
def test_a_provider_gives_the_secret(
    about: dict[str, Any], value: Any, means: MakeMeans, known: Known
) -> None:
    assert asked(about, means()) == value
    texts = [value] if isinstance(value, str) else [v for k, v in value.items() if k != "username"]
    assert set(texts) <= known.concealed


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("about", "kind", "said"),
    [
        pytest.param({"provider": "nobody", "name": "x"}, "auth", "env, file", id="unknown"),
        pytest.param({"provider": "env", "name": "PATH"}, "auth", "'path'", id="other variable"),
        pytest.param({"provider": "env"}, "auth", "'name'", id="no name"),
        pytest.param({"provider": "file", "name": "x"}, "auth", "CALLBOARD_SECRETS_DIR", id="dir"),
        pytest.param(
            {"provider": "vault", "auth": "vault", "name": "secret/none"},
            "not_found",
            "404",
            id="404",
        ),
        pytest.param(
            {"provider": "vault", "auth": "vault-wrong", "name": "secret/app/db"},
            "auth",
            "403",
            id="vault refuses",
        ),
        pytest.param(
            {"provider": "vault", "auth": "vault-nothing", "name": "secret/app/db"},
            "auth",
            "'role_id'",
            id="vault, no way in",
        ),
        pytest.param(
            {"provider": "vault", "auth": "vault-pod", "name": "secret/app/db"},
            "auth",
            "CALLBOARD_SECRETS_AMBIENT",
            id="vault, the pod's identity",
        ),
        pytest.param(
            {"provider": "vault", "auth": "vault", "name": "secret/../sys/seal"},
            "not_found",
            "MOUNT/PATH",
            id="vault, path that climbs",
        ),
        pytest.param(
            {"provider": "vault", "auth": "vault", "name": "secret/app/db", "field": "none"},
            "not_found",
            "password, username",
            id="no such field",
        ),
        pytest.param(
            {"provider": "vault", "name": "s/x"}, "auth", "'address'", id="vault, no auth"
        ),
        pytest.param(
            {"provider": "gcp", "auth": "gcp", "name": "projects/p/secrets/none"},
            "not_found",
            "404",
            id="gcp, 404",
        ),
        pytest.param(
            {"provider": "gcp", "auth": "gcp", "name": "projects/p/other"},
            "not_found",
            "projects/P/secrets/S",
            id="gcp, no name",
        ),
        pytest.param(
            {"provider": "gcp", "auth": "gcp-key", "name": "app"}, "auth", "PEM", id="gcp, no key"
        ),
        pytest.param({"provider": "gcp", "name": "app"}, "auth", "AMBIENT", id="gcp, no auth"),
        pytest.param(
            {"provider": "aws", "auth": "aws", "name": "none"},
            "not_found",
            "400",
            id="aws, missing",
        ),
        pytest.param(
            {"provider": "aws", "auth": "aws-wrong", "name": "app"}, "auth", "403", id="aws refuses"
        ),
        pytest.param({"provider": "aws", "name": "app"}, "auth", "AMBIENT", id="aws, no auth"),
        pytest.param(
            {"provider": "azure", "auth": "azure", "name": "none"},
            "not_found",
            "404",
            id="azure 404",
        ),
        pytest.param(
            {"provider": "azure", "auth": "azure-wrong", "name": "app"},
            "auth",
            "invalid_client",
            id="azure refuses",
        ),
        pytest.param(
            {"provider": "azure", "name": "app", "vault": "evil.example/"},
            "auth",
            "'vault'",
            id="azure, host in a vault's name",
        ),
    ],
)
def test_a_provider_fails_with_a_kind_and_a_remedy(
    about: dict[str, Any], kind: str, said: str, means: MakeMeans
) -> None:
    error = failed(about, means())
    assert (error.kind, error.retryable) == (kind, False)
    assert said in str(error)
    assert "canary" not in chain(error)


STATUSES = (
    (401, "auth", False),
    (404, "not_found", False),
    (418, "client_error", False),
    (429, "rate_limit", True),
    (500, "connection", True),
    (503, "connection", True),
)


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("expected", STATUSES, ids=lambda each: str(each[0]))
@pytest.mark.parametrize(
    ("about", "path"),
    [
        pytest.param(
            {"provider": "vault", "auth": "vault", "name": "secret/app/db"},
            "/v1/secret/data/app/db",
            id="vault",
        ),
        pytest.param(
            {"provider": "gcp", "auth": "gcp", "name": "app"},
            "/v1/projects/project/secrets/app/versions/latest:access",
            id="gcp",
        ),
        pytest.param({"provider": "aws", "auth": "aws", "name": "app"}, "/", id="aws"),
        pytest.param(
            {"provider": "azure", "auth": "azure", "name": "app"}, "/secrets/app", id="azure"
        ),
    ],
)
def test_statuses_are_classified_alike(
    about: dict[str, Any],
    path: str,
    expected: tuple[int, str, bool],
    authority: Authority,
    means: MakeMeans,
) -> None:
    status, kind, retryable = expected
    authority.instead[path] = (status, {"errors": ["canary-body"], "message": "canary-body"})
    error = failed(about, means())
    assert (error.kind, error.retryable) == (kind, retryable)
    assert str(status) in str(error)
    assert "canary" not in chain(error)


@pytest.mark.usefixtures("credentials")
def test_redirects_are_not_followed(authority: Authority, means: MakeMeans) -> None:
    there = {"location": f"{authority.url}/v1/secret/data/app/plain"}
    authority.instead["/v1/secret/data/app/db"] = (302, there)
    error = failed({"provider": "vault", "auth": "vault", "name": "secret/app/db"}, means())
    assert "302" in str(error)
    assert authority.of("/v1/secret/data/app/plain") == []


@pytest.mark.parametrize("answer", [b"canary-not-json", b'["canary"]', b""])
def test_an_answer_of_another_form_is_an_error_without_it(
    answer: bytes, authority: Authority, known: Known, means: MakeMeans
) -> None:
    known.credentials = {"v": {"address": authority.url, "token": "t-123456"}}
    authority.instead["/v1/secret/data/x"] = (200, answer)
    error = failed({"provider": "vault", "auth": "v", "name": "secret/x"}, means())
    assert "JSON" in str(error)
    assert "canary" not in chain(error)


def test_nobody_there_is_worth_another_try(
    known: Known, means: MakeMeans, free_tcp_port: int
) -> None:
    url = f"http://127.0.0.1:{free_tcp_port}"
    known.credentials = {
        "v": {"address": url, "token": "t-123456"},
        "a": {
            "aws_access_key_id": "A",
            "aws_secret_access_key": "B",
            "region": "x-1",
            "endpoint": url,
        },
    }
    for provider, auth in (("vault", "v"), ("aws", "a")):
        error = failed({"provider": provider, "auth": auth, "name": "secret/x"}, means())
        assert (error.kind, error.retryable) == ("connection", True), provider


def test_a_silent_server_is_given_up(known: Known, means: MakeMeans, authority: Authority) -> None:
    authority.gate.clear()
    known.credentials = {"g": {"refresh_token": "canary-r", "token_uri": f"{authority.url}/token"}}
    quick = means(web=Web(patience=0.05))
    error = failed({"provider": "gcp", "auth": "g", "name": "app", "project": "p"}, quick)
    assert (error.kind, error.retryable) == ("timeout", True)


@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:169.254.169.254]", "100.100.100.200"])
def test_the_metadata_service_is_no_provider(host: str, known: Known, means: MakeMeans) -> None:
    known.credentials = {"v": {"address": f"http://{host}", "token": "t-123456"}}
    error = failed({"provider": "vault", "auth": "v", "name": "latest/meta"}, means())
    assert error.error_code == "refused_address"


@pytest.mark.parametrize(
    "about",
    [
        {"provider": "gcp", "name": "app", "project": "p", "auth": {"endpoint": "URL", "x": 1}},
        {"provider": "azure", "name": "app", "auth": {"vault_url": "URL"}},
        {
            "provider": "vault",
            "name": "secret/x",
            "auth": {"address": "URL", "method": "kubernetes", "role": "r"},
        },
        {"provider": "aws", "name": "app", "auth": {"endpoint": "URL", "region": "x-1"}},
    ],
    ids=lambda about: str(about["provider"]),
)
def test_the_workers_identity_is_not_for_a_host_that_a_playbook_names(
    about: dict[str, Any], authority: Authority, means: MakeMeans
) -> None:
    auth = {key: authority.url if value == "URL" else value for key, value in about["auth"].items()}
    error = failed({**about, "auth": auth}, means(ambient=True))
    assert "CALLBOARD_SECRETS_AMBIENT" in str(error)
    assert authority.asked == []


# ---------------------------------------------------------------------- files
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "secrets"
    (root / "..data").mkdir(parents=True)
    (root / "..data" / "password").write_text("canary-file\n")
    (root / "password").symlink_to(root / "..data" / "password")
    (root / "nested").mkdir()
    (root / "nested" / "key").write_text("canary-nested")
    (root / "binary").write_bytes(b"\xff\xfe\x00canary")
    (tmp_path / "outside").write_text("canary-outside")
    (root / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(root / "pipe")
    return root


@pytest.mark.parametrize(
    ("name", "value"), [("password", "canary-file"), ("nested/key", "canary-nested")]
)
def test_a_file_below_the_folder_is_read(
    name: str, value: str, folder: Path, means: MakeMeans
) -> None:
    assert asked({"provider": "file", "name": name}, means(folder=folder)) == value


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param("../outside", "auth", id="climbs"),
        pytest.param("link", "auth", id="link that leads out"),
        pytest.param("/etc/hostname", "auth", id="absolute"),
        pytest.param(".", "auth", id="the folder"),
        pytest.param("nested", "not_found", id="a folder"),
        pytest.param("none", "not_found", id="missing"),
        pytest.param("pipe", "not_found", id="pipe"),
        pytest.param("binary", "auth", id="no text"),
        pytest.param("a\0b", "auth", id="NUL"),
    ],
)
def test_a_file_that_is_no_secret_is_refused(
    name: str, kind: str, folder: Path, means: MakeMeans
) -> None:
    error = failed({"provider": "file", "name": name}, means(folder=folder))
    assert error.kind == kind
    assert "canary" not in chain(error)


def failed(about: dict[str, Any], means: Means) -> ToolError:
    with pytest.raises(ToolError) as caught:
        asked(about, means)
    return caught.value


def chain(error: BaseException) -> str:
    """All that a traceback would show."""
    return "".join(traceback.format_exception(error))
