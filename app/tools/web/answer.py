"""What an answer holds: read up to a limit into memory, beyond it into a file."""

from __future__ import annotations

import base64
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import httpx2
import orjson

from app.errors import ToolError
from app.tools import Context
from app.tools.web.exchange import shown


@dataclass(frozen=True, slots=True)
class Body:
    """The unpacked bytes of an answer: in ``content``, or all of them in ``file``.

    ``is_cut``: there were more, which were left where they are.
    """

    content: bytes
    file: IO[bytes] | None = None
    is_cut: bool = False


def receive(
    response: httpx2.Response, context: Context, held: ExitStack, *, to_file: bool = False
) -> Body:
    """Read *response* in constant memory; a file goes when *held* is closed.

    An error's text beyond the limit is left. Raises ``ToolError`` (kind resource, parse).
    """
    small, most = context.settings.http_inline_bytes, context.settings.http_bytes
    content, file, size = bytearray(), None, 0
    try:
        for piece in response.iter_bytes():
            size += len(piece)
            if size > min(small, most) and not response.is_success:
                return Body(bytes(content + piece)[:small], is_cut=True)
            if size > most:
                raise _too_large(response, most)
            if file is None and (to_file or size > small):
                file = _file(context, held)
                file.write(content)
                content.clear()
            if file is None:
                content += piece
            else:
                file.write(piece)
    except httpx2.DecodingError as exc:
        encoding = response.headers.get("content-encoding", "")
        raise ToolError(
            f"the answer of {shown(response.url)} is not the {encoding} it says it is: {exc}",
            kind="parse",
        ) from exc
    if file is None and to_file and response.is_success:
        file = _file(context, held)
    if file is not None:
        file.flush()
    return Body(bytes(content), file)


def kept(body: Body, response: httpx2.Response, name: str | None, context: Context) -> Any:
    """The reference to the file that *body* is, kept under *name* or that of the URL."""
    assert body.file is not None
    kind = content_type(response) or "application/octet-stream"
    name = name or PurePosixPath(response.url.path).name or "answer"
    return context.artifacts.put_file(name, Path(body.file.name), kind)


def payload(
    body: Body, response: httpx2.Response, wanted: str | None
) -> tuple[Any, dict[str, Any]]:
    """The data of an answer in memory, and ``{encoding: base64}`` where that is how it is told."""
    content, kind = body.content, content_type(response)
    if wanted == "json" or (wanted is None and kind.endswith(("/json", "+json"))):
        if not content:
            return None, {}
        try:
            return orjson.loads(content), {}
        except ValueError as exc:
            if wanted == "json" and response.is_success:
                raise ToolError(
                    f"the answer of {shown(response.url)} is not JSON: {exc}", kind="parse"
                ) from None
    if wanted != "binary":
        try:
            return content.decode(response.charset_encoding or "utf-8"), {}
        except (UnicodeDecodeError, LookupError):
            if wanted == "text":
                return content.decode("utf-8", "replace"), {}
    return base64.b64encode(content).decode(), {"encoding": "base64"}


def content_type(response: httpx2.Response) -> str:
    """The media type without its parameters, in lower case; empty where none is told."""
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def _file(context: Context, held: ExitStack) -> IO[bytes]:
    context.workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
    return held.enter_context(tempfile.NamedTemporaryFile(prefix="http-", dir=context.workspace))


def _too_large(response: httpx2.Response, most: int) -> ToolError:
    return ToolError(
        f"{shown(response.request.url)} answered with more than the {most} bytes allowed; ask for "
        "less, or raise CALLBOARD_HTTP_BYTES",
        kind="resource",
    )
