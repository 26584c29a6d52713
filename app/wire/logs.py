"""What steps print, on its way from workers and to those who read it."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from app.wire.base import Id, Wire
from app.wire.worker import LogChunk, Stream


class LogBatch(Wire):
    """Pieces of several attempts, each attempt's in order."""

    worker: str = Field(max_length=200)
    chunks: list[LogChunk] = Field(max_length=1000)


class LogAnswer(Wire):
    """``refused`` are those of attempts that were never scheduled."""

    accepted: int
    refused: int = 0


class LogRow(Wire):
    """A piece as readers see it."""

    step: str
    visit: int
    iteration: int
    attempt: int
    stream: Stream
    text: str
    at: datetime


class LogPage(Wire):
    """``next`` is the cursor to go on after; ``ended`` says that there is no more, and will not be."""

    execution_id: Id
    chunks: list[LogRow]
    next: str
    ended: bool
