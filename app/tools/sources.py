"""Program text that a playbook gives inline, in base64, or by its place: python, scripts and SQL."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, Field

from app.errors import ToolError
from app.tools import Context
from app.tools.places import Source, read


class Script(BaseModel):
    """The older form of ``Source``: the place outside, the rest in ``source``."""

    uri: str | None = None
    path: str | None = None
    code: str | None = None
    source: Source = Field(default_factory=Source)


def text_of(script: Script | Source, context: Context) -> str:
    """The text of an external program. Raises ``ToolError`` where it cannot be read."""
    source = script.source if isinstance(script, Script) else script
    inline = source.code or source.content or (script.code if isinstance(script, Script) else None)
    if inline is not None:
        return inline
    return read(place_of(script), source, context)


def place_of(script: Script | Source) -> str:
    """The URI or path of an external program; "" for an inline one."""
    source = script.source if isinstance(script, Script) else script
    outside = (script.uri or script.path) if isinstance(script, Script) else None
    return outside or source.uri or source.path or ""


def decoded(text: str, key: str) -> str:
    """The program that the base64 text under *key* holds."""
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as exc:
        raise ToolError(f"{key} is not base64 of UTF-8 text: {exc}", kind="schema") from exc


def statements(request: BaseModel, keys: tuple[str, ...], context: Context) -> str:
    """The SQL of the first of *keys* that is set: text, a list of texts, or base64 (``*_b64``)."""
    for key, value in _set(request, keys):
        if isinstance(value, list):
            return ";\n".join(part.rstrip().rstrip(";") for part in value)
        return decoded(value, key) if key.endswith(("_b64", "_base64")) else value
    script = getattr(request, "script", None)
    if script is not None:
        return text_of(script, context)
    raise ToolError(f"there is nothing to run; give one of {', '.join(keys)}", kind="schema")


def _set(request: BaseModel, keys: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for key in keys:
        value = getattr(request, key, None)
        if value:
            yield key, value


#: What ``as_texts`` reads.
EnvInput = dict[str, str | int | float | bool | None] | None


def as_texts(value: Any) -> Any:
    """Environment variables as YAML gives them: nothing is none, numbers are text."""
    if value is None:
        return {}
    return {key: str(item) for key, item in value.items()} if isinstance(value, Mapping) else value
