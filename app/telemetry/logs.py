"""Logs: readable on a terminal, JSON otherwise, never with a secret in them."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.engine.masking import SHORTEST
from app.engine.masking import Masker as Handed
from app.errors import StartupError
from app.settings import Settings

MASK = "********"
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
#: Libraries that say at INFO what only their authors want to know.
QUIET = ("uvicorn.access", "sqlalchemy", "alembic", "urllib3", "apscheduler", "asyncio", "httpcore")
#: Libraries that bring handlers of their own: theirs go, so that each line is written once.
ROUTED = ("uvicorn", "uvicorn.error", "uvicorn.access", "dramatiq", "sqlalchemy", "alembic", "nats")

#: Shorter values would mask half of an ordinary sentence.
MIN_SECRET = 4
_SECRET_KEY = re.compile(
    r"passw(or)?d|passwd|token|secret|authorization|api_?key|cookie", re.IGNORECASE
)
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/?#@]*):[^\s/@]+@", re.IGNORECASE)
_URL_QUERY = re.compile(r"([?&](?:password|sslpassword|token|secret)=)[^&\s\"']+", re.IGNORECASE)
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{4,}", re.IGNORECASE)


def configure(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send every log line of this process to *stream* (default: stderr); call it once.

    Raises ``StartupError`` where the level or the format is not one we know.
    """
    out = sys.stderr if stream is None else stream
    level = LEVELS.get(settings.log_level.lower())
    if level is None:
        raise StartupError(
            f"log level {settings.log_level!r} is not one of {', '.join(LEVELS)}",
            remedy="set CALLBOARD_LOG_LEVEL to one of them",
        )
    shared = _processors(Masker.of(settings))
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(settings.log_format, out),
            ],
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    _route(handler, level)


def conceal(*values: str) -> None:
    """Mask *values* in every line that this process logs from now on."""
    _handed.add(*values)


@contextmanager
def about(execution_id: int, step: str | None = None, **more: Any) -> Iterator[None]:
    """Bind the execution, and the step, to every line that is logged inside."""
    names: dict[str, Any] = {"execution_id": execution_id, **more}
    if step is not None:
        names["step"] = step
    with structlog.contextvars.bound_contextvars(**names):
        yield


class Masker:
    """A processor that takes secrets out: by value, by key, and inside of URLs and headers."""

    def __init__(self, values: set[str]) -> None:
        # The longest first: one secret may begin with another.
        known = sorted(
            (value for value in values if len(value) >= MIN_SECRET), key=len, reverse=True
        )
        self._values = re.compile("|".join(map(re.escape, known))) if known else None

    @classmethod
    def of(cls, settings: Settings) -> Masker:
        """One that knows the values of all settings marked secret."""
        values: set[str] = set(settings.pool_tokens)
        for item in fields(settings):
            value = getattr(settings, item.name)
            if (
                item.metadata.get("secret")
                and isinstance(value, str)
                and item.name != "worker_tokens"
            ):
                values |= _secrets_in(value)
        return cls(values)

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {name: self._under(name, value) for name, value in event.items()}

    def mask(self, text: str) -> str:
        """*text* without secrets."""
        text = _handed.mask(text)
        if self._values is not None:
            text = self._values.sub(MASK, text)
        if "://" in text:
            text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
        if "=" in text:
            text = _URL_QUERY.sub(rf"\1{MASK}", text)
        return _BEARER.sub(rf"\1 {MASK}", text)

    def _under(self, name: object, value: Any) -> Any:
        if isinstance(name, str) and name.startswith("_"):
            return value  # structlog's own, such as the record; taken out before rendering
        if isinstance(name, str) and value not in (None, "") and _SECRET_KEY.search(name):
            return MASK
        return self._inside(value)

    def _inside(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.mask(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {name: self._under(name, item) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._inside(item) for item in value]
        # Anything else would be turned into text after this, out of our sight.
        return self.mask(str(value))


class _Handed:
    """The secrets that this process was told most recently: at least the last ``MOST``."""

    MOST = 200

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._older, self._newer = Handed(), Handed()
        self._count = 0

    def add(self, *values: str) -> None:
        with self._lock:
            # Those too short to be masked are never in it, and must not push others out.
            new = [
                value
                for value in values
                if len(value.strip()) >= SHORTEST and value not in self._newer
            ]
            if not new:
                return
            if self._count + len(new) > self.MOST:
                self._older, self._newer, self._count = self._newer, Handed(), 0
            self._newer.add(*new)
            self._count += len(new)

    def mask(self, text: str) -> str:
        return self._newer.text(self._older.text(text))


_handed = _Handed()


def _secrets_in(value: str) -> set[str]:
    """The part of a setting that must not be seen: of a URL its password, also unquoted."""
    if "://" not in value:
        return {value}
    password = urlsplit(value).password
    return {password, unquote(password)} if password else set()


def _processors(masker: Masker) -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        _without_colours,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        # Last, so that it sees tracebacks and formatted arguments too.
        masker,
    ]


def _without_colours(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """uvicorn sends each message a second time, with colours in it."""
    event.pop("color_message", None)
    return event


def _renderer(form: str, out: TextIO) -> Processor:
    if form not in {"auto", "console", "json"}:
        raise StartupError(
            f"log format {form!r} is not one of auto, console, json",
            remedy="set CALLBOARD_LOG_FORMAT to one of them",
        )
    terminal = out.isatty()
    if form == "json" or (form == "auto" and not terminal):
        return structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    return structlog.dev.ConsoleRenderer(
        colors=terminal, exception_formatter=structlog.dev.plain_traceback
    )


def _route(handler: logging.Handler, level: int) -> None:
    """Make *handler* the only one, of the root and of libraries that had their own."""
    root = logging.getLogger()
    for known in list(root.handlers):
        root.removeHandler(known)
    root.addHandler(handler)
    root.setLevel(level)
    for name in ROUTED:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
