"""What a child prints, as its worker keeps it."""

from __future__ import annotations

import codecs
from collections.abc import Callable


class Capture:
    """The first *limit* bytes of a stream, passed on as they come; the rest is counted."""

    def __init__(self, name: str, limit: int, log: Callable[[str, str], None]) -> None:
        self.name = name
        self.left = limit
        self.limit = limit
        self.dropped = 0
        self._log = log
        self._decoder: codecs.IncrementalDecoder | None = None
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def feed(self, data: bytes) -> None:
        kept = data[: self.left]
        self.left -= len(kept)
        self.dropped += len(data) - len(kept)
        if kept:
            # Made now: most programs print nothing.
            self._decoder = self._decoder or codecs.getincrementaldecoder("utf-8")("replace")
            self._add(self._decoder.decode(kept))

    def finish(self) -> None:
        """Say what was dropped."""
        if self._decoder is not None:
            self._add(self._decoder.decode(b"", True))
        if self.dropped:
            self._add(
                f"\n[{self.dropped} more bytes of {self.name} were dropped; "
                f"CALLBOARD_OUTPUT_BYTES keeps {self.limit}]\n"
            )

    def _add(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            self._log(self.name, text)
