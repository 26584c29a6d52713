"""How far a loop has come: which iterations are out, which ended, what a cursor still holds.

Sets of indices are integers used as bit sets, so that one more event costs the same in a loop of
ten and of ten thousand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.engine.changing import changed


@dataclass(frozen=True)  # no slots: see ``changed``
class FrameState:
    """Rows that one claim gave and that have not all ended. Indices count from ``start``.

    ``seq`` is the event that holds the rows; ``next`` counts the bodies scheduled.
    """

    start: int
    size: int
    seq: int
    next: int = 0
    ended: int = 0
    ended_bits: int = 0

    def holds(self, index: int) -> bool:
        return self.start <= index < self.start + self.size


@dataclass(frozen=True)
class CursorState:
    """What a cursor does. ``claims`` counts its claims, ``claiming`` says that one is out.

    ``claimed_seq`` is a claim that ended and whose rows were not counted yet. An empty claim means
    the end only where no frame was open when it was made: bodies may add rows. ``idle``: nothing
    came while frames were open, so the next claim waits until one of them ends.
    """

    by_row: bool = True
    row_concurrency: int | None = None
    claims: int = 0
    claiming: bool = False
    claimed_seq: int = 0
    claimed_with_frames: bool = False
    idle: bool = False
    drained: bool = False
    frames: tuple[FrameState, ...] = ()

    @property
    def is_over(self) -> bool:
        return self.drained and not self.frames and not self.claiming


@dataclass(frozen=True)
class LoopState:
    """Progress of one entry into a loop. ``ended_bits`` has a bit per index that ended.

    With a cursor, ``size`` grows with every frame and the frames keep count of what ended.
    """

    size: int
    window: int
    started_seq: int
    next: int = 0
    ended: int = 0
    failed: int = 0
    ended_bits: int = 0
    first_error: Mapping[str, Any] | None = None
    cursor: CursorState | None = None

    @property
    def is_over(self) -> bool:
        """Every iteration ended, and no more will come."""
        return self.cursor.is_over if self.cursor else self.ended == self.size

    @property
    def is_busy(self) -> bool:
        """Something of it is out."""
        if self.cursor is None:
            return self.next > self.ended
        frames = self.cursor.frames
        return self.cursor.claiming or any(frame.next > frame.ended for frame in frames)

    # ------------------------------------------------------------------ what may start
    def startable(self) -> Iterator[tuple[int, int, int | None]]:
        """(index, seq of the event that holds its item, place there or None) of what may start now."""
        if self.cursor is None:
            count = min(self.window - (self.next - self.ended), self.size - self.next)
            for index in range(self.next, self.next + max(0, count)):
                yield index, self.started_seq, index
            return
        for frame in self.cursor.frames:
            most = self.cursor.row_concurrency or frame.size
            count = min(most - (frame.next - frame.ended), frame.size - frame.next)
            for place in range(frame.next, frame.next + max(0, count)):
                yield frame.start + place, frame.seq, place if self.cursor.by_row else None

    def item_of(self, index: int) -> tuple[int, int | None]:
        """(seq of the event that holds the item of *index*, its place there or None)."""
        if self.cursor is None:
            return self.started_seq, index
        frame = next(frame for frame in self.cursor.frames if frame.holds(index))
        return frame.seq, index - frame.start if self.cursor.by_row else None

    def may_claim(self) -> bool:
        cursor = self.cursor
        return cursor is not None and not (
            cursor.claiming or cursor.drained or cursor.idle or len(cursor.frames) >= self.window
        )

    # ------------------------------------------------------------------ what happened
    def scheduled(self, index: int) -> LoopState:
        if self.cursor is None:
            return changed(self, next=max(self.next, index + 1))
        frames = tuple(
            changed(frame, next=max(frame.next, index - frame.start + 1))
            if frame.holds(index)
            else frame
            for frame in self.cursor.frames
        )
        return changed(self, cursor=changed(self.cursor, frames=frames))

    def finished(self, index: int, error: Mapping[str, Any] | None) -> LoopState:
        """Iteration *index* ended, perhaps without having begun; no change where it had ended before."""
        after = self.scheduled(index)
        if after.cursor is not None:
            cursor = _row_ended(after.cursor, index)
            if cursor is after.cursor:
                return self
            after = changed(after, cursor=cursor)
        elif self.ended_bits >> index & 1:
            return self
        else:
            after = changed(after, ended_bits=self.ended_bits | 1 << index)
        return changed(
            after,
            ended=self.ended + 1,
            failed=self.failed + (error is not None),
            first_error=self.first_error or error,
        )

    def claim_scheduled(self, number: int) -> LoopState:
        assert self.cursor is not None
        cursor = changed(
            self.cursor,
            claims=max(self.cursor.claims, number + 1),
            claiming=True,
            claimed_with_frames=bool(self.cursor.frames),
        )
        return changed(self, cursor=cursor)

    def claim_finished(self, seq: int, error: Mapping[str, Any] | None) -> LoopState:
        """A claim ended: its rows are in the event at *seq*, or it failed and no other follows."""
        assert self.cursor is not None
        if error is None:
            return changed(self, cursor=changed(self.cursor, claiming=False, claimed_seq=seq))
        cursor = changed(self.cursor, claiming=False, claimed_seq=0, drained=True)
        return changed(self, cursor=cursor, first_error=self.first_error or error)

    def frame_opened(self, seq: int, rows: int) -> LoopState:
        assert self.cursor is not None
        cursor = changed(self.cursor, claimed_seq=0)
        if not rows:
            idle = bool(cursor.frames)
            drained = not idle and not cursor.claimed_with_frames
            return changed(self, cursor=changed(cursor, idle=idle, drained=drained))
        size = rows if cursor.by_row else 1
        frame = FrameState(self.size, size, seq)
        frames = (*cursor.frames, frame)
        return changed(self, size=self.size + size, cursor=changed(cursor, frames=frames))


def _row_ended(cursor: CursorState, index: int) -> CursorState:
    frames = []
    found = False
    for frame in cursor.frames:
        place = index - frame.start
        if not frame.holds(index) or frame.ended_bits >> place & 1:
            frames.append(frame)
            continue
        found = True
        frame = changed(frame, ended=frame.ended + 1, ended_bits=frame.ended_bits | 1 << place)  # noqa: PLW2901 (the same frame, moved on)
        if frame.ended < frame.size:
            frames.append(frame)
    if not found:
        return cursor
    closed = len(frames) < len(cursor.frames)
    return changed(cursor, frames=tuple(frames), idle=cursor.idle and not closed)
