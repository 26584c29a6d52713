"""Messages on a stream between a child and its worker: one tag byte, a length, the payload."""

from __future__ import annotations

import os
import struct

HEADER = struct.Struct("!cQ")

#: What a child answers: its result as JSON, an error as JSON, or that there is no result.
RESULT, ERROR, NOTHING = b"R", b"E", b"N"
#: What follows the answer of a child that can take another job; it has no payload.
NEXT = b"M"
#: What a worker asks: the job as JSON.
JOB = b"J"

#: That message as a whole.
GOES_ON = HEADER.pack(NEXT, 0)

#: Bytes that are read at once: a small message with its header.
_LEAST, _MOST = 1 << 14, 1 << 20


def write(fd: int, *messages: tuple[bytes, bytes]) -> None:
    """Write *messages*, each a tag and a payload; blocks until all of it is taken."""
    view = memoryview(b"".join(HEADER.pack(tag, len(part)) + part for tag, part in messages))
    while view:
        view = view[os.write(fd, view) :]


def read(fd: int) -> tuple[bytes, bytes]:
    """Read the message that comes next and, as nobody sends another before its answer, alone.

    Raises ``EOFError`` where the other side is gone.
    """
    data = _at_least(HEADER.size, fd, b"")
    tag, length = HEADER.unpack_from(data)
    end = HEADER.size + length
    return tag, _at_least(end, fd, data)[HEADER.size : end]


def _at_least(size: int, fd: int, data: bytes) -> bytes:
    """*data* with as much behind it as there is, so that it has *size* bytes or more."""
    pieces, missing = [data], size - len(data)
    while missing > 0:
        piece = os.read(fd, min(max(missing, _LEAST), _MOST))
        if not piece:
            raise EOFError
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
