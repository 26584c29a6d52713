"""Messages on a stream between a child and its worker: one tag byte, a length, the payload."""

from __future__ import annotations

import os
import struct

HEADER = struct.Struct("!cQ")

#: What a child answers: its result as JSON, an error as JSON, or that there is no result.
RESULT, ERROR, NOTHING = b"R", b"E", b"N"
#: What follows the answer of a child that can take another job.
NEXT = b"M"
#: What a worker asks: the job as JSON.
JOB = b"J"


def write(fd: int, *messages: tuple[bytes, bytes]) -> None:
    """Write *messages*, each a tag and a payload; blocks until all of it is taken."""
    view = memoryview(b"".join(HEADER.pack(tag, len(part)) + part for tag, part in messages))
    while view:
        view = view[os.write(fd, view) :]


def read(fd: int) -> tuple[bytes, bytes]:
    """Read one message. Raises ``EOFError`` where the other side is gone."""
    tag, length = HEADER.unpack(_exactly(fd, HEADER.size))
    return tag, _exactly(fd, length)


def _exactly(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = os.read(fd, min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
