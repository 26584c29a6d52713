"""How the C library keeps memory: little of it apart for each thread."""

from __future__ import annotations

import ctypes
import sys

#: ``mallopt``'s M_ARENA_MAX, and how many pools of memory the threads of a process share.
_ARENA_MAX, ARENAS = -8, 2


def share_arenas() -> None:
    """Let threads share their pools of memory, where the C library is glibc; before any begins.

    By default each gets one of its own, up to eight per core, and what is freed in one serves no
    other: a process with forty threads grows for hours until each has once seen the largest load.
    Threads of Python mostly wait for each other, so they do not miss it.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_ARENA_MAX, ARENAS)
