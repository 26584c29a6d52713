"""What a child gives up before it runs user code: descriptors, privileges, and unlimited memory."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

#: A child of root becomes the user FIRST_UID + its process id: nobody else's, so that limits per
#: user count this step alone, and no step can read, signal or trace another.
FIRST_UID = 1_000_000_000
MAX_FILE = 8 * 1024**3
MAX_TASKS = 256
JOB_FD = 3

_SET_PDEATHSIG, _SET_DUMPABLE, _SET_CHILD_SUBREAPER = 1, 4, 36


def _find_prctl() -> Callable[..., int] | None:
    return ctypes.CDLL(None).prctl if sys.platform == "linux" else None


_prctl = _find_prctl()


def die_with(parent: int) -> None:
    """Be killed when *parent*, who forked us, ends; at once where it already has."""
    if _prctl is not None:
        _prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of descendants that lose theirs, so that none escapes by daemonising."""
    if _prctl is not None:
        _prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def take_descriptors(job: int, out: int, err: int) -> None:
    """Make *job* descriptor 3, *out* and *err* the standard ones, and close everything else."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    if job != JOB_FD:
        os.dup2(job, JOB_FD)
    os.set_inheritable(JOB_FD, False)
    os.closerange(JOB_FD + 1, os.sysconf("SC_OPEN_MAX"))


def default_signals() -> None:
    """Undo what the fork server did to signals."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def limit(*, own_user: bool) -> None:
    """Limit core files, file sizes, and where it counts for this step alone, processes."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, MAX_FILE)
    if own_user:
        _limit(resource.RLIMIT_NPROC, MAX_TASKS)


def limit_memory(size: int) -> None:
    """Limit the address space to *size* bytes; 0: not at all."""
    if size:
        _limit(resource.RLIMIT_AS, size)


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def move_in(folder: str, uid: int | None) -> None:
    """Make *folder*, which exists, ours, our home and our place for temporary files."""
    os.chmod(folder, 0o700)  # noqa: PTH101 (pathlib writes to 150 pages, each a copy after a fork)
    if uid is not None:
        os.chown(folder, uid, uid)
    os.chdir(folder)
    os.environ.update(HOME=folder, TMPDIR=folder, PWD=folder)


def become(uid: int) -> None:
    """Give up root for *uid*, for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if _prctl is not None:
        # Without it the kernel hides our own /proc/self from us; nobody else has this uid.
        _prctl(_SET_DUMPABLE, 1, 0, 0, 0)


def why_not_drop() -> str | None:
    """Why children of this process keep its user; None where each can have a user of its own.

    A dropped child must still read the interpreter and the installed packages.
    """
    if os.geteuid() != 0:
        return "the worker does not run as root, so its steps run as the worker's own user"
    pid = os.fork()
    if pid == 0:
        os._exit(_try_drop())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 0:
        return None
    if code == 2:
        return f"the user id {FIRST_UID} cannot be taken in this container"
    return f"the interpreter under {sys.base_prefix} is readable by root only"


def _try_drop() -> int:
    try:
        become(FIRST_UID)
    except OSError:
        return 2
    try:
        library = Path(os.__file__)
        for entry in (library.parent, *map(Path, sys.path)):
            if entry == library.parent or entry.is_dir():
                next(entry.iterdir(), None)
        library.read_bytes()
    except OSError:
        return 3
    return 0
