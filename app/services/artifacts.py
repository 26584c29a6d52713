"""Artifacts: bytes that an execution keeps by reference, beside the results of its steps.

They go to the blob store, whatever their size, under a name that ends in their digest. The name
that their maker gave them leads to the newest of that name.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from app.engine.ports import BlobStore, EventLog
from app.engine.references import (
    ARTIFACT,
    NAMED,
    Place,
    artifact_place,
    artifact_reference,
    content_type_of,
    file_name_of,
    place_of,
)
from app.errors import BadRequestError, CallboardError, UnavailableError
from app.services.claimants import Claimants
from app.services.large import DIGEST, key_of
from app.services.reading import MissingValueError
from app.wire import ArtifactAnswer, ArtifactRequest


class TooLargeError(CallboardError):
    """An artifact is above the limit."""

    code = "too_large"
    status = 413


@dataclass(frozen=True, slots=True)
class Download:
    """An artifact as a file: its last bytes are handed out only where all were what they were."""

    name: str
    content_type: str
    size: int
    pieces: Generator[bytes, None, None]


class Artifacts:
    """The use cases of artifacts. *most* bounds each in bytes."""

    def __init__(
        self, events: EventLog, blobs: BlobStore | None, claimants: Claimants, *, most: int
    ) -> None:
        self._log = events
        self._claimants = claimants
        self._blobs = blobs
        self._most = most

    def offer(self, request: ArtifactRequest, *, pool: str | None = None) -> ArtifactAnswer:
        """Where the artifact belongs, and whether it is there already.

        Raises ``ForbiddenError`` where *request* is not of an attempt that its worker runs now
        (in *pool*, for a caller limited to one), and ``TooLargeError``.
        """
        place, blobs = self._admitted(request, pool)
        kept = blobs.size(key_of(place)) == request.size
        if kept:
            self._name(request, place, blobs.kind)
        return ArtifactAnswer(ref=place.ref, store=blobs.kind, kept=kept)

    def put(
        self, request: ArtifactRequest, pieces: Iterable[bytes], *, pool: str | None = None
    ) -> ArtifactAnswer:
        """Keep *pieces*, which must be what *request* says. Raises as ``offer`` does, and
        ``BadRequestError`` where they are something else."""
        place, blobs = self._admitted(request, pool)
        blobs.put_stream(key_of(place), _checked(pieces, request))
        self._name(request, place, blobs.kind)
        return ArtifactAnswer(ref=place.ref, store=blobs.kind, kept=True)

    def download(self, ref: str) -> Download:
        """The artifact that *ref* stands for. Raises ``MissingValueError`` for one that is lost."""
        place = place_of(ref)
        if not place.name.startswith(ARTIFACT):
            raise BadRequestError(
                f"{ref[:200]!r} is no artifact", remedy="results are at GET /api/result/resolve"
            )
        blobs, key = self._store(), key_of(place)
        size, pieces = blobs.size(key), blobs.get_stream(key)
        if size is None or pieces is None:
            raise MissingValueError(
                f"the artifact {place.ref} is gone",
                remedy="is the blob store the one it was written to? see CALLBOARD_BLOBS",
            )
        whole = _verified(pieces, place)
        return Download(file_name_of(place), content_type_of(place), size, whole)

    # ------------------------------------------------------------------ who may, and where
    def _admitted(self, request: ArtifactRequest, pool: str | None) -> tuple[Place, BlobStore]:
        if request.size > self._most:
            raise TooLargeError(
                f"the artifact {request.name!r} has {request.size} bytes, more than {self._most}",
                remedy="keep less, or raise CALLBOARD_ARTIFACT_BYTES",
            )
        digest = request.digest[:DIGEST]
        place = artifact_place(request.execution_id, request.name, request.content_type, digest)
        self._claimants.check(request, request.worker, pool=pool, what="keeping artifacts")
        return place, self._store()

    def _store(self) -> BlobStore:
        if self._blobs is None:
            raise UnavailableError(
                "there is no blob store to keep artifacts in", remedy="see CALLBOARD_BLOBS"
            )
        return self._blobs

    def _name(self, request: ArtifactRequest, place: Place, store: str) -> None:
        """Let the name lead to it. After the bytes are there: a name of nothing would do harm."""
        kind = content_type_of(place)
        shown = artifact_reference(place, store, request.size, kind, request.digest)
        with self._log.transaction([request.execution_id]) as tx:
            named = f"{NAMED}{request.name}"
            tx.store_value(request.execution_id, named, shown, source_step=request.step)


def _checked(pieces: Iterable[bytes], request: ArtifactRequest) -> Iterator[bytes]:
    """*pieces*, and an error at their end where they are not what was announced."""
    digest, size = sha256(), 0
    for piece in pieces:
        size += len(piece)
        if size > request.size:
            break
        digest.update(piece)
        yield piece
    if size != request.size or digest.hexdigest() != request.digest:
        raise BadRequestError(
            f"the bytes of the artifact {request.name!r} are not those that were announced",
            remedy="do not change a file while it is being kept",
        )


def _verified(pieces: Generator[bytes, None, None], place: Place) -> Generator[bytes, None, None]:
    """*pieces*, the last one held back until their digest is known to be right."""
    digest, held = sha256(), b""
    try:
        for piece in pieces:
            digest.update(piece)
            if held:
                yield held
            held = piece
        if digest.hexdigest()[:DIGEST] != place.name.rpartition("/")[2]:
            raise MissingValueError(
                f"the artifact {place.ref} is damaged: its digest is {digest.hexdigest()[:DIGEST]}",
                remedy="restore it from a backup of the blob store",
            )
        yield held
    finally:
        pieces.close()
