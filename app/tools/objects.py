"""Objects in S3 and Google Cloud Storage by their URL, with a credential. Needs ``obstore``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from urllib.parse import unquote, urlsplit

from app.errors import ToolError
from app.tools import Context
from app.tools.auth import first
from app.tools.web.guard import Backend, Stopped
from app.tools.web.policy import policy_of

SCHEMES = ("s3://", "gs://")
_PORTS = {"http": 80, "https": 443}
_REGIONS = ("region", "aws_region", "region_name")
_ENDPOINTS = ("endpoint", "endpoint_url", "aws_endpoint")
_KEYS = ("service_account_key", "service_account_json", "value")
#: A region becomes a part of the host.
_REGION = re.compile(r"[A-Za-z0-9-]+")


def check(fields: Mapping[str, Any], context: Context) -> None:
    """Raise ``ToolError`` where playbooks may not reach what *fields* say that the store is at."""
    region = first(fields, *_REGIONS)
    if region is not None and not _REGION.fullmatch(region):
        raise ToolError(f"{region[:100]!r} is no region of an object store", kind="schema")
    for endpoint in _endpoints(fields):
        parts = urlsplit(endpoint)
        port = parts.port or _PORTS.get(parts.scheme)
        if not parts.hostname or port is None:
            raise ToolError(f"the endpoint {endpoint} is no http:// or https:// URL", kind="schema")
        try:
            Backend(policy_of(context.settings)).checked(parts.hostname, port)
        except Stopped as exc:
            raise exc.error from exc


def _endpoints(fields: Mapping[str, Any]) -> Iterator[str]:
    if endpoint := first(fields, *_ENDPOINTS):
        yield endpoint
    key = first(fields, *_KEYS)
    try:
        account = json.loads(key) if key else fields
    except ValueError:
        return  # the library says so
    for name in ("gcs_base_url", "token_uri"):
        if isinstance(account, Mapping) and account.get(name):
            yield str(account[name])


def read(url: str, fields: Mapping[str, Any], *, most: int, timeout: float) -> tuple[bytes, str]:
    """The object's bytes, no more than *most*, and its content type. Raises ``ToolError``."""
    with _telling(url):
        store, path = _opened(url, fields, timeout)
        found = store.get(path)
        if found.meta["size"] > most:
            raise ToolError(
                f"{_shown(url)} has {found.meta['size']} bytes, more than the {most} allowed; "
                "raise CALLBOARD_RESULT_BYTES",
                kind="resource",
            )
        kind = str(found.attributes.get("Content-Type", ""))
        return bytes(found.bytes()), kind


def write(
    url: str, fields: Mapping[str, Any], content: bytes, content_type: str, *, timeout: float
) -> None:
    """Write the object, replacing one that is there. Raises ``ToolError``."""
    with _telling(url):
        store, path = _opened(url, fields, timeout)
        store.put(path, content, attributes={"Content-Type": content_type})


def _opened(url: str, fields: Mapping[str, Any], timeout: float) -> tuple[Any, str]:
    parts = urlsplit(url)
    bucket, path = parts.netloc, unquote(parts.path.lstrip("/"))
    if not bucket or not path:
        raise ToolError(f"{_shown(url)} names no object; write s3://BUCKET/PATH", kind="schema")
    stores = import_module("obstore.store")
    options = {"timeout": f"{max(1, int(timeout))}s", "connect_timeout": "10s"}
    retries = {"max_retries": 2}
    if parts.scheme == "gs":
        key = first(fields, *_KEYS)
        key = key or (json.dumps(dict(fields)) if fields.get("private_key") else None)
        if key is None:
            raise ToolError("gs:// needs a credential with a service account's key", kind="auth")
        made = stores.GCSStore(
            bucket, service_account_key=key, client_options=options, retry_config=retries
        )
        return made, path
    return stores.S3Store(bucket, **_s3(fields, options), retry_config=retries), path


def _s3(fields: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    known = {
        "access_key_id": first(fields, "access_key_id", "aws_access_key_id", "key_id"),
        "secret_access_key": first(
            fields, "secret_access_key", "aws_secret_access_key", "secret_key"
        ),
        "session_token": first(fields, "session_token", "aws_session_token"),
        "region": first(fields, *_REGIONS) or "us-east-1",
        "endpoint": first(fields, *_ENDPOINTS),
    }
    if known["access_key_id"] is None or known["secret_access_key"] is None:
        # Without them the library would ask the machine's metadata service.
        raise ToolError(
            "s3:// needs a credential with access_key_id and secret_access_key", kind="auth"
        )
    plain = str(known["endpoint"] or "").startswith("http://")
    given = {name: value for name, value in known.items() if value is not None}
    return {**given, "client_options": {**options, "allow_http": plain}}


@contextmanager
def _telling(url: str) -> Iterator[None]:
    try:
        known: type[Exception] = import_module("obstore.exceptions").BaseError
    except ImportError as exc:
        raise ToolError(
            "object stores need the package obstore: pip install 'callboard[objects]'",
            kind="schema",
        ) from exc
    try:
        yield
    except (known, OSError, ValueError, TypeError) as exc:
        # Without the cause: its message holds the request, and what the server said of the key.
        name = type(exc).__name__
        kind, retryable = _KINDS.get(name, ("connection", True))
        raise ToolError(f"{_shown(url)}: {name}", kind=kind, retryable=retryable) from None


#: obstore's exceptions; whatever is not here is trouble on the way to the store.
_KINDS = {
    "FileNotFoundError": ("not_found", False),
    "NotFoundError": ("not_found", False),
    "PermissionDeniedError": ("auth", False),
    "UnauthenticatedError": ("auth", False),
    "InvalidPathError": ("schema", False),
    "NotSupportedError": ("schema", False),
    "UnknownConfigurationKeyError": ("schema", False),
    "ValueError": ("schema", False),
    "TypeError": ("schema", False),
}


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
