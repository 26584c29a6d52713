"""Errors as problem documents (RFC 9457): one form, whatever went wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app.api.bodies import complaint, plain
from app.errors import BadRequestError, CallboardError, InvalidPlaybookError, UnavailableError

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
#: Codes for what the framework itself refuses.
CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    remedy: str | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """The document: ``type, title, status, detail, code, remedy`` and what else is known."""
    data = {
        "type": f"urn:callboard:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "remedy": remedy,
        **more,
    }
    response = plain(data, status=status)
    response.headers["content-type"] = MEDIA_TYPE
    response.headers.update(headers or {})
    return response


def of_error(error: CallboardError) -> Response:
    """The document of an error that was meant to be read."""
    headers: dict[str, str] = {}
    more: dict[str, Any] = {}
    if isinstance(error, UnavailableError):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, InvalidPlaybookError):
        more["source"] = error.source
        more["findings"] = [finding.to_dict() for finding in error.findings]
    return problem(
        error.status, error.code, error.message, remedy=error.remedy, headers=headers, **more
    )


def install(app: FastAPI) -> None:
    """Make every error of *app* such a document. Those nobody expected are met in ``observe``."""
    app.add_exception_handler(CallboardError, on_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)


async def on_error(request: Request, error: Exception) -> Response:
    """The document of a ``CallboardError``; what is ours to mend is logged."""
    assert isinstance(error, CallboardError)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("http.error", path=request.url.path, code=error.code, error=str(error))
    return of_error(error)


async def _on_validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The framework's own text repeats the values that were sent.
    detail = "; ".join(complaint(item["loc"], item["msg"]) for item in error.errors())
    return of_error(BadRequestError(detail))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    detail, remedy = str(error.detail), None
    if status == HTTPStatus.NOT_FOUND:
        detail, remedy = f"there is no route {request.url.path}", "see /api/openapi.json"
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.url.path} does not answer to {request.method}"
    code = CODES.get(
        status, "bad_request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "error"
    )
    return problem(status, code, detail, remedy=remedy, headers=error.headers)
