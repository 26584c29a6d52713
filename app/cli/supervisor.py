"""Keeps a set of processes running: starts them again when they die, stops them in order.

Everything that happens (a line, an exit, a wish to stop) becomes a message in one queue; one loop
takes them out and decides. Threads and signal handlers only put messages in.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from queue import Empty, SimpleQueue
from threading import Semaphore
from typing import Protocol

from app.cli.backoff import Backoff
from app.cli.child import Child, Program
from app.errors import CallboardError, StartupError

#: Seconds between two looks at the servers.
PATROL = 0.5
#: Lines that may wait to be written. Where whoever reads us is slower than our processes speak,
#: they wait for us to take their lines, as they would for a terminal.
MOST_LINES = 1000


class Servers(Protocol):
    """What the processes stand on; see ``app.embedded.stack.EmbeddedStack``."""

    def alive(self, name: str) -> bool: ...

    def restart(self, name: str) -> None: ...


class Speaker(Protocol):
    """Where the supervisor and its processes speak to."""

    def line(self, name: str, text: str) -> None:
        """A process printed *text*."""

    def say(self, event: str, text: str, **facts: object) -> None:
        """The supervisor did something; *event* is its name for programs."""


@dataclass(frozen=True, slots=True)
class _Line:
    child: Child
    text: str


@dataclass(frozen=True, slots=True)
class _Exit:
    child: Child
    code: int


@dataclass(frozen=True, slots=True)
class _Stop:
    """``now`` True: without patience."""

    now: bool = False


@dataclass(frozen=True, slots=True)
class _Call:
    """Do this in the loop's thread."""

    act: Callable[[], None]


@dataclass(slots=True)
class _Kept:
    """A program and where it stands: running (``child``) or to be started at ``due``."""

    program: Program
    child: Child | None = None
    due: float | None = None
    backoff: Backoff = field(default_factory=Backoff)


