"""What steps print, on its way to the control plane: masked, limited, in pieces, never in the way.

Output is best effort. While the control plane is away a worker keeps the newest of it, and a step
neither waits nor fails for the rest.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from app.actors.shipping import FULL, Shipper
from app.engine.masking import Masker
from app.engine.ports import Pointer
from app.wire import LogChunk

#: Characters of an unfinished line that are held back: a secret may go on in what comes next.
HELD = 65_536
#: Pieces of an attempt after which the order between its two streams is kept only roughly: a
#: program that changes between them all the time would become a row per word.
ORDERED = 1_000
#: Bytes above the limit that still pass, so that a tool may say what it dropped itself.
MARGIN = 1_024


@dataclass(slots=True)
class _Stream:
    """One of the two: the line that is not finished, and the piece that is not full."""

    name: Literal["stdout", "stderr"]
    left: int
    held: list[str] = field(default_factory=list)
    size: int = 0
    dropped: int = 0
    lines: list[str] = field(default_factory=list)
    #: Characters of ``lines``.
    ready: int = 0
    at: float = 0.0
    #: Whether what went out last ended in the middle of a line.
    is_open: bool = False


class Printer:
    """Takes what one attempt prints, whole lines at once, and hands the masked pieces to *shipper*.

    More than *limit* bytes of a stream are dropped, and said so. *tail* characters of the end are
    kept for the attempt's report. Safe for threads.
    """

    def __init__(
        self, pointer: Pointer, masker: Masker, shipper: Shipper, *, limit: int, tail: int
    ) -> None:
        self.pointer = pointer
        self.masker = masker
        self._shipper = shipper
        self._limit = limit
        #: Empty until something is printed: most attempts print nothing.
        self._streams: dict[str, _Stream] = {}
        self._closed: list[LogChunk] = []
        self._index = 0
        self._most = tail
        self._tail: deque[str] = deque()
        self._kept = 0
        self._is_over = False
        self._lock = threading.Lock()

    def log(self, stream: str, text: str) -> None:
        """Take *text*, which is the next of *stream* (stdout or stderr)."""
        with self._lock:
            if self._is_over or not text:
                return
            own = self._both()["stderr" if stream == "stderr" else "stdout"]
            text = self._within(own, clean(text))
            ready = self._whole_lines(own, text)
            if not ready:
                return
            self._add(own, ready)
            is_full = bool(self._closed)
        self._shipper.printed(self, is_full=is_full)

    def finish(self) -> bool:
        """Let go of unfinished lines; nothing is taken after this. Whether there was anything."""
        with self._lock:
            if not self._is_over:
                self._is_over = True
                for stream in self._streams.values():
                    rest = self._rest(stream)
                    if rest:
                        self._add(stream, rest)
            return bool(self._streams)

    def pieces(self, *, closed: bool = False) -> list[LogChunk]:
        """What is ready to go, each piece once; with *closed* only those that nothing is added to."""
        with self._lock:
            if not closed:
                for stream in self._streams.values():
                    self._close(stream)
            pieces, self._closed = self._closed, []
            return pieces

    @property
    def tail(self) -> str | None:
        """The end of what was printed."""
        with self._lock:
            if not self._tail:
                return None
            kept = "".join(self._tail)
        # A second time: a secret may have been told after it was printed.
        return self.masker.text(kept)[-self._most :] or None

    # ------------------------------------------------------------------ under the lock
    def _both(self) -> dict[str, _Stream]:
        """The streams, made when there is something to print."""
        if not self._streams:
            most = self._limit + MARGIN
            self._streams["stdout"] = _Stream("stdout", most)
            self._streams["stderr"] = _Stream("stderr", most)
        return self._streams

    def _within(self, stream: _Stream, text: str) -> str:
        """*text* as far as the limit allows."""
        raw = text.encode()
        if len(raw) <= stream.left:
            stream.left -= len(raw)
            return text
        kept = raw[: stream.left].decode("utf-8", "ignore")
        stream.dropped += len(raw) - len(kept.encode())
        stream.left = 0
        return kept

    def _whole_lines(self, stream: _Stream, text: str) -> str:
        """What may go of the held text and *text*, masked; the rest is held."""
        if not text:
            return ""
        cut = max(text.rfind("\n"), text.rfind("\r")) + 1
        if cut:
            ready = "".join((*stream.held, text[:cut]))
            stream.held, stream.size = [text[cut:]], len(text) - cut
            return self.masker.text(ready)
        stream.held.append(text)
        stream.size += len(text)
        if stream.size <= max(HELD, 2 * self.masker.longest):
            return ""
        return self._overlong(stream)

    def _overlong(self, stream: _Stream) -> str:
        """What may go of a line that is too long to wait for its end."""
        masked = self.masker.text("".join(stream.held))
        # The beginning of a secret that is not all here yet stays; what is masked is masked.
        cut = max(0, len(masked) - self.masker.longest)
        stream.held, stream.size = [masked[cut:]], len(masked) - cut
        return masked[:cut]

    def _rest(self, stream: _Stream) -> str:
        """What is held when nothing more comes, and what was dropped."""
        if not stream.dropped:
            return self.masker.text("".join(stream.held))
        # Where the limit cuts, it may cut a secret, which nobody would know by its half.
        rest = self._overlong(stream)
        dropped = stream.dropped + stream.size
        is_open = not rest.endswith("\n") if rest else stream.is_open
        return (
            f"{rest}{chr(10) * is_open}[{dropped} more bytes of {stream.name} were dropped; "
            f"CALLBOARD_OUTPUT_BYTES keeps {self._limit}]\n"
        )

    def _add(self, stream: _Stream, text: str) -> None:
        """Put *text* into pieces."""
        self._remember(text)
        stream.is_open = not text.endswith("\n")
        if self._index < ORDERED:
            for other in self._streams.values():
                if other is not stream:
                    self._close(other)
        while text:
            room = FULL - stream.ready
            part, text = text[:room], text[room:]
            stream.at = stream.at or time.time()
            stream.lines.append(part)
            stream.ready += len(part)
            if stream.ready >= FULL:
                self._close(stream)

    def _close(self, stream: _Stream) -> None:
        if not stream.lines:
            return
        piece = LogChunk(
            **self.pointer._asdict(),
            index=self._index,
            stream=stream.name,
            text="".join(stream.lines),
            at=stream.at,
        )
        self._closed.append(piece)
        self._index += 1
        stream.lines, stream.ready, stream.at = [], 0, 0.0

    def _remember(self, text: str) -> None:
        self._tail.append(text[-self._most :])
        self._kept += len(self._tail[-1])
        while self._kept - len(self._tail[0]) >= self._most:
            self._kept -= len(self._tail.popleft())


def clean(text: str) -> str:
    """*text* with what JSON and Postgres cannot hold (NUL, lone surrogates) replaced."""
    if text.isascii():
        return text.replace("\0", "\ufffd")
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
