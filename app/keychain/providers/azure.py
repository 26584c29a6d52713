"""``azure``: Azure Key Vault.

A credential holds ``tenant_id``, ``client_id`` and ``client_secret`` and usually ``vault_url``;
without one the worker's managed identity is used where that is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from app.engine.auth import first
from app.errors import ToolError
from app.keychain.providers import Surroundings, Wanted
from app.keychain.web import Web

AUTHORITY = "https://login.microsoftonline.com"
METADATA = "http://169.254.169.254/metadata/identity/oauth2/token"
RESOURCE = "https://vault.azure.net"
VERSION = "7.4"
_NAME = re.compile(r"[A-Za-z0-9-]{1,127}")
_VAULT = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class KeyVault:
    """The secrets of one key vault."""

    url: str
    token: str = field(repr=False)
    web: Web

    def read(self, wanted: Wanted) -> str | dict[str, Any]:
        name, _, version = wanted.name.partition("/")
        version = version or wanted.version or ""
        if not _NAME.fullmatch(name) or not (version == "" or _NAME.fullmatch(version)):
            raise ToolError(
                f"{wanted.name!r} is no name of a secret in a key vault", kind="not_found"
            )
        path = f"{name}/{version}" if version and version != "latest" else name
        url = f"{self.url}/secrets/{quote(path)}?api-version={VERSION}"
        value = self.web.get(url, {"authorization": f"Bearer {self.token}"}).object().get("value")
        if not isinstance(value, str):
            raise ToolError(f"secret {name!r} of the key vault has no value", kind="not_found")
        return value


def open(  # noqa: A001 (the port's)
    access: Mapping[str, Any], about: Mapping[str, Any], surroundings: Surroundings
) -> KeyVault:
    """See ``Provider.open``. The playbook may name a vault; a URL is the credential's."""
    return KeyVault(_vault_url(access, about), _token(access, surroundings), surroundings.web)


def _vault_url(access: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    url = first(access, "vault_url", "endpoint", "url")
    if url:
        return url.rstrip("/")
    name = first(about, "vault", "vault_name") or first(access, "vault", "vault_name")
    if name is None or not _VAULT.fullmatch(name):
        raise ToolError(
            "provider 'azure' was told no key vault: give 'vault' its name, or the credential "
            "a 'vault_url'",
            kind="auth",
        )
    return f"https://{name}.vault.azure.net"


def _token(access: Mapping[str, Any], surroundings: Surroundings) -> str:
    given = first(access, "access_token", "token")
    if given:
        return given
    tenant, client = first(access, "tenant_id", "tenant"), first(access, "client_id")
    secret = first(access, "client_secret")
    if tenant and client and secret:
        authority = (first(access, "authority") or AUTHORITY).rstrip("/")
        form = {
            "grant_type": "client_credentials",
            "client_id": client,
            "client_secret": secret,
            "scope": f"{RESOURCE}/.default",
        }
        url = f"{authority}/{quote(tenant, safe='')}/oauth2/v2.0/token"
        answer = surroundings.web.form(url, form, {}).object()
    elif access.keys() - {"type", "client_id", "vault_url", "vault", "vault_name"}:
        raise ToolError(
            "the credential for provider 'azure' needs 'tenant_id', 'client_id' and "
            "'client_secret'",
            kind="auth",
        )
    else:
        surroundings.check_ambient("azure")
        query = {"api-version": "2018-02-01", "resource": RESOURCE}
        if client:
            query["client_id"] = client
        url = f"{METADATA}?{urlencode(query)}"
        answer = surroundings.web.get(url, {"metadata": "true"}, metadata=True).object()
    token = answer.get("access_token")
    if not isinstance(token, str) or not token:
        raise ToolError("Azure's answer has no 'access_token'", kind="auth")
    return token
