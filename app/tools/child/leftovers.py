"""What a program leaves behind in its process, as far as the next one could notice it.

A child takes another run of its step only where there is nothing of that kind.
"""

from __future__ import annotations

import atexit
import builtins
import decimal
import operator
import os
import random
import resource
import signal
import sys
import threading
from _signal import getsignal  # type: ignore[import-not-found]  # the C of ``signal``
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


class Traces(NamedTuple):
    """What is compared: equal traces before and after a program mean that it cleaned up."""

    folder: str
    files: int
    mask: int
    environment: dict[Any, Any]
    paths: list[str]
    descriptors: int
    limits: tuple[Any, ...]


class Born(NamedTuple):
    """A process before its first program: what is compared, its builtins, and its peak in KiB."""

    at_work: AtWork
    builtins: tuple[Any, ...]
    traces: Traces
    peak: int


_SIGNALS = (signal.SIGALRM, signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE,
            signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # fmt: skip
_LIMITS = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)


def born() -> Born:
    """What this process is like now."""
    return Born(_at_work(), tuple(vars(builtins).values()), _traces(), _peak())


def _traces() -> Traces:
    folder = os.getcwd()  # noqa: PTH109 (pathlib writes to 150 pages, each a copy after a fork)
    mask = os.umask(0o077)
    os.umask(mask)
    return Traces(
        folder,
        _entries(folder),
        mask,
        # As it is kept: to decode it takes ten times as long. The program may have replaced it.
        dict(getattr(os.environ, "_data", ())),
        list(sys.path),
        _descriptors(),
        tuple(map(resource.getrlimit, _LIMITS)),
    )


def _at_work() -> AtWork:
    return AtWork(
        _threads(),
        atexit._ncallbacks(),  # noqa: SLF001 (there is no other way to know)
        signal.getitimer(signal.ITIMER_REAL),
        # Not that of ``signal``, which looks each handler up in an enum.
        tuple(map(getsignal, _SIGNALS)),
        (
            *(sys.stdin, sys.stdout, sys.stderr, sys.excepthook),
            *(sys.gettrace(), sys.getprofile(), sys.getrecursionlimit()),
        ),
    )


def may_be_forgotten(born: Born) -> bool:
    """Whether the program's names may go: nothing needs them, and they are soon freed."""
    now = vars(builtins).values()
    return (
        _at_work() == born.at_work
        # By identity: what a program puts there may call itself equal to anything.
        and len(now) == len(born.builtins)
        and all(map(operator.is_, now, born.builtins))
        and _peak() - born.peak <= GROWTH
    )


def forget(names: dict[str, Any]) -> None:
    """Drop the program's *names*, which hold on to whatever it made, and have what programs change
    most often as it is in a fresh process."""
    names.clear()
    # Its own choice reads ten times as much from the kernel.
    random.seed(int.from_bytes(os.urandom(32), "big"))
    decimal.setcontext(decimal.DefaultContext.copy())


def is_clean(born: Born) -> bool:
    """Whether this process is as it was *born*."""
    try:
        return may_be_forgotten(born) and _traces() == born.traces and not _children()
    except Exception:  # noqa: BLE001 (the folder is gone, say, or no descriptor is left to look with)
        return False


def _peak() -> int:
    """KiB that this process has held at the most."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform != "darwin" else size // 1024


def _threads() -> int:
    """Also those that Python knows nothing of; the number is only to be compared."""
    try:
        return os.stat(_TASKS).st_nlink if _IS_TOLD else _entries(_TASKS)  # noqa: PTH116 (the same)
    except OSError:
        return threading.active_count()


def _descriptors() -> int:
    """The same for what is open."""
    for folder in (_OPEN, "/dev/fd"):
        try:
            if _IS_TOLD and folder == _OPEN:
                return os.stat(folder).st_size  # noqa: PTH116 (the same)
            return _entries(folder)
        except OSError:
            continue
    return 0


def _entries(folder: str) -> int:
    return len(os.listdir(folder))  # noqa: PTH208 (the same)


def _is_told() -> bool:
    """Whether the kernel tells the numbers of threads and descriptors, as Linux does since 6.2.

    To list them takes five calls instead of one.
    """
    try:
        tasks, files = os.stat(_TASKS).st_nlink, os.stat(_OPEN).st_size  # noqa: PTH116 (the same)
        # What lists the descriptors is one itself.
        return tasks == _entries(_TASKS) + 2 and files == _entries(_OPEN) - 1
    except OSError:
        return False


_TASKS, _OPEN = "/proc/self/task", "/proc/self/fd"
_IS_TOLD = _is_told()


def _children() -> bool:
    """Whether it has any, living or not."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True