class Supervisor:
    """Runs *programs* until it is asked to stop. ``servers`` names those to be kept alive too."""

    def __init__(
        self,
        programs: Sequence[Program],
        speaker: Speaker,
        *,
        servers: Servers | None = None,
        server_names: Sequence[str] = (),
    ) -> None:
        self._kept = {program.name: _Kept(program) for program in programs}
        self._speaker = speaker
        self._servers = servers
        self._server_backoff = dict.fromkeys(server_names, Backoff())
        self._server_due: dict[str, float] = dict.fromkeys(server_names, 0.0)
        self._inbox: SimpleQueue[_Line | _Exit | _Stop | _Call] = SimpleQueue()
        self._room = Semaphore(MOST_LINES)
        self._next_patrol = 0.0
        self._wishes = 0

    # ------------------------------------------------------------------ from any thread
    def ask_stop(self) -> None:
        """Ask for the end; asked twice, everything is killed. Safe in a signal handler."""
        self._wishes += 1
        self._inbox.put(_Stop(now=self._wishes > 1))

    def soon(self, act: Callable[[], None]) -> None:
        """Run *act* in the loop's thread, between two messages."""
        self._inbox.put(_Call(act))

    def pids(self) -> Mapping[str, int]:
        """The process ids of those that run now."""
        return {name: kept.child.pid for name, kept in self._kept.items() if kept.child}

    # ------------------------------------------------------------------ the loop
    def run(self) -> None:
        """Start everything, keep it running, and return when all of it was stopped as asked.

        Raises ``StartupError`` with the last words of a process that cannot start at all; the
        others are stopped then too.
        """
        try:
            for kept in self._kept.values():
                self._start(kept)
            while not isinstance(self._turn(), _Stop):
                pass
        finally:
            self._stop_all()

    def _turn(self) -> _Stop | None:
        """Do what is due and one message, if one comes in time; the wish to stop is returned."""
        self._start_due()
        self._look_at_servers()
        try:
            message = self._inbox.get(timeout=max(0.0, self._next_due() - time.monotonic()))
        except Empty:
            return None
        match message:
            case _Line():
                self._write(message)
            case _Exit():
                self._ended(message.child, message.code)
            case _Call():
                message.act()
            case _Stop():
                return message
        return None

    def _next_due(self) -> float:
        times = [kept.due for kept in self._kept.values() if kept.due is not None]
        return min([*times, self._next_patrol])

    def _start(self, kept: _Kept) -> None:
        kept.due = None
        kept.child = Child(kept.program, self._on_line, self._on_exit)

    def _start_due(self) -> None:
        now = time.monotonic()
        for kept in self._kept.values():
            if kept.due is not None and kept.due <= now:
                self._start(kept)
                assert kept.child is not None
                self._speaker.say(
                    "process.started",
                    f"{kept.program.name} runs again (process {kept.child.pid})",
                    process=kept.program.name,
                    pid=kept.child.pid,
                )

    def _ended(self, child: Child, code: int) -> None:
        kept = self._kept[child.program.name]
        ran = time.monotonic() - child.started
        wait = kept.backoff.wait(ran)
        kept.child = None
        kept.backoff = kept.backoff.after(ran, code)
        if kept.backoff.is_hopeless:
            raise StartupError(
                f"{child.program.name} cannot start; it ended {kept.backoff.quick} times in a row "
                f"({describe_exit(code)}) and said last:\n{last_words(child)}"
            )
        kept.due = time.monotonic() + wait
        self._speaker.say(
            "process.died",
            f"{child.program.name} died ({describe_exit(code)}); starting it again in {wait:g} s",
            process=child.program.name,
            code=code,
            wait=wait,
        )

    def _look_at_servers(self) -> None:
        now = time.monotonic()
        if now < self._next_patrol:
            return
        self._next_patrol = now + PATROL
        for name, backoff in self._server_backoff.items():
            assert self._servers is not None
            if self._server_due[name] > now or self._servers.alive(name):
                continue
            try:
                self._servers.restart(name)
            except CallboardError as exc:
                self._server_due[name] = now + backoff.delay
                self._server_backoff[name] = backoff.after(0.0, 1)
                text = f"{name} died and does not come back: {exc}; trying again in {backoff.delay:g} s"
                self._speaker.say("server.down", text, process=name, wait=backoff.delay)
            else:
                self._server_backoff[name] = Backoff()
                self._speaker.say("server.started", f"{name} died; it runs again", process=name)

    # ------------------------------------------------------------------ the end
    def _stop_all(self) -> None:
        """Stop rank by rank; on a second wish kill what is left."""
        alive = [kept.child for kept in self._kept.values() if kept.child is not None]
        alive.sort(key=lambda child: child.program.rank)
        for _, rank in groupby(alive, key=lambda child: child.program.rank):
            self._stop_rank(list(rank))

    def _stop_rank(self, children: Sequence[Child]) -> None:
        # One that died by itself a moment ago has sent its last message already.
        left = {child for child in children if self._kept[child.program.name].child is child}
        for child in left:
            if self._wishes > 1:
                child.kill()
            else:
                child.terminate()
        while left:
            message = self._inbox.get()
            match message:
                case _Line():
                    self._write(message)
                case _Exit():
                    message.child.join()
                    self._kept[message.child.program.name].child = None
                    left.discard(message.child)
                case _Stop(now=True):
                    for child in left:
                        child.kill()
                case _:
                    pass

    def _write(self, line: _Line) -> None:
        self._room.release()
        self._speaker.line(line.child.program.name, line.text)

    def _on_line(self, child: Child, text: str) -> None:
        self._room.acquire()
        self._inbox.put(_Line(child, text))

    def _on_exit(self, child: Child, code: int) -> None:
        self._inbox.put(_Exit(child, code))


def describe_exit(code: int) -> str:
    """``exit code 3`` or the name of the signal."""
    if code > 128:
        try:
            return signal.Signals(code - 128).name
        except ValueError:
            return f"exit code {code}"
    return f"exit code {code}"


def last_words(child: Child) -> str:
    """The last lines of a process, indented; or that it said nothing."""
    return "\n".join(f"  {line}" for line in child.last if line.strip()) or "  nothing"
