"""Reading requests and writing answers: bodies up to a limit, models in, JSON out."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

import orjson
from fastapi import Depends, Request, Response
from pydantic import BaseModel, ValidationError

from app.errors import BadRequestError, CallboardError
from app.settings import Settings

#: What a body may hold beside the payload that a setting limits.
FRAME = 65_536
DEFAULT_LIMIT = 16 * 1024 * 1024
#: A body this many times too large is read to its end and dropped, so that the sender hears why.
PATIENCE = 4

M = TypeVar("M", bound=BaseModel)


class TooLargeError(CallboardError):
    """The body of the request is above its limit."""

    code: ClassVar[str] = "too_large"
    status: ClassVar[int] = 413


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest bodies in bytes, by what they carry, and the setting to blame."""

    other: int
    playbook: int
    report: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        # YAML inside JSON, or as base64, is larger than the YAML; its own size is checked after.
        return cls(
            other=DEFAULT_LIMIT,
            playbook=2 * settings.playbook_bytes + FRAME,
            report=settings.result_bytes + DEFAULT_LIMIT,
        )


def _reader(
    limit_of: Callable[[Limits], int], setting: str | None
) -> Callable[[Request], Coroutine[Any, Any, bytes]]:
    async def read(request: Request) -> bytes:
        return await _read(request, limit_of(request.app.state.limits), setting)

    return read


async def _read(request: Request, limit: int, setting: str | None) -> bytes:
    """The body. Raises ``TooLargeError`` above *limit* bytes, and holds no more than that."""
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdigit() else 0
    parts: list[bytes] = []
    if size <= PATIENCE * limit:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size <= limit:
                parts.append(part)
            else:
                parts.clear()
                if size > PATIENCE * limit:
                    break
    if size > limit:
        raise TooLargeError(
            f"the body is larger than {limit} bytes",
            remedy=f"send less, or raise {setting}" if setting else "send less at once",
        )
    return b"".join(parts)


read_body = _reader(lambda limits: limits.other, None)
read_playbook = _reader(lambda limits: limits.playbook, "CALLBOARD_PLAYBOOK_BYTES")
read_report = _reader(lambda limits: limits.report, "CALLBOARD_RESULT_BYTES")

Body = Annotated[bytes, Depends(read_body)]
PlaybookBody = Annotated[bytes, Depends(read_playbook)]


def parse(model: type[M], body: bytes) -> M:
    """*body* as *model*, whatever its Content-Type; an empty one is ``{}``.

    Raises ``BadRequestError`` that names the key; values are never repeated: one may be a secret.
    """
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as exc:
        raise BadRequestError(
            "; ".join(complaint(error["loc"], error["msg"]) for error in exc.errors()),
            remedy="see /api/openapi.json for the form of the request",
        ) from None


def complaint(place: tuple[int | str, ...], message: str) -> str:
    """One line about one key, such as ``claims.0.step: Field required``."""
    return f"{'.'.join(map(str, place)) or 'body'}: {message}"


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """``openapi_extra`` of a route that parses its body itself."""
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


def answer(model: BaseModel) -> Response:
    """*model* as JSON, without a detour over plain objects."""
    return Response(model.__pydantic_serializer__.to_json(model), media_type="application/json")


def plain(data: Any, *, status: int = 200) -> Response:
    """JSON values as JSON."""
    return Response(orjson.dumps(data), status_code=status, media_type="application/json")


def identity(text: str | None, name: str) -> int | None:
    """An id sent as text. Raises ``BadRequestError`` where it is not a number."""
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 63):
        raise BadRequestError(f"{name} is not an id", remedy="send the digits the API gave out")
    return int(text)
