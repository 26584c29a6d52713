"""Blobs in a dict: for ``callboard run``, for tests, and as the definition of the port."""

from __future__ import annotations


class MemoryBlobs:
    """Blobs as long as the process lives; see ``BlobStore``."""

    kind = "memory"

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def put(self, key: str, data: bytes) -> None:
        self._blobs[key] = bytes(data)

    def get(self, key: str) -> bytes | None:
        return self._blobs.get(key)

    def size(self, key: str) -> int | None:
        data = self._blobs.get(key)
        return None if data is None else len(data)

    def delete(self, key: str) -> None:
        self._blobs.pop(key, None)
