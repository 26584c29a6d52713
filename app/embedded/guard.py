"""Runs one server and stops it when the process that wanted it is gone, however that died.

A program of its own, run by path with ``python -I -S``: it imports the standard library only and
is ready in 10 ms. It reads end-of-file on stdin when its owner closes the pipe or dies (kill -9
included), and asks for its parent's id in between, in case a forked sibling of the owner still
holds the pipe. On Linux the kernel tells the server when the guard itself is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
#: How often to look for the parent, in seconds; only needed where the pipe stays open.
PATROL = 1.0
#: How often to look for the end of patience while the server is asked to stop.
STOPPING = 0.05


def main(argument: str) -> int:
    """Run the command of the JSON text *argument* to its end; its exit code, shell style.

    Keys: ``command`` list of words, ``cwd``, ``owner`` pid that must be our parent, ``stop`` list
    of [signal name, seconds of patience], ``uid``/``gid`` to become, ``namespace`` uid to be mapped
    to, ``keep`` descriptors to hold open until the end (a lock), not shown to the command.
    """
    plan = json.loads(argument)
    wake = _wake_on_signals()
    for fd in plan["keep"]:
        os.set_inheritable(fd, False)
    guard = os.getpid()
    started, starting = os.pipe()  # closed by exec: only then do signals reach the command
    child = os.fork()
    if child == 0:
        _become(plan, guard)
    os.close(starting)
    os.read(started, 1)
    with contextlib.suppress(BrokenPipeError):  # the owner is gone: ``_watch`` will see it
        os.write(1, b"%d\n" % child)
    os.dup2(2, 1)
    return _watch(child, plan["owner"], [(name, float(wait)) for name, wait in plan["stop"]], wake)


def _wake_on_signals() -> int:
    """A descriptor that becomes readable when a signal arrives."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return reader


def _watch(child: int, owner: int, stop: list[tuple[str, float]], wake: int) -> int:
    """Wait for the child's end; ask it to stop, ever more urgently, once the owner wants that."""
    sources = [0, wake]
    asked = False
    next_stop = 0.0
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        asked = asked or os.getppid() != owner
        if asked and stop and time.monotonic() >= next_stop:
            name, patience = stop.pop(0)
            next_stop = time.monotonic() + patience
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.Signals[name])
        ready, _, _ = select.select(sources, [], [], STOPPING if asked else PATROL)
        if 0 in ready and not os.read(0, 1024):
            asked = True
            sources = [wake]
        if wake in ready:
            numbers = set(os.read(wake, 1024))
            asked = asked or bool(numbers - {signal.SIGCHLD})


def _become(plan: dict[str, Any], guard: int) -> NoReturn:
    """In the child: take the identity that was asked for and turn into the command."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(plan["cwd"])
        if plan["namespace"] is not None:
            _enter_namespace(plan["namespace"])
        elif plan["uid"] is not None:
            os.setgroups([])
            os.setgid(plan["gid"])
            os.setuid(plan["uid"])
        # After the change of identity: the kernel forgets the wish when credentials change.
        _die_with(guard, signal.Signals[plan["stop"][0][0]])
        devnull = os.open(os.devnull, os.O_RDONLY)
        os.dup2(devnull, 0)
        os.dup2(2, 1)
        os.execv(plan["command"][0], plan["command"])  # noqa: S606 (no shell is wanted)
    except BaseException as exc:  # noqa: BLE001 (a forked child must never return into the guard)
        os.write(2, f"cannot run {plan['command'][0]}: {exc}\n".encode())
        os._exit(127)


def _enter_namespace(uid: int) -> None:
    """Be *uid* within a user namespace of our own; files stay those of the real user."""
    real_uid, real_gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "no user namespace")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {real_uid} 1"),
        ("gid_map", f"{uid} {real_gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 (pathlib takes 10 ms to import)
            file.write(text)


def _die_with(parent: int, number: int) -> None:
    """Get signal *number* when *parent* is gone, where the kernel offers that (Linux)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)


if __name__ == "__main__":
    # At once: a signal that comes while the interpreter winds up would change the exit code.
    os._exit(main(sys.argv[1]))
