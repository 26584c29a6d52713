"""The artifacts of one attempt, kept by the control plane; see ``tools.Artifacts``.

Secrets that the attempt was told are masked in what it keeps, where that is text.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import structlog

from app.actors.fetching import Asker, Fetcher
from app.engine.encoding import dumps, loads
from app.engine.masking import Masker
from app.engine.references import artifact_reference, content_type_of, media_type, place_of
from app.errors import (
    BadRequestError,
    CallboardError,
    ForbiddenError,
    NotFoundError,
    ToolError,
)
from app.settings import Settings
from app.wire import ArtifactAnswer, ArtifactRequest

log = structlog.get_logger(__name__)

JSON = "application/json"
#: Bytes that are read from a file at once.
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class KeptArtifacts:
    """What an attempt reads and keeps beside its result. One per attempt."""

    fetcher: Fetcher
    asker: Asker
    worker: str
    masker: Masker
    settings: Settings

    def get(self, ref: str) -> Any:
        """The value that *ref* (noetl://…) stands for: JSON data, text, or else bytes.

        Raises ``ToolError``: not_found, auth for what belongs to another family of executions,
        resource for what is too large to be read at once.
        """
        ref = self.masker.text(ref)  # as the name in it was when it was kept
        try:
            kind = content_type_of(place_of(ref))
            content = self.fetcher.fresh(self.asker, ref)
        except NotFoundError as exc:
            raise ToolError(str(exc), kind="not_found") from exc
        except ForbiddenError as exc:
            raise ToolError(str(exc), kind="auth") from exc
        except BadRequestError as exc:
            raise ToolError(str(exc), kind="schema") from exc
        return read_as(kind, content)

    def put(self, name: str, data: Any) -> dict[str, Any]:
        """Keep JSON data under *name*; the reference to it. Raises ``ToolError``."""
        try:
            text = dumps(self.masker.data(data))
        except BadRequestError as exc:
            raise ToolError(f"{name!r} is not plain JSON data: {exc}", kind="schema") from exc
        return self._keep(name, JSON, lambda: (text,))

    def put_file(self, name: str, path: Path, content_type: str) -> dict[str, Any]:
        """Keep the bytes of a file under *name*; the reference to them. Raises ``ToolError``."""
        masks = self.masker if self.masker and is_text(content_type) else None

        def pieces() -> Iterator[bytes]:
            read = _read(path)
            return read if masks is None else masked(read, masks)

        return self._keep(name, content_type, pieces)

    def _keep(
        self, name: str, content_type: str, pieces: Callable[[], Iterable[bytes]]
    ) -> dict[str, Any]:
        # A name is kept, and shown, like all else; that of a download is the end of its URL.
        name = self.masker.text(name)
        digest, size = sha256(), 0
        try:
            for piece in pieces():
                digest.update(piece)
                size += len(piece)
                self._check(name, size)
            kind = media_type(content_type)
            request = ArtifactRequest(
                **self.asker.pointer._asdict(),
                worker=self.worker,
                name=name,
                content_type=kind,
                digest=digest.hexdigest(),
                size=size,
            )
            answer = self._insist(request, pieces)
        except OSError as exc:
            raise ToolError(
                f"the file for {name!r} cannot be read: {exc.strerror}", kind="storage_access"
            ) from exc
        except (CallboardError, ValueError) as exc:
            if isinstance(exc, ToolError):
                raise
            kind = "auth" if isinstance(exc, ForbiddenError) else "storage_access"
            raise ToolError(f"{name!r} cannot be kept: {exc}", kind=kind) from exc
        place = place_of(answer.ref)
        return artifact_reference(place, answer.store, size, kind, request.digest)

    def _check(self, name: str, size: int) -> None:
        most = self.settings.artifact_bytes
        if size > most:
            raise ToolError(
                f"{name!r} has more than {most} bytes; keep less, or raise CALLBOARD_ARTIFACT_BYTES",
                kind="resource",
            )
        self._check_stopped()

    def _check_stopped(self) -> None:
        if self.asker.stop.is_set():
            raise ToolError("the attempt was stopped", kind="cancelled")
        if time.monotonic() > self.asker.deadline:
            raise ToolError(
                "the artifact could not be kept in time", kind="timeout", retryable=True
            )

    def _insist(
        self, request: ArtifactRequest, pieces: Callable[[], Iterable[bytes]]
    ) -> ArtifactAnswer:
        what = f"the artifact {request.name!r}"
        return self.asker.insist(what, lambda: self.fetcher.keep(request, pieces))


def is_text(content_type: str) -> bool:
    """Whether what is of this type is text in UTF-8, JSON included."""
    kind = content_type.partition(";")[0].strip().lower()
    last = kind.rpartition("/")[2]
    names = {"json", "xml", "yaml", "x-yaml", "javascript", "csv", "x-ndjson", "jsonl", "sql"}
    return kind.startswith("text/") or last in names or last.endswith(("+json", "+xml"))


def read_as(content_type: str, content: bytes) -> Any:
    """*content* as JSON data, as text where it is some, or as it is."""
    if content_type == JSON or content_type.endswith("+json"):
        try:
            return loads(content)
        except ValueError:
            pass  # a file that calls itself JSON and is none is read as text
    if is_text(content_type):
        try:
            return content.decode()
        except UnicodeDecodeError:
            return content
    return content


def masked(pieces: Iterable[bytes], masker: Masker) -> Iterator[bytes]:
    """*pieces* of one text with the secrets masked, those included that lie across two of them."""
    # Bytes that are no UTF-8 come out as they went in.
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    held = ""
    for piece in pieces:
        text = held + decoder.decode(piece)
        done = _settled(text, masker.longest)
        masked_text = masker.text(text[:done])
        # What was masked already is masked no second time: it holds no secret any more.
        cut = _settled(masked_text, masker.longest)
        yield masked_text[:cut].encode("utf-8", "surrogateescape")
        held = masked_text[cut:] + text[done:]
    rest = masker.text(held + decoder.decode(b"", final=True))
    yield rest.encode("utf-8", "surrogateescape")


def _settled(text: str, longest: int) -> int:
    """How much of *text* no secret that begins in it can reach beyond, up to the end of a word."""
    cut = max(0, len(text) - longest)
    lowest = max(0, cut - longest)
    while cut > lowest and (text[cut - 1].isalnum() or text[cut - 1] == "_"):
        cut -= 1
    return cut


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece
