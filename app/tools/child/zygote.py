"""The fork server of a worker process: one thread, preloaded modules, parent of every step's child.

The worker asks with one byte for one child, ahead of its need, and gets the child's process id and
four descriptors: job, stdout, stderr and status. The child waits for its job. On ``status`` we say
``X<wait status>`` when it ended and nothing that it started is left. A worker that closes its end
of ``status`` wants the child killed; one that closes the command socket is gone, and everything is.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import json
import os
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from app.tools.child import encode, errands, frames, isolate, jail, program

#: What comes with a new child's descriptors: its process id, or the negative errno of a failed fork.
ANNOUNCED = struct.Struct("!i")


class Child(NamedTuple):
    """A living child: where its end is told, and its private folder."""

    status: int
    folder: Path


class Cell(NamedTuple):
    """How children are kept: their user's most ``tasks``, a user each, a jail each."""

    tasks: int
    own_user: bool = False
    jailed: bool = False


class Server:
    """The loop. ``children`` are the steps' processes by id, ``removers`` clean up after them."""

    def __init__(self, commands: socket.socket, base: Path, *, jailed: bool) -> None:
        self.pid = os.getpid()
        self.jailed = jailed
        self.commands = commands
        self.base = base
        self.children: dict[int, Child] = {}
        self.removers: set[int] = set()
        self.folders: list[Path] = []
        self.numbers = itertools.count(1)
        self.cell = Cell(0)
        self.selector = selectors.DefaultSelector()
        self.wake, wake_end = os.pipe()
        for fd in (self.wake, wake_end):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        self.selector.register(commands, selectors.EVENT_READ)
        self.selector.register(self.wake, selectors.EVENT_READ)

    def serve(self) -> None:
        """Fork when asked, until the worker is gone."""
        isolate.hide_memory()
        greeting = self._greeting()
        self.commands.sendall(json.dumps(greeting).encode() + b"\n")
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.commands:
                    wanted = _receive(self.commands)
                    if not wanted:
                        return
                    for _ in wanted:
                        self._fork()
                elif key.fd == self.wake:
                    os.read(self.wake, 4096)
                    self._reap()
                elif self._is_current(key.data, key.fd):
                    self._kill(key.data)

    def _greeting(self) -> dict[str, str | None]:
        """What becomes of the children here, and why it is not more."""
        shared = isolate.why_not_drop()
        tasks = isolate.common_tasks() if shared else isolate.MAX_TASKS
        self.cell = Cell(tasks, own_user=shared is None, jailed=self.jailed)
        reason = self._why_no_jail() if self.jailed else None
        return {"keeps_user_because": shared, "no_jail_because": reason}

    def _why_no_jail(self) -> str | None:
        folder = self.base / "trial"
        folder.mkdir(mode=0o700)
        reason = jail.why_not(str(folder), isolate.FIRST_UID if self.cell.own_user else None)
        folder.rmdir()
        return reason

    def close(self) -> None:
        """Kill every child and remove their folders."""
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)
        for pid in list(self.children):
            _kill_group(pid)
            self._finish(pid, os.waitpid(pid, 0)[1])
        for pid in self.removers:
            os.waitpid(pid, 0)
        _remove_tree(self.base)

    def _fork(self) -> None:
        folder = self.folders.pop() if self.folders else self.base / str(next(self.numbers))
        ours, theirs = _channels()
        path = str(folder)
        try:
            _make(folder)
            pid = os.fork()
        except OSError as exc:
            os.close(ours[-1])
            pid, told = -(exc.errno or 1), []
        else:
            if pid == 0:
                _become_child(self.pid, ours[:3], path, self.cell)
            self.children[pid] = Child(ours[3], folder)
            self.selector.register(ours[3], selectors.EVENT_READ, pid)
            told = theirs
        # A worker that is gone shows on the next round.
        with contextlib.suppress(OSError):
            socket.send_fds(self.commands, [ANNOUNCED.pack(pid)], told)
        for fd in (*ours[:3], *theirs):
            os.close(fd)

    def _is_current(self, pid: int, status: int) -> bool:
        """Whether an event on *status* still concerns a child; it may just have been reaped."""
        return pid in self.children and self.children[pid].status == status

    def _kill(self, pid: int) -> None:
        # The child is not reaped while we know it, so its id cannot belong to anyone else.
        self.selector.unregister(self.children[pid].status)
        os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        for pid in list(self.children):
            status = _collect(pid)
            if status is not None:
                self._finish(pid, status)
        for pid in list(self.removers):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self.removers.remove(pid)
        self._kill_orphans()

    def _finish(self, pid: int, status: int) -> None:
        child = self.children.pop(pid)
        self._kill_orphans()
        with contextlib.suppress(KeyError):
            self.selector.unregister(child.status)
        # The worker may have got all it wanted and left.
        with contextlib.suppress(OSError):
            os.write(child.status, f"X{status}\n".encode())
        os.close(child.status)
        if _is_empty(child.folder):
            self.folders.append(child.folder)
        else:
            self._remove(child.folder)

    def _remove(self, folder: Path) -> None:
        """Remove a used folder in a process of its own: there may be a million files in it."""
        pid = os.fork()
        if pid:
            self.removers.add(pid)
            return
        with contextlib.suppress(BaseException):
            _remove_tree(folder)
        os._exit(0)

    def _kill_orphans(self) -> None:
        """Kill what dead steps left behind: whoever is our child and not a step.

        A living step adopts its own orphans, so those we find lost the whole step. Their children
        come to us in turn, hence the loop.
        """
        while orphans := [pid for pid in _children() if self._is_orphan(pid)]:
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def _is_orphan(self, pid: int) -> bool:
        return pid not in self.children and pid not in self.removers


