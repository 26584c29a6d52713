"""``vault``: HashiCorp Vault (and OpenBao), key/value engine version 1 or 2.

A credential holds ``address`` and one of ``token``, ``role_id`` with ``secret_id`` (AppRole), or
``role`` with ``method: kubernetes``; also ``namespace``, ``mount``, ``kv_version``, ``login_mount``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from app.engine.auth import first
from app.errors import ToolError
from app.keychain.providers import Surroundings, Wanted
from app.keychain.web import Web

#: Where Kubernetes puts the token of a pod's service account.
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True, slots=True)
class Vault:
    """A vault that was logged in to."""

    address: str
    headers: Mapping[str, str] = field(repr=False)
    version: int
    mount: str | None
    web: Web

    def read(self, wanted: Wanted) -> str | dict[str, Any]:
        mount, path = self._split(wanted.name)
        query = {"version": wanted.version} if wanted.version and self.version == 2 else {}
        middle = "data/" if self.version == 2 else ""
        url = f"{self.address}/v1/{_quoted(mount)}/{middle}{_quoted(path)}"
        answer = self.web.get(f"{url}?{urlencode(query)}" if query else url, self.headers).object()
        data = answer.get("data")
        if self.version == 2 and isinstance(data, Mapping):
            data = data.get("data")
        if not isinstance(data, Mapping):
            raise ToolError(
                f"secret {wanted.name!r} holds no data (kv_version {self.version}?)",
                kind="not_found",
            )
        return dict(data)

    def _split(self, name: str) -> tuple[str, str]:
        """The mount and the path; ``secret/data/app`` is ``secret/app`` of version 2."""
        name = name.strip("/")
        mount, _, path = (self.mount, "", name) if self.mount else name.partition("/")
        if self.version == 2 and path.startswith("data/"):
            path = path.removeprefix("data/")
        if not path or ".." in path.split("/") or ".." in mount.split("/"):
            raise ToolError(
                f"{name!r} is not the path of a secret; write MOUNT/PATH, or give 'mount'",
                kind="not_found",
            )
        return mount, path


def open(  # noqa: A001 (the port's)
    access: Mapping[str, Any], about: Mapping[str, Any], surroundings: Surroundings
) -> Vault:
    """See ``Provider.open``. The address is the credential's."""
    address = first(access, "address", "addr", "vault_addr", "url", "endpoint")
    if address is None:
        raise ToolError(
            "the credential for provider 'vault' has no 'address'; add it, such as "
            "https://vault.example:8200",
            kind="auth",
        )
    namespace = first(access, "namespace")
    headers = {"x-vault-namespace": namespace} if namespace else {}
    address = address.rstrip("/")
    token = first(access, "token", "vault_token")
    if token is None:
        token = _login(address, access, headers, surroundings)
    both = {**access, **about}
    return Vault(
        address=address,
        headers={**headers, "x-vault-token": token},
        version=_version(both.get("kv_version", both.get("engine_version", 2))),
        mount=first(both, "mount", "mount_point"),
        web=surroundings.web,
    )


def _login(
    address: str,
    access: Mapping[str, Any],
    headers: Mapping[str, str],
    surroundings: Surroundings,
) -> str:
    """A token for the AppRole, or for the service account of this pod."""
    if first(access, "role_id"):
        body = {key: access[key] for key in ("role_id", "secret_id") if access.get(key)}
        mount = first(access, "login_mount") or "approle"
    elif str(access.get("method", access.get("auth_method"))) == "kubernetes":
        surroundings.check_ambient("vault")
        body = {"role": first(access, "role") or "", "jwt": _service_account()}
        mount = first(access, "login_mount") or "kubernetes"
    else:
        raise ToolError(
            "the credential for provider 'vault' has no 'token', no 'role_id' with 'secret_id', "
            "and no 'method: kubernetes' with 'role'",
            kind="auth",
        )
    url = f"{address}/v1/auth/{_quoted(mount)}/login"
    answer = surroundings.web.json(url, body, headers).object()
    auth = answer.get("auth")
    token = auth.get("client_token") if isinstance(auth, Mapping) else None
    if not isinstance(token, str):
        raise ToolError("the vault's login gave no token", kind="auth")
    return token


def _service_account() -> str:
    try:
        return SERVICE_ACCOUNT.read_text().strip()
    except OSError:
        raise ToolError(
            f"this worker has no service account of Kubernetes ({SERVICE_ACCOUNT})", kind="auth"
        ) from None


def _version(value: Any) -> int:
    text = str(value).lower().removeprefix("v")
    if text not in {"1", "2"}:
        raise ToolError("'kv_version' of provider 'vault' is 1 or 2", kind="auth")
    return int(text)


def _quoted(path: str) -> str:
    return quote(path.strip("/"), safe="/")
