"""What nats-py raises, as playbooks know errors. No message holds a URL or a value."""

from __future__ import annotations

import nats.errors
from nats.js import errors as js

from app.errors import ToolError
from app.tools.bus.servers import Server

_DENIED = ("authorization", "authentication", "permissions violation", "credentials", "nkey")


def classify(exc: Exception, server: Server, what: str) -> ToolError:  # noqa: PLR0911 (one return per kind)
    """The error of doing *what* there."""
    where = f"{what} at NATS {server.address}"
    text = str(exc).lower()
    if isinstance(exc, nats.errors.AuthorizationError) or any(word in text for word in _DENIED):
        return ToolError(f"{where} was refused: not authorised", kind="auth")
    if isinstance(exc, js.KeyWrongLastSequenceError):
        return ToolError(
            f"{where}: the key has another revision by now",
            kind="client_error",
            error_code="WRONG_REVISION",
        )
    if isinstance(exc, js.NotFoundError | js.NoStreamResponseError):
        return ToolError(f"{where}: {_words(exc)}", kind="not_found")
    if isinstance(exc, js.APIError):
        return _of_api(exc, where)
    if isinstance(exc, nats.errors.NoRespondersError):
        return ToolError(f"{where}: nobody answers there", kind="not_found", retryable=True)
    if isinstance(exc, TimeoutError):
        return ToolError(f"{where}: no answer in time", kind="timeout", retryable=True)
    if isinstance(exc, _WRONG):
        return ToolError(f"{where}: {_words(exc)}", kind="schema")
    return ToolError(f"{where}: {_words(exc)}", kind="connection", retryable=True)


_WRONG = (
    js.InvalidBucketNameError,
    js.InvalidObjectNameError,
    js.BadObjectMetaError,
    js.LinkIsABucketError,
    js.ObjectAlreadyExists,
    js.KeyHistoryTooLargeError,
    nats.errors.BadSubjectError,
    nats.errors.BadHeaderError,
    nats.errors.MaxPayloadError,
    ValueError,
)


def _of_api(exc: js.APIError, where: str) -> ToolError:
    away = isinstance(exc, js.ServiceUnavailableError | js.ServerError)
    return ToolError(
        f"{where}: {_words(exc)}",
        kind="server_error" if away else "client_error",
        retryable=away,
        error_code=f"NATS_{exc.err_code or exc.code}",
    )


_SAYS = {
    js.InvalidBucketNameError: "a bucket's name is made of letters, digits, '_' and '-'",
    js.BucketNotFoundError: "there is no such bucket, and create is false",
    js.NoStreamResponseError: "no stream keeps that subject",
    js.LinkIsABucketError: "the object stands for a whole bucket",
}


def _words(exc: Exception) -> str:
    if type(exc) in _SAYS:
        return _SAYS[type(exc)]
    if isinstance(exc, js.APIError) and exc.description:
        return exc.description
    if isinstance(exc, OSError):
        return exc.strerror or type(exc).__name__
    return str(exc).removeprefix("nats: ") or type(exc).__name__