def main(fd: int, base: str, preloaded: Iterable[str], *, jailed: bool) -> None:
    """Run until the worker's end of *fd* closes. *base* is the folder of the steps' folders."""
    for name in preloaded:
        importlib.import_module(name)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]  # both are text files here
    for name in ("app.tools.child", "app.tools", "app"):
        # Ours are in place; a step that imports a package called app finds its own.
        del sys.modules[name]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    isolate.adopt_orphans()
    gc.collect()
    gc.freeze()
    server = Server(socket.socket(fileno=fd), Path(base), jailed=jailed)
    server.serve()
    server.close()


def _become_child(parent: int, fds: Sequence[int], folder: str, cell: Cell) -> NoReturn:
    """Turn this fork into a child: isolate it, wait for its job, run that, end."""
    try:
        os.setsid()
        isolate.default_signals()
        isolate.take_descriptors(*fds)
        isolate.die_with(parent)
        isolate.adopt_orphans()
        _give_up(parent, folder, cell)
        program.warm_up()
        errands.prepare(errands.NOTHING)
        job = _job()
        isolate.enter(folder)
        if cell.jailed:
            jail.furnish(folder, job["hidden"], job["folder"])
        isolate.limit_memory(job["memory"])
        errands.prepare(job)
    except EOFError:
        os._exit(1)  # not needed any more
    except errands.Impossible as exc:
        program.answer_error(exc.kind, str(exc))
        os._exit(1)
    except BaseException as exc:  # noqa: BLE001 (nothing may return into the fork server's loop)
        program.answer_error("resource", f"the step's process could not be set up: {exc}")
        os._exit(1)
    try:
        while True:
            errands.run(job, jailed=cell.jailed)
            # Of another only what is new is told.
            job |= _job()
    except EOFError:
        os._exit(0)  # there is no other job
    finally:
        # A program that took our builtins away; nothing may return into the fork server's loop.
        os._exit(1)


def _job() -> dict[str, Any]:
    """The next job. Raises ``EOFError`` where there is none."""
    job: dict[str, Any] = encode.decoded(frames.read(isolate.JOB_FD)[1])
    return job


def _give_up(parent: int, folder: str, cell: Cell) -> None:
    """What can be given up before the job is known: the user, and most that root may do."""
    uid = isolate.FIRST_UID + os.getpid() if cell.own_user else None
    isolate.move_in(folder, uid)
    isolate.limit(cell.tasks)
    isolate.show_memory()
    if uid is not None:
        isolate.become(uid)
        isolate.die_with(parent)
    elif os.geteuid() == 0 and not cell.jailed:
        isolate.drop_capabilities(isolate.KEPT_CAPABILITIES)
    if cell.jailed:
        jail.enter()


def _collect(pid: int) -> int | None:
    """Reap the step's child and kill the rest of its group; None while the child lives."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        reaped, status = os.waitpid(pid, os.WNOHANG)
        if not reaped:
            return None
        _kill_group(pid)
        return status
    if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        return None
    # The group before the leader: while that is a zombie nobody else can get its id.
    _kill_group(pid)
    return os.waitpid(pid, 0)[1]


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _children() -> list[int]:
    try:
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(pid) for pid in text.split()]


def _channels() -> tuple[list[int], list[int]]:
    """Our and the worker's ends of job, stdout, stderr and status."""
    job, their_job = socket.socketpair()
    status, their_status = socket.socketpair()
    their_out, out = os.pipe()
    their_err, err = os.pipe()
    ours = [job.detach(), out, err, status.detach()]
    return ours, [their_job.detach(), their_out, their_err, their_status.detach()]


def _receive(commands: socket.socket) -> bytes:
    try:
        return commands.recv(64)
    except ConnectionError:
        return b""


def _remove_tree(folder: Path) -> None:
    import shutil  # loads three compression libraries, which every fork would have to carry

    shutil.rmtree(folder, ignore_errors=True)


def _make(folder: Path) -> None:
    # Where it is removed meanwhile, its child makes it again.
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        folder.mkdir(mode=0o700, parents=True)


def _is_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True  # gone: the next child makes it again
