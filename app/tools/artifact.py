"""``artifact``: data by reference, read whole or kept beside the results of the execution.

``get`` reads what a reference (``{{ step._ref }}``) or a URI stands for; a value that is no
reference is given back as it is, so that a playbook need not know whether a result was large.
``put`` keeps data under a name and gives a reference to it.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import mimetypes
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import orjson
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from app.engine.references import NAMED, REF, Place, content_type_of, place_of
from app.errors import BadRequestError, ToolError
from app.tools import Context, Tool, beneath, objects
from app.tools.auth import resolve
from app.tools.times import Time, seconds

JSON, TEXT, BYTES = "application/json", "text/plain", "application/octet-stream"
FORMATS = {"json": JSON, "text": TEXT, "csv": "text/csv"}
REFERENCES = ("noetl://", "artifact://")
PLACES = (*REFERENCES, "file://", *objects.SCHEMES)


class Input(BaseModel):
    """``action`` and what it is about; the keys may also stand under ``input``."""

    model_config = ConfigDict(populate_by_name=True)

    action: Literal["get", "put"] = Field("get", description="`get` or `put`.")
    result_ref: Any = Field(
        None,
        validation_alias=AliasChoices("result_ref", "ref", "reference"),
        description="What to get: a reference from `_ref`, or any value, which is given back.",
    )
    uri: str | None = Field(
        None,
        description="Where it is: `noetl://`, `artifact://NAME`, `file://` below the workspace, "
        "`s3://` or `gs://`.",
    )
    data: Any = Field(
        None,
        validation_alias=AliasChoices("data", "value", "content"),
        description="What to put: JSON data, text, or base64 text with `encoding: base64`.",
    )
    # Beside ``kind``, ``name`` is the task's; below ``input`` it comes here.
    name: str | None = Field(
        None,
        validation_alias=AliasChoices("filename", "name"),
        description="What to put it under; else the step's name.",
    )
    content_type: str | None = Field(None, description="What it is made of, such as `text/csv`.")
    format: Literal["json", "text", "csv", "binary"] | None = Field(
        None, description="How to write the data; `csv` takes a list of mappings."
    )
    encoding: Literal["base64", "utf-8"] | None = Field(None, description="How text is to be read.")
    auth: str | dict[str, Any] | None = Field(
        None,
        validation_alias=AliasChoices("auth", "credential", "credentials"),
        description="The credential for `s3://` and `gs://`.",
    )
    timeout: Time | None = Field(
        None,
        validation_alias=AliasChoices("timeout", "timeout_seconds"),
        description="How long it may take: seconds, or text such as `30s`.",
    )
    input: dict[str, Any] | None = Field(None, description="The same keys.")

    @model_validator(mode="before")
    @classmethod
    def _lift_input(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("input"), Mapping):
            return {**values["input"], **values}
        return values


def run(request: Input, context: Context) -> dict[str, Any]:
    """Of ``get`` ``{status, data, …}``, of ``put`` ``{status, _ref, uri, size_bytes, checksum}``."""
    return _get(request, context) if request.action == "get" else _put(request, context)


# ---------------------------------------------------------------------- get
def _get(request: Input, context: Context) -> dict[str, Any]:
    """``{status, data}`` with ``uri``, ``content_type`` and ``encoding`` where it was fetched."""
    uri = request.uri
    if uri is None:
        uri = _uri_in(request.result_ref)
    elif not uri.startswith(PLACES):
        raise ToolError(
            f"{uri[:200]!r} cannot be read; use {', '.join(PLACES)}, or the http tool",
            kind="schema",
        )
    if uri is None:
        status = "not_found" if request.result_ref is None else "success"
        return {"status": status, "data": request.result_ref}
    content, kind, shown = _fetched(uri, request, context)
    data, extra = _readable(content, kind)
    return {"status": "success", "data": data, "uri": shown, "content_type": kind, **extra}


def _uri_in(value: Any) -> str | None:
    """Where *value* says it is kept; None for one that stands for itself."""
    if isinstance(value, Mapping):
        pointer = value.get(REF, value)
        if isinstance(pointer, Mapping):
            known = str(pointer.get("kind", "")).endswith("_ref")
            pointer = pointer.get("ref") if known else None
        value = pointer
    return value if isinstance(value, str) and value.startswith(PLACES) else None


def _fetched(uri: str, request: Input, context: Context) -> tuple[Any, str, str]:
    """The content (bytes, or data that was read already), its type, and its full reference."""
    if uri.startswith("file://"):
        content = beneath.read(context.workspace, _path(uri), context.settings.result_bytes)
        return content, _type_by_name(uri), uri
    if uri.startswith(objects.SCHEMES):
        limit = seconds(request.timeout, most=context.timeout)
        fields = resolve(_needed(request.auth, uri), context)
        objects.check(fields, context)
        content, kind = objects.read(uri, fields, most=context.settings.result_bytes, timeout=limit)
        return content, kind or _type_by_name(uri), uri
    if uri.startswith("artifact://"):
        uri = _newest(uri, context)
    try:
        kind = content_type_of(place_of(uri))
    except BadRequestError as exc:
        raise ToolError(str(exc), kind="schema") from exc
    return context.artifacts.get(uri), kind, uri


def _newest(uri: str, context: Context) -> str:
    """The reference of what was last put under the name in ``artifact://NAME``."""
    name = uri.removeprefix("artifact://")
    if name.startswith("execution/"):
        return f"noetl://{name}"
    found = context.artifacts.get(Place(context.execution_id, f"{NAMED}{name}").ref)
    return str(found[REF]["ref"])


