"""What ``auth:`` adds to a request: a header, a query parameter, or a client certificate."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from app.errors import ToolError
from app.tools import Context
from app.tools.auth import called, first, resolve
from app.tools.web.transport import Certificate

_API_KEY = {"api_key", "apikey", "header"}
_BASIC = {"basic", "httpbasicauth"}
_BEARER = {"bearer", "bearer_token", "httpbearerauth"}
_CHAIN = ("cert", "certificate", "client_cert", "cert_pem")
_KEY = ("private_key", "client_key", "cert_key", "key_pem")
_CERTIFICATE = {"certificate", "client_certificate", "mtls", "tls"}


def authenticate(
    auth: Any, context: Context, headers: dict[str, str], params: dict[str, Any]
) -> Certificate | None:
    """Add to *headers* and *params* what *auth* asks for; the certificate to connect with.

    What stands there already wins. Several credentials under aliases are all added. Raises
    ``ToolError`` (kind auth).
    """
    if isinstance(auth, Mapping) and len(auth) > 1 and _are_aliases(auth):
        found = [authenticate(one, context, headers, params) for one in auth.values()]
        return next((one for one in found if one is not None), None)
    fields = resolve(auth, context)
    certificate = _certificate(fields)
    logs_in = certificate is None or _says_more(fields)
    if logs_in and not _login(fields, context, headers, params):
        raise ToolError(
            f"the {called(auth, fields)} holds neither a token, nor an api_key, nor a username",
            kind="auth",
        )
    return certificate


def _are_aliases(auth: Mapping[str, Any]) -> bool:
    return all(isinstance(one, Mapping) for one in auth.values())


def _login(
    fields: Mapping[str, Any], context: Context, headers: dict[str, str], params: dict[str, Any]
) -> bool:
    """Whether *fields* hold a login, which is added."""
    kind = (first(fields, "type", "auth_type", "scheme") or "").lower()
    user = first(fields, "username", "user", "login")
    key = first(fields, "api_key", "key")
    token = first(fields, "token", "bearer_token", "access_token", "value")
    if kind in _API_KEY or (kind not in _BASIC | _BEARER and key):
        _add_key(fields, key or token, headers, params)
    elif kind in _BASIC or (user and token is None):
        pair = f"{user or ''}:{first(fields, 'password') or ''}"
        headers.setdefault("authorization", basic(pair, context))
    elif token is not None:
        headers.setdefault("authorization", f"Bearer {token.removeprefix('Bearer ')}")
    elif kind.startswith("oauth2"):
        raise ToolError(
            "an oauth2 credential holds no token yet; name it in a keychain entry, and that entry's "
            "token in a header",
            kind="auth",
        )
    else:
        return False
    return True


def basic(pair: str, context: Context) -> str:
    """The header of *pair* (``user:password``), which is as secret as the password."""
    encoded = base64.b64encode(pair.encode()).decode()
    context.secrets.conceal(encoded)
    return f"Basic {encoded}"


def _add_key(
    fields: Mapping[str, Any], value: str | None, headers: dict[str, str], params: dict[str, Any]
) -> None:
    if value is None:
        raise ToolError("the api_key credential holds no api_key or value", kind="auth")
    name = first(fields, "header_name", "header") or "X-API-Key"
    if (first(fields, "in", "location") or "header").lower() in {"query", "param", "params"}:
        params.setdefault(first(fields, "param_name", "name") or name, value)
    else:
        headers.setdefault(name.lower(), f"{first(fields, 'prefix') or ''}{value}")


def _certificate(fields: Mapping[str, Any]) -> Certificate | None:
    chain, authority = first(fields, *_CHAIN), first(fields, "ca", "ca_cert", "ca_pem")
    kind = (first(fields, "type") or "").lower()
    if chain is None and authority is None:
        if kind in _CERTIFICATE:
            raise ToolError("the certificate credential holds no cert", kind="auth")
        return None
    # Beside a certificate, a key that is PEM text is the certificate's.
    own = first(fields, "key") if "-----BEGIN" in (first(fields, "key") or "") else None
    return Certificate(
        chain=chain,
        key=first(fields, *_KEY) or own,
        password=first(fields, "key_password", "passphrase"),
        authority=authority,
    )


def _says_more(fields: Mapping[str, Any]) -> bool:
    """Whether a credential with a certificate also holds a login."""
    names = ("token", "bearer_token", "access_token", "api_key", "username", "user")
    return first(fields, *names) is not None
