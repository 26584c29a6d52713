"""What a program leaves behind in its process, as far as the next one could notice it.

A child takes another run of its step only where there is nothing of that kind.
"""

from __future__ import annotations

import atexit
import builtins
import decimal
import os
import random
import resource
import signal
import sys
import threading
from typing import Any, NamedTuple

#: KiB that the process may have grown by.
GROWTH = 65_536


class AtWork(NamedTuple):
    """What may still call the program's functions, which need its names."""

    threads: int
    exits: int
    timer: tuple[float, float]
    handlers: tuple[Any, ...]
    streams: tuple[Any, ...]
    names: tuple[int, ...]


class Traces(NamedTuple):
    """What is compared: equal traces before and after a program mean that it cleaned up."""

    folder: str
    files: int
    mask: int
    environment: dict[Any, Any]
    paths: list[str]
    descriptors: int
    at_work: AtWork
    limits: tuple[Any, ...]


_SIGNALS = (signal.SIGALRM, signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE,
            signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # fmt: skip
_LIMITS = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)


def traces() -> Traces:
    """Those of this process now."""
    folder = os.getcwd()  # noqa: PTH109 (pathlib writes to 150 pages, each a copy after a fork)
    mask = os.umask(0o077)
    os.umask(mask)
    return Traces(
        folder,
        len(os.listdir(folder)),  # noqa: PTH208 (the same)
        mask,
        # As it is kept: to decode it takes ten times as long. The program may have replaced it.
        dict(getattr(os.environ, "_data", ())),
        list(sys.path),
        _descriptors(),
        at_work(),
        tuple(map(resource.getrlimit, _LIMITS)),
    )


def at_work() -> AtWork:
    """Those of this process now."""
    return AtWork(
        _threads(),
        atexit._ncallbacks(),  # noqa: SLF001 (there is no other way to know)
        signal.getitimer(signal.ITIMER_REAL),
        tuple(map(signal.getsignal, _SIGNALS)),
        (
            *(sys.stdin, sys.stdout, sys.stderr, sys.excepthook),
            *(sys.gettrace(), sys.getprofile(), sys.getrecursionlimit()),
        ),
        tuple(map(id, vars(builtins).values())),
    )


def may_be_forgotten(before: AtWork, peak: int) -> bool:
    """Whether the program's names may go: nothing needs them, and they are soon freed."""
    return at_work() == before and grown(peak) <= GROWTH


def forget(names: dict[str, Any]) -> None:
    """Drop the program's *names*, which hold on to whatever it made, and have what programs change
    most often as it is in a fresh process."""
    names.clear()
    random.seed()
    decimal.setcontext(decimal.DefaultContext.copy())


def is_clean(before: Traces, peak: int) -> bool:
    """Whether this process is as it was: *before*, and with *peak* KiB at the most till then."""
    try:
        return traces() == before and not _children() and grown(peak) <= GROWTH
    except Exception:  # noqa: BLE001 (the folder is gone, say, or no descriptor is left to look with)
        return False


def peak() -> int:
    """KiB that this process has held at the most."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform != "darwin" else size // 1024


def grown(since: int) -> int:
    """KiB that its peak is above *since*."""
    return peak() - since


def _threads() -> int:
    """Also those that Python knows nothing of."""
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 (the same)
    except OSError:
        return threading.active_count()


def _descriptors() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(folder))  # noqa: PTH208 (the same)
        except OSError:
            continue
    return 0


def _children() -> bool:
    """Whether it has any, living or not."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True
