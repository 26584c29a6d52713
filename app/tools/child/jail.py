"""A jail for one step: no network, no other processes, and a file system it cannot change.

The process that the worker knows, the keeper, stays outside and only waits. Inside are process 1,
which only reaps, and the step. When either of the first two is gone, the kernel ends all inside.

Namespaces are made while nobody waits for the step; the file system is furnished when its job is
known. Linux 5.12 or newer, where the host lets processes make user namespaces.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import stat
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from app.tools.child import isolate

#: Where the step finds its private folder, and the one it shares with others of its task.
PRIVATE, SHARED = "/tmp", "/run/shared"  # noqa: S108 (the jail's own, a private folder)
DEVICES = ("null", "zero", "full", "random", "urandom")
SHARED_MEMORY = "size=64m,mode=1777"

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8
_BIND, _REC, _PRIVATE = 4096, 16384, 1 << 18
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_STATUS = struct.Struct("!i")


def enter() -> None:
    """Return in a jailed process of our own; this one and its first child wait until it ends.

    Raises ``OSError`` where the host does not allow it.
    """
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc().unshare(_NEWUSER | _NEWNS | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
    # Nested namespaces would give back what was given up. Not every kernel lets itself be told.
    with contextlib.suppress(OSError):
        Path("/proc/sys/user/max_user_namespaces").write_text("0", encoding="ascii")
    told, tell = os.pipe()
    first = os.fork()
    if first:
        os.close(tell)
        _keep(first, told)
    os.close(told)
    isolate.end_with_parent()
    step = os.fork()
    if step:
        _reap_all(step, tell)
    os.close(tell)
    os.setsid()  # a signal to its own group must not reach the keeper


def furnish(private: str, hidden: Iterable[str], shared: str | None = None) -> None:
    """Leave of the file system a copy that cannot be written, with *private* as its /tmp.

    Without devices, sockets of services, and the folders *hidden*. Then no way leads back. Raises
    ``OSError``.
    """
    _mount(None, "/", None, _REC | _PRIVATE)
    folders = {PRIVATE: _hold(private)}
    if shared is not None:
        folders[SHARED] = _hold(shared)
    devices = {name: _hold(f"/dev/{name}") for name in DEVICES}
    _read_only("/", recursive=True)
    _mount("tmpfs", "/run", "tmpfs", _NOSUID | _NODEV | _NOEXEC, "size=1m,mode=755")
    Path(SHARED).mkdir()
    _furnish_dev(devices)
    _mount("proc", "/proc", "proc", _RDONLY | _NOSUID | _NODEV | _NOEXEC)
    for place, fd in folders.items():
        _bind(fd, place)
        _read_only(place, no=True)
    _read_only("/run")
    for path in (str(Path(private).parent), "/var/run", *hidden):
        # What this user cannot reach needs no cover; os.path says no where pathlib raises.
        if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114 (the same)
            _mount("tmpfs", path, "tmpfs", _RDONLY | _NOSUID | _NODEV | _NOEXEC, "size=4k,mode=555")
    os.chdir(PRIVATE)
    os.environ.update(HOME=PRIVATE, TMPDIR=PRIVATE, PWD=PRIVATE)
    isolate.drop_capabilities()


def why_not(private: str, uid: int | None) -> str | None:
    """Why no jail can be made here; None where one was made for a try.

    *private* is a folder for it, *uid* the user it would run as.
    """
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        try:
            isolate.move_in(private, uid)
            isolate.show_memory()
            if uid is not None:
                isolate.become(uid)
            enter()
            furnish(private, ())
            os.write(tell, b"+")
        except BaseException as exc:  # noqa: BLE001 (nothing may return into the fork server)
            os.write(tell, str(exc).encode())
        os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as file:
        said = file.read().decode(errors="replace")
    os.waitpid(pid, 0)
    return None if said == "+" else said or "the trial ended without a word"


def _furnish_dev(devices: dict[str, int]) -> None:
    _mount("tmpfs", "/dev", "tmpfs", _NOSUID | _NOEXEC, "size=1m,mode=755")
    for name, fd in devices.items():
        Path(f"/dev/{name}").touch()
        _bind(fd, f"/dev/{name}")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        Path(f"/dev/{name}").symlink_to(f"/proc/self/fd/{number}")
    Path("/dev/fd").symlink_to("/proc/self/fd")
    Path("/dev/shm").mkdir()  # noqa: S108 (where shared memory lives)
    _mount("tmpfs", "/dev/shm", "tmpfs", _NOSUID | _NODEV | _NOEXEC, SHARED_MEMORY)  # noqa: S108 (the same)
    _read_only("/dev")


def _keep(first: int, told: int) -> NoReturn:
    """Wait for process 1, then end as the step ended."""
    _close_all_but(told)
    os.waitpid(first, 0)
    said = os.read(told, _STATUS.size)
    if len(said) < _STATUS.size:  # process 1 was killed
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
    (status,) = _STATUS.unpack(said)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        with contextlib.suppress(OSError, ValueError):  # SIGKILL has no other
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        signal.pause()
    os._exit(code)


def _reap_all(step: int, tell: int) -> NoReturn:
    """As process 1: collect whoever ends, until the step does; the kernel ends the others."""
    _close_all_but(tell)
    while True:
        pid, status = os.wait()
        if pid == step:
            os.write(tell, _STATUS.pack(status))
            os._exit(0)


def _close_all_but(fd: int) -> None:
    """The worker reads the ends of the step's streams, which must not stay open here."""
    os.closerange(0, fd)
    os.closerange(fd + 1, os.sysconf("SC_OPEN_MAX"))


def _libc() -> ctypes.CDLL:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "it takes Linux")
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind)]
    data = options.encode() if options else None
    _check(_libc().mount(*texts, ctypes.c_ulong(flags), data), f"mount {target}")


def _hold(path: str) -> int:
    fd = os.open(path, os.O_PATH)
    if stat.S_ISLNK(os.fstat(fd).st_mode):
        raise OSError(errno.ELOOP, f"{path} is a link")
    return fd


def _bind(fd: int, target: str) -> None:
    _mount(f"/proc/self/fd/{fd}", target, None, _BIND)
    os.close(fd)


def _read_only(path: str, *, no: bool = False, recursive: bool = False) -> None:
    """Make the mount at *path* read-only, or with *no* writable again."""
    attributes = struct.pack("=QQQQ", 0 if no else _RDONLY, _RDONLY if no else 0, 0, 0)
    result = _libc().syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(path.encode()),
        ctypes.c_uint(_AT_RECURSIVE if recursive else 0),
        ctypes.c_char_p(attributes),
        ctypes.c_size_t(len(attributes)),
    )
    _check(result, f"make {path} read-only")
