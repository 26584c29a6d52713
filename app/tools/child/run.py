"""One child from the worker's side: give it the job, take its output and its answer, see it end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app.errors import ToolError
from app.tools import Context
from app.tools.child import frames
from app.tools.child.capture import Capture
from app.tools.child.launcher import Spare, has_ended, launcher
from app.tools.child.modules import preloaded_for
from app.tools.child.program import MAX_MESSAGE, MAX_TRACEBACK

#: How often a waiting worker thread looks whether its attempt was cancelled, in seconds.
GLANCE = 0.1
#: How long a killed child may take to be gone before the fork server itself is given up.
PATIENCE = 10.0
CHUNK = 1 << 16
#: Bytes of an error with its traceback, quoted as JSON.
MOST_OF_ERROR = 8 * (MAX_MESSAGE + MAX_TRACEBACK)
#: What a child is told of a job that comes after another: the rest is the same, and makes its breed.
ANEW = ("execution_id", "idempotency_key", "input", "variables")
READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


@dataclass(frozen=True, slots=True)
class Where:
    """The kind of process a job gets: of which interpreter (None: the worker's), in a jail or not."""

    python: str | None = None
    jailed: bool = False


PLAIN = Where()


@dataclass(frozen=True, slots=True)
class Ended:
    """How the child *pid* ended. ``tag`` and ``payload`` are its answer (None where it gave none),
    ``exit_code`` is negative for a signal, ``stopped`` is timeout or cancelled where we killed it."""

    pid: int
    tag: bytes | None
    payload: bytes
    exit_code: int
    stopped: str | None
    stdout: str
    stderr: str


def run(job: Mapping[str, Any], context: Context, *, timeout: float, where: Where = PLAIN) -> Ended:
    """Run *job* in a fresh child and wait for its answer or end. Raises ``ToolError`` for what the
    child could not do at all, and for the errors it answered itself. The job's ``folder`` and what
    is in it become the child's own. Of a job that asks for nothing but to run (``more``) the child
    is left in the context's ``lodge``, where it is fit for another, and one that is there is taken."""
    preloaded = preloaded_for(job.get("code", ""))
    lodge = context.lodge if job["more"] else None
    breed = (where, {name: item for name, item in job.items() if name not in ANEW})
    ended = None
    while ended is None:
        waiting = lodge.take(breed) if lodge is not None else None
        spare = waiting or _spare(preloaded, where)
        if job["folder"] is not None and spare.uid is not None:
            _give(job["folder"], spare.uid)
        told = {name: job[name] for name in ANEW} if waiting else job
        child = _Child(spare, context, told, more=lodge is not None)
        try:
            # The program's time begins when there is a process for it.
            ended = child.run(time.monotonic() + timeout)
        finally:
            if lodge is not None:
                lodge.keep(breed, spare) if child.may_go_on else lodge.lost(spare)
    if ended.stopped:
        raise _stopped(ended.stopped, timeout)
    if ended.tag == frames.ERROR:
        raise _error(ended)
    return ended


def _give(folder: str, uid: int) -> None:
    """Make *folder* and all in it that user's. Links in it lead nowhere."""
    for _, folders, files, fd in os.fwalk(folder):
        os.fchown(fd, uid, uid)
        for name in (*folders, *files):
            os.chown(name, uid, uid, dir_fd=fd, follow_symlinks=False)


def _spare(preloaded: Sequence[str], where: Where = PLAIN) -> Spare:
    """A living child that waits. One that died waiting, or with its fork server, has run nothing."""
    for _ in range(10):
        zygote = launcher.zygote(preloaded, executable=where.python, jailed=where.jailed)
        if zygote.no_jail_because:
            raise ToolError(
                f"the profile jail cannot be had on this machine ({zygote.no_jail_because}); allow "
                "its processes to make user namespaces, or use the profile plain",
                kind="resource",
            )
        try:
            spare = zygote.spare()
        except OSError:
            continue
        if not has_ended(spare):
            return spare
        _let_go(spare)
    raise ToolError(
        "the process that starts steps died again and again; its messages are in the worker's stderr",
        kind="resource",
        retryable=True,
    )


def describe_exit(code: int) -> str:
    """``exited with code 3`` or ``was killed by signal 11 (SIGSEGV)``."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"was killed by signal {-code} ({name})"


def exit_error(ended: Ended, what: str, *, data: Any = None) -> ToolError:
    """The error for a child that ended without an answer."""
    hint = ""
    if ended.exit_code == -signal.SIGKILL:
        hint = "; the machine may have run out of memory"
    elif ended.exit_code == 0:
        hint = " before it gave its result"
    tail = ended.stderr.strip()[-1000:]
    return ToolError(
        f"{what} {describe_exit(ended.exit_code)}{hint}" + (f"\n{tail}" if tail else ""),
        kind="exit",
        error_code=str(ended.exit_code),
        details={"exit_code": ended.exit_code},
        data=data,
    )


class _Child:
    def __init__(
        self, spare: Spare, context: Context, job: Mapping[str, Any], *, more: bool
    ) -> None:
        self.pid = spare.pid
        self.more = more
        self.may_go_on = False
        self.zygote = spare.zygote
        self.job, self.out, self.err, self.status = spare.descriptors
        self.context = context
        self.told = job
        self.outbox = memoryview(b"")
        self.answer = bytearray()
        #: Where it ends, as its header says.
        self.end: int | None = None
        self.wait_status: int | None = None
        self.stopped: str | None = None
        self.lost = False
        self.untaken = False
        #: Whether the poll looks for room for the rest of the job.
        self.is_sending = False
        limit = context.settings.output_bytes
        self.stdout = Capture("stdout", limit, context.log)
        self.stderr = Capture("stderr", limit, context.log)
        self.feeds: dict[int, Callable[[bytes], None]] = {
            self.out: self.stdout.feed,
            self.err: self.stderr.feed,
            self.job: self._take_answer,
            self.status: self._take_status,
        }
        self.poll = select.poll()

    def run(self, deadline: float) -> Ended | None:
        """None where the child died before it took its job, so that nothing has run."""
        try:
            for fd in self.feeds:
                self.poll.register(fd, select.POLLIN)
            payload = _encode(self.told)
            self.outbox = memoryview(frames.HEADER.pack(frames.JOB, len(payload)) + payload)
            self._send()
            while not (self.lost or self.wait_status is not None or self._is_answered()):
                self._stop_if_due(deadline)
                self._step(GLANCE)
            self._drain()
            self.may_go_on = self.more and self._asks_for_more()
        finally:
            if not self.may_go_on:
                # Whatever the child still does after its answer, closing its status ends it.
                for fd in (self.job, self.out, self.err, self.status):
                    os.close(fd)
                self.zygote.replenish()
        self.stdout.finish()
        self.stderr.finish()
        return None if self.untaken and not self.stopped else self._ended()

    def _step(self, seconds: float) -> bool:
        """Handle what is ready within *seconds*; False where nothing was."""
        events = self.poll.poll(seconds * 1000)
        for fd, event in events:
            if event & select.POLLOUT:
                self._send()
            if event & READABLE:
                self._receive(fd)
        return bool(events)

    def _receive(self, fd: int) -> None:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except ConnectionError:
            # What the kernel says when a process ends without having read all that was sent.
            self.untaken = fd == self.job
            data = b""
        if data:
            self.feeds[fd](data)
            return
        self.poll.unregister(fd)
        del self.feeds[fd]
        # Without its end the fork server said all it ever will.
        self.lost = self.lost or (fd == self.status and self.wait_status is None)

    def _take_status(self, data: bytes) -> None:
        self.wait_status = int(data[1:])

    def _send(self) -> None:
        """Send as much of the job as the child takes."""
        try:
            self.outbox = self.outbox[os.write(self.job, self.outbox) :]
        except BlockingIOError:
            pass
        except OSError:
            self.outbox = memoryview(b"")
            self.untaken = True  # the child is gone; its status follows
        if self.job in self.feeds and bool(self.outbox) != self.is_sending:
            self.is_sending = bool(self.outbox)
            self.poll.modify(self.job, select.POLLIN | (select.POLLOUT if self.outbox else 0))

    def _take_answer(self, data: bytes) -> None:
        if len(self.answer) <= self.context.settings.result_bytes + frames.HEADER.size:
            self.answer += data
        if self.end is None and len(self.answer) >= frames.HEADER.size:
            self.end = frames.HEADER.size + frames.HEADER.unpack_from(self.answer)[1]

    def _is_answered(self) -> bool:
        return self.end is not None and len(self.answer) >= self.end

    def _asks_for_more(self) -> bool:
        """Whether its answer is followed by the word that it left nothing behind, and it lives."""
        if self.stopped or self.lost or self.wait_status is not None or not self._is_answered():
            return False
        return self.answer[self.end :] == frames.GOES_ON

    def _stop_if_due(self, deadline: float) -> None:
        now = time.monotonic()
        if self.stopped is None:
            if self.context.cancelled.is_set():
                self.stopped = "cancelled"
            elif now >= deadline:
                self.stopped = "timeout"
            else:
                return
            self.killed_at = now
            with socket.socket(fileno=os.dup(self.status)) as status:
                status.shutdown(socket.SHUT_WR)
        elif now - self.killed_at > PATIENCE:
            self.zygote.kill()

    def _drain(self) -> None:
        """Take what is left in the pipes; nobody writes to them any more."""
        if self.lost and not self.untaken:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
            # The child dies with the fork server, but a moment later.
            gone = time.monotonic() + PATIENCE
            while self.job in self.feeds and time.monotonic() < gone:
                self._step(GLANCE)
        while self.feeds and self._step(0):
            pass

    def _ended(self) -> Ended:
        tag, payload = self._parse_answer()
        if self.wait_status is None and tag is None and self.stopped is None:
            raise ToolError(
                "the process that starts steps died while this one ran",
                kind="exit",
                retryable=True,
            )
        code = os.waitstatus_to_exitcode(self.wait_status or 0)
        return Ended(self.pid, tag, payload, code, self.stopped, self.stdout.text, self.stderr.text)

    def _parse_answer(self) -> tuple[bytes | None, bytes]:
        if not self._is_answered():
            return None, b""  # killed before, or while it answered
        return bytes(self.answer[:1]), bytes(memoryview(self.answer)[frames.HEADER.size : self.end])


def _let_go(spare: Spare) -> None:
    for fd in spare.descriptors:
        os.close(fd)


def _encode(job: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(job, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # an integer of more than 64 bits
        return json.dumps(job, default=str).encode()


def _stopped(why: str, timeout: float) -> ToolError:
    if why == "cancelled":
        return ToolError("the step was cancelled and its process killed", kind="cancelled")
    return ToolError(
        f"the step ran longer than {timeout:g} seconds and was killed",
        kind="timeout",
        retryable=True,
    )


def _error(ended: Ended) -> ToolError:
    error = parse(ended)
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return _unreadable()
    # A program may answer in our place: what it says of itself is bounded, as ours is.
    py = error.get("py")
    if len(ended.payload) > MOST_OF_ERROR or not isinstance(py, dict):
        py = {}
    return ToolError(
        error["message"][:MAX_MESSAGE],
        kind=str(error.get("kind"))[:100],
        details={"py": py} if py else {},
        error_code=str(py["exception"])[:200] if "exception" in py else None,
    )


def parse(ended: Ended) -> Any:
    """The child's answer as data. Raises ``ToolError`` where it is not ours but made up."""
    try:
        return orjson.loads(ended.payload)
    except ValueError as exc:
        if _has_huge_number(ended.payload):
            raise ToolError(
                "the result holds a whole number that no float can hold; return it as text",
                kind="schema",
            ) from exc
        raise _unreadable() from exc


def _has_huge_number(payload: bytes) -> bool:
    """Whether *payload* is JSON all the same: orjson reads no numbers beyond floats."""
    try:
        json.loads(payload)
    except (ValueError, RecursionError):
        return False
    return True


def _unreadable() -> ToolError:
    return ToolError("the step's process answered nothing readable", kind="exit")


def child_job(context: Context, kind: str, **more: Any) -> dict[str, Any]:
    """The fields every job has; *more* are those of its *kind*.

    ``folder`` is one that the child shares with others of its step, ``files`` are texts by the
    variable that shall name their file.
    """
    return {
        "kind": kind,
        "more": False,
        "memory": context.settings.python_memory,
        "result_bytes": context.settings.result_bytes,
        "hidden": [str(context.settings.home)],
        "env": {},
        "files": {},
        "deps": {},
        "cwd": None,
        "folder": None,
        **more,
    }
