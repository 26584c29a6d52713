"""Reads the program that a place names: a file, an address, or an object of a store."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

from pydantic import BaseModel, Field, field_validator

from app.errors import ToolError
from app.tools import Context
from app.tools.auth import resolve
from app.tools.child.keys import google_key

TIMEOUT = 60.0
_PREFIXES = {"s3": "s3", "gcs": "gs"}
_PORTS = {"http": 80, "https": 443}
#: What is there of files tells of processes: of us, whose environment holds secrets.
_PROCESSES = tuple(map(Path, ("/proc", "/sys", "/dev")))


#: How the types of sources are written, and what they mean.
_TYPES = {"https": "http", "gs": "gcs", "local": "file"}


class Source(BaseModel):
    """Where a program is: ``code`` for inline ones, ``uri`` or ``path`` for all others.

    ``auth`` names a credential, ``region`` and ``endpoint`` are for object stores.
    """

    type: Literal["inline", "file", "http", "gcs", "s3"] | None = None
    code: str | None = None
    content: str | None = None
    uri: str | None = None
    path: str | None = None
    bucket: str | None = None
    auth: Any = None
    region: str | None = None
    endpoint: str | None = None
    method: Literal["GET"] = "GET"
    headers: dict[str, str] = Field(default_factory=dict)

    @field_validator("type", mode="before", json_schema_input_type=str)
    @classmethod
    def _known(cls, value: Any) -> Any:
        return _TYPES.get(value, value) if isinstance(value, str) else value


def read(place: str, source: Source, context: Context) -> str:
    """The text at *place*. Raises ``ToolError`` where it cannot be read.

    The scheme of *place* says what it is, else the type of *source*; else it is a file.
    """
    if not place:
        raise ToolError("the script names neither code nor a place; give uri", kind="schema")
    scheme = urlsplit(place).scheme
    if scheme in _PORTS or (not scheme and source.type == "http"):
        data = _fetched(place, source, context)
    elif scheme in {"s3", "gs", "gcs"} or (not scheme and source.type in _PREFIXES):
        data = _object(place, source, context)
    else:
        data = _file(place, context)
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise ToolError(f"the script {place} is not UTF-8 text: {exc}", kind="parse") from exc


def _file(place: str, context: Context) -> bytes:
    """The file, which is read as our user and not as the step's: hence not what is ours alone."""
    path = Path(place.removeprefix("file://"))
    try:
        found = path.resolve()
        own = (context.settings.home, context.settings.secrets_dir, *_PROCESSES)
        if _is_below(found, own) and not _is_below(found, [context.workspace]):
            raise ToolError(
                f"the script {place} is among the worker's own files, which playbooks may not read",
                kind="auth",
            )
        return found.read_bytes()
    except (OSError, ValueError) as exc:
        raise ToolError(f"the script {place} cannot be read: {exc}", kind="not_found") from exc


def _is_below(path: Path, folders: Iterable[Path | None]) -> bool:
    return any(folder is not None and path.is_relative_to(folder.resolve()) for folder in folders)


def _fetched(place: str, source: Source, context: Context) -> bytes:
    # Most programs stand in the playbook, and HTTP takes as long to import as all else here.
    from app.tools.web.auth import authenticate
    from app.tools.web.fetch import fetch

    headers = dict(source.headers)
    params: dict[str, str] = {}
    if source.auth and authenticate(source.auth, context, headers, params):
        raise ToolError("a script is not fetched with a client certificate", kind="auth")
    url = f"{place}{'&' if '?' in place else '?'}{urlencode(params)}" if params else place
    limit = context.settings.result_bytes
    return fetch(url, context, limit, headers=headers, timeout=TIMEOUT)


def _object(place: str, source: Source, context: Context) -> bytes:
    from app.tools import objects

    scheme, _, rest = place.rpartition("://")
    if not scheme:
        scheme, rest = source.type or "", f"{source.bucket or ''}/{place.lstrip('/')}"
    if not source.auth:
        raise ToolError(f"the script {place} needs a credential; name it under auth", kind="auth")
    fields = resolve(source.auth, context)
    if source.region:
        fields["region"] = source.region
    if source.endpoint:
        fields["endpoint"] = source.endpoint
    objects.check(fields, context)
    if key := google_key(fields):
        fields["service_account_key"] = key
    url = f"{_PREFIXES.get(scheme, scheme)}://{rest}"
    limit = context.settings.result_bytes
    return objects.read(url, fields, most=limit, timeout=min(TIMEOUT, context.timeout))[0]
