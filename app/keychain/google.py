"""Tokens of Google: for a service account, for a user who agreed, or for the machine itself."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from app.engine.auth import first
from app.errors import ToolError
from app.keychain.providers import Surroundings
from app.keychain.web import Web

TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 (an address)
PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
METADATA = "http://metadata.google.internal"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: Seconds that an assertion holds.
_LIFE = 3600


def service_account(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The service account in *fields*: its own fields, or JSON under one of the usual names."""
    for name in ("service_account_json", "service_account", "credentials", "key", "value"):
        inner = fields.get(name)
        if isinstance(inner, str) and inner.strip().startswith("{"):
            try:
                inner = json.loads(inner)
            except ValueError:
                continue
        if isinstance(inner, Mapping) and "private_key" in inner:
            return inner
    return fields


def access_token(fields: Mapping[str, Any], surroundings: Surroundings) -> str:
    """A token for Google's APIs. Raises ``ToolError``."""
    account = service_account(fields)
    given = first(account, "access_token", "token")
    if given:
        return given
    if account.get("private_key"):
        return _text(_asserted(account, {"scope": PLATFORM}, surroundings.web), "access_token")
    uri = first(account, "token_uri") or TOKEN_URI
    if account.get("refresh_token"):
        form = {
            "grant_type": "refresh_token",
            **{
                key: account.get(key, "") for key in ("client_id", "client_secret", "refresh_token")
            },
        }
        return _text(surroundings.web.form(uri, form, {}).object(), "access_token")
    surroundings.check_ambient("gcp")
    url = f"{METADATA}/computeMetadata/v1/instance/service-accounts/default/token"
    headers = {"metadata-flavor": "Google"}
    return _text(surroundings.web.get(url, headers, metadata=True).object(), "access_token")


def id_token(fields: Mapping[str, Any], audience: str, surroundings: Surroundings) -> str:
    """A token that says to *audience* who the caller is. Raises ``ToolError``."""
    account = service_account(fields)
    if account.get("private_key"):
        claims = {"target_audience": audience}
        return _text(_asserted(account, claims, surroundings.web), "id_token")
    surroundings.check_ambient("gcp")
    url = (
        f"{METADATA}/computeMetadata/v1/instance/service-accounts/default/identity"
        f"?audience={quote(audience, safe='')}&format=full"
    )
    headers = {"metadata-flavor": "Google"}
    return surroundings.web.get(url, headers, metadata=True).content.decode("ascii", "replace")


def seconds_left(token: str, now: float) -> float | None:
    """How long a JSON Web Token still holds, as it says itself; None where it does not say."""
    try:
        middle = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        return max(0.0, float(claims["exp"]) - now)
    except (IndexError, ValueError, KeyError, TypeError):
        return None


def _asserted(account: Mapping[str, Any], claims: Mapping[str, str], web: Web) -> dict[str, Any]:
    """What the token endpoint gives for an assertion that the account signed."""
    from google.auth import jwt

    uri = first(account, "token_uri") or TOKEN_URI
    now = int(time.time())
    email = first(account, "client_email")
    if email is None:
        raise ToolError("the service account has no 'client_email'", kind="auth")
    payload = {"iss": email, "sub": email, "aud": uri, "iat": now, "exp": now + _LIFE, **claims}
    assertion = jwt.encode(_signer(account), payload).decode()  # type: ignore[no-untyped-call]  # has no types
    form = {"grant_type": _GRANT, "assertion": assertion}
    return web.form(uri, form, {}).object()


def _signer(account: Mapping[str, Any]) -> Any:
    from google.auth.crypt import RSASigner

    # A key that went through an environment variable often has its line breaks written out.
    pem = str(account["private_key"]).replace("\\n", "\n")
    try:
        return RSASigner.from_string(pem, account.get("private_key_id"))  # type: ignore[no-untyped-call]  # the same
    except Exception:  # noqa: BLE001 (whatever the parser says may quote the key)
        raise ToolError(
            "the 'private_key' of the service account is no RSA key in PEM form", kind="auth"
        ) from None


def _text(answer: Mapping[str, Any], name: str) -> str:
    found = answer.get(name)
    if not isinstance(found, str) or not found:
        raise ToolError(f"Google's answer has no {name!r}", kind="auth")
    return found
