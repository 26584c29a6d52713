"""Trying credentials of services on the web: tokens are fetched or looked up, a URL is asked."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from app.errors import ToolError
from app.tools import Context
from app.tools.auth import first
from app.tools.http import run as http
from app.tools.web.input import Input as HttpInput

GOOGLE = "https://oauth2.googleapis.com/token"
GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
AZURE = "https://login.microsoftonline.com"
_ASSERTION = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_FILES = ("service_account", "service_account_json", "service_account_info",
          "service_account_key", "credentials_json", "value")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tried:
    """What was done with a credential, in words, and what the other side says it is."""

    checked: str
    server: str | None = None


def request(fields: Mapping[str, Any], context: Context, timeout: float) -> Tried | None:
    """Ask the URL that the credential names for its test, if any."""
    url = first(fields, "test_url", "url", "endpoint")
    if url is None:
        return None
    answer = _asked(context, timeout, url=url, auth={**fields, "source": "inline"})
    server = answer["headers"].get("server")
    return Tried(f"GET from {_shown(url)} answered {answer['status_code']}", server)


def vault(fields: Mapping[str, Any], context: Context, timeout: float) -> Tried | None:
    """Look the token up, or log in for one."""
    address = first(fields, "address", "vault_addr", "url", "addr", "endpoint")
    token = first(fields, "token", "vault_token")
    if address is None:
        raise ToolError("the credential holds no address", kind="auth")
    space = first(fields, "namespace")
    headers = {"X-Vault-Namespace": space} if space else {}
    base = f"{address.rstrip('/')}/v1/auth"
    if token is not None:
        headers["X-Vault-Token"] = token
        _asked(context, timeout, url=f"{base}/token/lookup-self", headers=headers)
        return Tried("looked the token up", _shown(address))
    role, secret = first(fields, "role_id"), first(fields, "secret_id")
    if role is None or secret is None:
        return None
    mount = quote(first(fields, "login_mount") or "approle")
    login = {"role_id": role, "secret_id": secret}
    found = _posted(context, timeout, url=f"{base}/{mount}/login", headers=headers, json=login)
    _conceal(found.get("auth") or {}, "client_token", context)
    return Tried("logged in with the AppRole", _shown(address))


def oauth2(fields: Mapping[str, Any], context: Context, timeout: float) -> Tried:
    """Get a token."""
    url = first(fields, "token_url", "endpoint", "token_endpoint")
    domain = first(fields, "domain", "auth0_domain")
    url = url or (
        f"https://{domain.removeprefix('https://').strip('/')}/oauth/token" if domain else None
    )
    if url is None:
        raise ToolError("the credential holds no token_url", kind="auth")
    refresh = first(fields, "refresh_token")
    scopes = fields.get("scopes") or fields.get("scope")
    form = {
        "grant_type": first(fields, "grant_type")
        or ("refresh_token" if refresh else "client_credentials"),
        "client_id": first(fields, "client_id", "auth0_client_id"),
        "client_secret": first(fields, "client_secret", "auth0_client_secret"),
        "refresh_token": refresh,
        "audience": first(fields, "audience"),
        "scope": " ".join(map(str, scopes)) if isinstance(scopes, list) else scopes,
    }
    return _token(url, form, context, timeout)


def google(fields: Mapping[str, Any], context: Context, timeout: float) -> Tried | None:
    """Get a token for the service account, or for the user who agreed."""
    account = _account(fields)
    url = first(account, "token_uri") or GOOGLE
    refresh = first(account, "refresh_token")
    if account.get("private_key"):
        form = {"grant_type": _ASSERTION, "assertion": _assertion(account, url, context)}
    elif refresh:
        form = {"grant_type": "refresh_token", "refresh_token": refresh}
        form |= {name: first(account, name) or "" for name in ("client_id", "client_secret")}
    else:
        return None
    return _token(url, form, context, timeout)


def azure(fields: Mapping[str, Any], context: Context, timeout: float) -> Tried | None:
    """Get a token for the application."""
    tenant, client = first(fields, "tenant_id", "tenant"), first(fields, "client_id")
    secret = first(fields, "client_secret")
    if secret is None:
        return None
    if tenant is None or client is None:
        raise ToolError("the credential needs tenant_id and client_id", kind="auth")
    authority = (first(fields, "authority") or AZURE).rstrip("/")
    form = {
        "grant_type": "client_credentials",
        "client_id": client,
        "client_secret": secret,
        "scope": first(fields, "scope") or "https://vault.azure.net/.default",
    }
    url = f"{authority}/{quote(tenant, safe='')}/oauth2/v2.0/token"
    return _token(url, form, context, timeout)


def aws(fields: Mapping[str, Any], context: Context, timeout: float) -> Tried | None:
    """Ask the token service who we are; None without the package that signs requests."""
    key = first(fields, "access_key_id", "aws_access_key_id", "key_id", "access_key")
    secret = first(fields, "secret_access_key", "aws_secret_access_key", "secret_key", "secret")
    try:
        signing = import_module("botocore.auth")
        requests = import_module("botocore.awsrequest")
        credentials = import_module("botocore.credentials")
    except ImportError:
        return None
    if key is None or secret is None:
        return None
    region = first(fields, "region", "region_name", "aws_region") or "us-east-1"
    url = first(fields, "sts_endpoint", "endpoint", "endpoint_url")
    url = url or f"https://sts.{quote(region)}.amazonaws.com/"
    body = urlencode({"Action": "GetCallerIdentity", "Version": "2011-06-15"})
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    signed = requests.AWSRequest("POST", url, data=body, headers=headers)
    identity = credentials.Credentials(
        key, secret, first(fields, "session_token", "aws_session_token")
    )
    signing.SigV4Auth(identity, "sts", region).add_auth(signed)
    _asked(context, timeout, url=url, method="POST", headers=dict(signed.headers), body=body)
    return Tried("asked sts who we are", _shown(url))


# ---------------------------------------------------------------------- asking
def _token(url: str, form: Mapping[str, Any], context: Context, timeout: float) -> Tried:
    given = {name: value for name, value in form.items() if value is not None}
    _conceal(_posted(context, timeout, url=url, form=given), "access_token", context)
    return Tried("got a token", _shown(url))


def _conceal(found: Mapping[str, Any], name: str, context: Context) -> None:
    token = found.get(name)
    if not isinstance(token, str) or not token:
        raise ToolError(f"the answer holds no {name}", kind="auth")
    context.secrets.conceal(token)


def _posted(context: Context, timeout: float, **config: Any) -> Mapping[str, Any]:
    """The JSON object that a POST answers with."""
    data = _asked(context, timeout, method="POST", response_type="json", **config)["data"]
    if not isinstance(data, dict):
        raise ToolError("the answer is no JSON object", kind="auth")
    return data


def _asked(context: Context, timeout: float, **config: Any) -> dict[str, Any]:
    # Not to be led elsewhere with a secret: whatever redirects is not what the credential names.
    config = {"timeout": timeout, "follow_redirects": False, **config}
    return http(HttpInput.model_validate(config), context)


def _account(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a service account's key file, which may be one field's value."""
    for name in _FILES:
        inner = fields.get(name)
        if isinstance(inner, str) and inner.lstrip().startswith("{"):
            try:
                inner = json.loads(inner)
            except ValueError:
                # Without the cause: it holds the key.
                raise ToolError(f"{name} is no JSON object", kind="auth") from None
        if isinstance(inner, Mapping):
            return inner
    return fields


