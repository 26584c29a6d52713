"""Artifacts over HTTP: workers send them in pieces, clients download them as files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote

from anyio.from_thread import run as run_on_loop
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from app.api.access import CallerDep, caller_of
from app.api.bodies import Body, answer, complaint, parse, takes
from app.api.dependencies import ControlDep
from app.errors import BadRequestError
from app.services.control import Control
from app.wire import ArtifactAnswer, ArtifactRequest

router = APIRouter(tags=["artifacts"])

#: Bytes that are handed to the store at once; what the network gives is smaller.
PIECE = 1 << 20


@router.post(
    "/api/worker/artifacts",
    openapi_extra=takes(ArtifactRequest),
    response_model=ArtifactAnswer,
    tags=["workers"],
)
def offer(body: Body, caller: CallerDep, control: ControlDep) -> Response:
    """Whether an artifact of the attempt may be kept, and whether it is there already."""
    request = parse(ArtifactRequest, body)
    return answer(control.artifacts.offer(request, pool=caller.pool))


@router.put("/api/worker/artifacts", response_model=ArtifactAnswer, tags=["workers"])
async def put(request: Request) -> Response:
    """Keep the body, which is what the query (see the POST of the same path) says."""
    control: Control = request.app.state.control
    given, pool = _given(request), caller_of(request).pool
    pieces = _pieces(request.stream())
    return answer(await run_in_threadpool(control.artifacts.put, given, pieces, pool=pool))


@router.get("/api/artifacts", response_class=StreamingResponse)
def download(ref: str, control: ControlDep) -> Response:
    """The bytes that *ref* (noetl://execution/…/artifact/…) stands for, as a file."""
    found = control.artifacts.download(ref)
    headers = {
        "content-disposition": f"attachment; filename*=UTF-8''{quote(found.name, safe='')}",
        "content-length": str(found.size),
        # What a playbook kept must not run as a page of ours, whatever it calls itself.
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox",
    }
    return StreamingResponse(found.pieces, media_type=found.content_type, headers=headers)


def _given(request: Request) -> ArtifactRequest:
    try:
        return ArtifactRequest.model_validate(dict(request.query_params))
    except ValidationError as exc:
        raise BadRequestError(
            "; ".join(complaint(error["loc"], error["msg"]) for error in exc.errors()),
            remedy="see /api/openapi.json for the form of the request",
        ) from None


def _pieces(stream: AsyncIterator[bytes]) -> Iterator[bytes]:
    """What *stream* brings on the event loop, for the thread that keeps it."""
    while piece := run_on_loop(_piece, stream):
        yield piece


async def _piece(stream: AsyncIterator[bytes]) -> bytes:
    """The next piece, as large as is worth a change of threads; nothing at the end."""
    parts, size = [], 0
    async for part in stream:
        parts.append(part)
        size += len(part)
        if size >= PIECE:
            break
    return b"".join(parts)
