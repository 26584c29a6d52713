"""Blobs in a dict: for ``callboard run``, for tests, and as the definition of the port."""

from __future__ import annotations

from collections.abc import Generator, Iterable

#: Bytes of a large blob that are handed on at once.
PIECE = 1 << 20


class MemoryBlobs:
    """Blobs as long as the process lives; see ``BlobStore``."""

    kind = "memory"

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def put(self, key: str, data: bytes) -> None:
        self._blobs[key] = bytes(data)

    def put_stream(self, key: str, pieces: Iterable[bytes]) -> None:
        self._blobs[key] = b"".join(pieces)

    def get(self, key: str) -> bytes | None:
        return self._blobs.get(key)

    def get_stream(self, key: str) -> Generator[bytes, None, None] | None:
        data = self._blobs.get(key)
        if data is None:
            return None
        return (data[at : at + PIECE] for at in range(0, len(data), PIECE))

    def size(self, key: str) -> int | None:
        data = self._blobs.get(key)
        return None if data is None else len(data)

    def delete(self, key: str) -> None:
        self._blobs.pop(key, None)

    def names(self, execution_id: int) -> list[str]:
        prefix = f"{execution_id}/"
        return [key.removeprefix(prefix) for key in list(self._blobs) if key.startswith(prefix)]

    def delete_all(self, execution_id: int) -> None:
        for key in [key for key in list(self._blobs) if key.startswith(f"{execution_id}/")]:
            self._blobs.pop(key, None)
