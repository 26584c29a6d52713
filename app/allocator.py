"""How the C library keeps memory: little of it apart for each thread."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

#: ``mallopt``'s M_ARENA_MAX, and how many pools of memory the threads of a process share.
_ARENA_MAX, ARENAS = -8, 2


def share_arenas() -> None:
    """Let threads share their pools of memory, where the C library is glibc; before any begins.

    By default each gets one of its own, up to eight per core, and what is freed in one serves no
    other: a process with forty threads grows for hours until each has once seen the largest load.
    Threads of Python mostly wait for each other, so they do not miss it.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        mallopt(_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Give the system what is free, where the C library is glibc.

    By itself it does that at the end of its pools only, and what is free between two pieces in use
    stays: a process grows for hours until each gap has once been as large as it gets.
    """
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """The function *name*; None where the C library is another one, as musl, and has none."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