def _readable(content: Any, kind: str) -> tuple[Any, dict[str, str]]:
    """*content* as JSON data, text, or base64 text."""
    if not isinstance(content, bytes):
        return content, {}
    if kind == JSON or kind.endswith("+json"):
        try:
            return orjson.loads(content), {}
        except ValueError:
            pass  # what calls itself JSON and is none is read as text
    if kind not in {BYTES, ""} and not kind.startswith(("image/", "audio/", "video/")):
        try:
            return content.decode(), {}
        except UnicodeDecodeError:
            pass  # it is given as bytes
    return base64.b64encode(content).decode(), {"encoding": "base64"}


# ---------------------------------------------------------------------- put
def _put(request: Input, context: Context) -> dict[str, Any]:
    if "data" not in request.model_fields_set:
        raise ToolError("artifact put needs data", kind="schema")
    uri = request.uri or ""
    if uri and not uri.startswith(("artifact://", "file://", *objects.SCHEMES)):
        raise ToolError(
            f"{uri[:200]!r} cannot be written to; use artifact://NAME, file://, s3:// or gs://",
            kind="schema",
        )
    if not uri or uri.startswith("artifact://"):
        return _kept(request, uri.removeprefix("artifact://"), context)
    content, kind = _content(request, uri)
    if uri.startswith("file://"):
        beneath.write(context.workspace, _path(uri), content)
    else:
        limit = seconds(request.timeout, most=context.timeout)
        fields = resolve(_needed(request.auth, uri), context)
        objects.check(fields, context)
        objects.write(uri, fields, content, kind, timeout=limit)
    return _told(uri, kind, len(content), sha256(content).hexdigest())


def _kept(request: Input, name: str, context: Context) -> dict[str, Any]:
    name = request.name or name or context.step
    content, kind = _content(request, name)
    if kind == JSON:
        kept = context.artifacts.put(name, orjson.loads(content))
    else:
        # A folder of our own: the workspace is open to what the steps run.
        with tempfile.TemporaryDirectory(prefix="callboard-") as folder:
            path = Path(folder) / "artifact"
            path.write_bytes(content)
            kept = context.artifacts.put_file(name, path, kind)
    pointer = kept[REF]
    checksum = str(pointer["checksum"]).removeprefix("sha256:")
    told = _told(pointer["ref"], pointer["content_type"], kept["_size_bytes"], checksum)
    return {**told, "name": name, **kept}


def _told(uri: str, kind: str, size: int, checksum: str) -> dict[str, Any]:
    about = {"uri": uri, "content_type": kind, "size_bytes": size}
    return {"status": "success", **about, "checksum": f"sha256:{checksum}"}


def _content(request: Input, name: str) -> tuple[bytes, str]:
    """The data as bytes, and its content type."""
    data, kind = request.data, request.content_type or FORMATS.get(request.format or "", "")
    if request.encoding == "base64" or request.format == "binary":
        try:
            return base64.b64decode(data, validate=True), kind or _type_by_name(name) or BYTES
        except (TypeError, ValueError, binascii.Error) as exc:
            raise ToolError(f"data is not base64 text: {exc}", kind="schema") from exc
    if request.format == "csv" and isinstance(data, list):
        return _csv(data).encode(), kind
    is_json = kind == JSON or kind.endswith("+json")
    if isinstance(data, str) and not is_json:
        return data.encode("utf-8", "surrogatepass"), kind or _text_type(name)
    try:
        text = orjson.dumps(data, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as exc:
        raise ToolError(f"data has no JSON form: {exc}", kind="schema") from exc
    return text, kind or JSON


def _csv(rows: list[Any]) -> str:
    if not all(isinstance(row, Mapping) for row in rows):
        raise ToolError("csv needs data to be a list of mappings", kind="schema")
    columns = list(dict.fromkeys(str(key) for row in rows for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({str(key): _cell(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    return orjson.dumps(value).decode() if isinstance(value, bool | dict | list) else value


def _type_by_name(name: str) -> str:
    return mimetypes.guess_type(urlsplit(name).path or name)[0] or BYTES


def _text_type(name: str) -> str:
    """Text is text, whatever its name; its name may tell of which kind."""
    guessed = _type_by_name(name)
    return TEXT if guessed in {BYTES, JSON} else guessed


def _path(uri: str) -> str:
    return unquote(uri.removeprefix("file://"))


def _needed(auth: Any, uri: str) -> Any:
    if not auth:
        raise ToolError(f"{uri.partition('://')[0]}:// needs credential", kind="auth")
    return auth


tool = Tool("artifact", input=Input, run=run, queue="io")
