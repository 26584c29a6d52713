"""Bytes that NATS holds, as data of playbooks and back; and the names that are not theirs to use."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from app.errors import ToolError
from app.tools.bus.request import Input

#: The streams and subjects of the servers' own broker, in lower case.
OUR_STREAMS = ("callboard_steps", "callboard_wakes")
OUR_SUBJECTS = ("callboard.steps.", "callboard.wakes.")


def encoded(request: Input) -> bytes:
    """The value as bytes: text as it is (or what it stands for), else JSON. Raises ``ToolError``."""
    value = request.value
    if request.encoding == "base64":
        try:
            return base64.b64decode(value, validate=True)
        except (TypeError, ValueError, binascii.Error) as exc:
            raise ToolError(f"value is not base64 text: {exc}", kind="schema") from exc
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as exc:
        raise ToolError(f"value has no JSON form: {exc}", kind="schema") from exc


def decoded(content: bytes | None) -> tuple[Any, dict[str, str]]:
    """*content* as JSON data, else as text, else as base64 text, which is said beside."""
    if not content:
        return "", {}
    try:
        return orjson.loads(content), {}
    except ValueError:
        pass  # most of what is no JSON is text
    try:
        return content.decode(), {}
    except UnicodeDecodeError:
        return base64.b64encode(content).decode(), {"encoding": "base64"}


def subject_of(request: Input) -> str:
    """The subject to publish to. Raises ``ToolError`` for those that playbooks may not use."""
    subject = request.subject or ""
    if any(part in {"*", ">", ""} for part in subject.split(".")):
        raise ToolError(f"{subject!r} is no subject to publish to", kind="schema")
    system = subject.startswith("$") and not subject.startswith("$KV.")
    if system or subject.startswith("_INBOX.") or subject.lower().startswith(OUR_SUBJECTS):
        raise ToolError(
            f"{subject!r} is not for playbooks: it steers the server or Callboard itself",
            kind="auth",
            error_code="reserved_subject",
        )
    return subject


def stream_of(request: Input) -> str:
    """The stream to read. Raises ``ToolError`` for those of the servers themselves."""
    stream = request.stream or ""
    if stream.lower() in OUR_STREAMS:
        raise ToolError(
            f"the stream {stream!r} is not for playbooks: Callboard's own messages are in it",
            kind="auth",
            error_code="reserved_stream",
        )
    return stream
