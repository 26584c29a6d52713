"""What a child gives up before it runs user code: descriptors, privileges, and unlimited memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

#: A child of root becomes the user FIRST_UID + its process id: nobody else's, so that limits per
#: user count this step alone, and no step can read, signal or trace another.
FIRST_UID = 1_000_000_000
MAX_FILE = 8 * 1024**3
MAX_TASKS = 256
#: How many tasks more than at the start all steps of a user may have who is not theirs alone.
MAX_COMMON_TASKS = 4096
JOB_FD = 3
#: What a step that runs as root may still do: what container engines leave to their root. Not
#: among them: tracing (hence the environment and memory of other processes), mounting, modules.
KEPT_CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31})

_SET_PDEATHSIG, _SET_DUMPABLE, _SET_CHILD_SUBREAPER, _SET_NO_NEW_PRIVS = 1, 4, 36, 38
_CAPBSET_READ, _CAPBSET_DROP = 23, 24
_CAPABILITY_VERSION = 0x20080522


#: Looked up once: that takes longer than most calls.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_prctl: Callable[..., int] | None = _libc.prctl if _libc is not None else None


def hide_memory() -> None:
    """Keep our environment and memory from other processes of our user, except root's."""
    if _prctl is not None:
        _prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def show_memory() -> None:
    """Undo ``hide_memory`` in a fork: without it the kernel hides our own /proc/self from us."""
    if _prctl is not None:
        _prctl(_SET_DUMPABLE, 1, 0, 0, 0)


def end_with_parent() -> None:
    """Be killed when our parent ends. It may have ended already."""
    if _prctl is not None:
        _prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def die_with(parent: int) -> None:
    """Be killed when *parent*, who forked us, ends; at once where it already has."""
    end_with_parent()
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


def limit(tasks: int) -> None:
    """Limit core files, file sizes, and the user's processes to *tasks*; for root none count."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, MAX_FILE)
    _limit(resource.RLIMIT_NPROC, tasks)


def common_tasks() -> int:
    """How many tasks a user may have whom the steps share with others: those there are, and more."""
    used = 0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if path.stat().st_uid == os.geteuid():
                used += len(os.listdir(path / "task"))  # noqa: PTH208 (they are only counted)
    return used + MAX_COMMON_TASKS


def drop_capabilities(kept: frozenset[int] = frozenset()) -> None:
    """Give up all that root may do beyond others, except *kept*, for good and for programs too."""
    if _libc is None or _prctl is None:
        return
    number = 0
    while _prctl(_CAPBSET_READ, number, 0, 0, 0) >= 0:
        if number not in kept:
            _prctl(_CAPBSET_DROP, number, 0, 0, 0)  # fails where it could not be used anyway
        number += 1
    if not kept:
        _no_new_privileges()
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    held = ctypes.create_string_buffer(struct.calcsize("=6I"))
    _libc.capget(header, held)
    _, low, _, _, high, _ = struct.unpack("=6I", held.raw)
    mask = sum(1 << each for each in kept)
    low, high = low & mask & 0xFFFFFFFF, high & (mask >> 32)
    if _libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)):
        raise OSError("the privileges of root cannot be given up")


def _no_new_privileges() -> None:
    """Never gain any by running a program, whatever its owner and mode say."""
    if _prctl is not None:
        _prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def limit_memory(size: int) -> None:
    """Limit the address space to *size* bytes; 0: not at all."""
    if size:
        _limit(resource.RLIMIT_AS, size)


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def enter(folder: str) -> None:
    """Be in *folder*, which another step of the same user may remove at any time."""
    for _ in range(100):
        try:
            os.chdir(folder)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.makedirs(folder, mode=0o700)  # noqa: PTH103 (the same as in move_in)
        else:
            return
    raise FileNotFoundError(f"{folder} is removed again and again")


def move_in(folder: str, uid: int | None) -> None:
    """Make *folder* ours, our home and our place for temporary files."""
    enter(folder)
    os.chmod(".", 0o700)  # noqa: PTH101 (pathlib writes to 150 pages, each a copy after a fork)
    if uid is not None:
        os.chown(".", uid, uid)
    os.environ.update(HOME=folder, TMPDIR=folder, PWD=folder)


def become(uid: int) -> None:
    """Give up root for *uid*, for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _no_new_privileges()
    show_memory()  # nobody else has this uid


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