def _assertion(account: Mapping[str, Any], url: str, context: Context) -> str:
    """What the account signs to say who it is."""
    from google.auth import crypt, jwt

    email = first(account, "client_email")
    if email is None:
        raise ToolError("the service account holds no client_email", kind="auth")
    # A key that went through an environment variable often has its line breaks written out.
    pem = str(account["private_key"]).replace("\\n", "\n")
    context.secrets.conceal(pem)
    try:
        signer = crypt.RSASigner.from_string(pem, first(account, "private_key_id"))  # type: ignore[no-untyped-call]  # has no types
    except Exception:  # noqa: BLE001 (whatever the parser says may quote the key)
        raise ToolError("the private_key is no RSA key in PEM form", kind="auth") from None
    now = int(time.time())
    claims = {"iss": email, "sub": email, "aud": url, "iat": now, "exp": now + 600}
    signed = jwt.encode(signer, {**claims, "scope": GOOGLE_SCOPE})  # type: ignore[no-untyped-call]  # the same
    assertion: str = signed.decode()
    context.secrets.conceal(assertion)
    return assertion


def _shown(url: str) -> str:
    """Where *url* leads; its user, password, path and query may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


SERVICES = {
    **dict.fromkeys(("bearer", "http", "basic", "api_key"), request),
    **dict.fromkeys(("oauth2", "auth0"), oauth2),
    **dict.fromkeys(("google_service_account", "pubsub"), google),
    "vault": vault,
    "azure": azure,
    "aws": aws,
}
