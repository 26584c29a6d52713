"""Failpoints: named places where a process can be told to die, to fail or to linger, for tests.

``CALLBOARD_FAILPOINT=name:action:nth`` arms one, commas separate several. The code says
``before(name)`` and ``after(name)`` around the operation of that name; where nothing is armed,
which is always so in production, each is one look at an empty mapping.
"""

from __future__ import annotations

import difflib
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from app.errors import StartupError, UnavailableError

log = structlog.get_logger(__name__)

#: Every point: the operation that it stands before and behind.
POINTS = {
    "start.commit": "web: the first event of an execution is committed",
    "start.wake": "web: somebody is told of a new execution",
    "exchange.commit": "web: what claims and reports of workers say is committed",
    "exchange.wake": "web: executions that were reported of are woken",
    "exchange.answer": "web: the answer to a worker is put together",
    "cancel.commit": "web: the end of a cancelled execution is committed",
    "advance.decide": "orchestrator, web: under the lock, with the log read, what follows is decided",
    "advance.append": "orchestrator: what was decided is appended, not yet committed",
    "advance.commit": "orchestrator: what was decided is committed",
    "advance.publish": "orchestrator, web: pointers of what was scheduled are sent",
    "child.begin": "orchestrator, web: a sub-playbook begins in its parent's transaction",
    "child.wake": "orchestrator, web: sub-playbooks that began are woken",
    "tell.commit": "orchestrator, web, scheduler: a child's end is committed to its parent's log",
    "tell.wake": "orchestrator, web, scheduler: a parent that was told is woken",
    "worker.claim": "worker: an attempt is claimed at the control plane",
    "worker.run": "worker: the tools of a claimed attempt run",
    "worker.report": "worker: the outcome is reported to the control plane",
    "heartbeat.send": "web, orchestrator, worker: a sign of life is given",
    "broker.publish": "every process: messages are stored by NATS",
    "broker.ack": "orchestrator, worker: NATS is told what became of a message",
    "expire.commit": "scheduler: the end of a silent worker's attempt is committed",
    "expire.wake": "scheduler: executions that lost an attempt are woken",
    "resend.publish": "scheduler: pointers that nobody claimed are sent again",
    "sweep.wake": "scheduler: open executions are woken in turn",
}
#: Every action, and what the process does at its point.
ACTIONS = {
    "crash": "is gone at once, as by SIGKILL, with the operation not begun",
    "error": "does not begin the operation; the caller sees UnavailableError",
    "delay": "waits, 1000 milliseconds or as many as delay=N says, then begins the operation",
    "done-then-error": "completes the operation; the caller sees UnavailableError",
    "done-then-crash": "completes the operation, then is gone at once",
}
#: Exit code of a process that crashed here: what a shell says of one that was killed.
CRASHED = 137
#: Milliseconds of a delay that does not say how long.
DELAY = 1000
_BEFORE = frozenset({"crash", "error", "delay"})


@dataclass(slots=True)
class Failpoint:
    """One armed point: at its *nth* hit, counted from 1, the *action*; never again after that."""

    name: str
    action: str
    nth: int = 1
    milliseconds: int = DELAY
    _hits: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_before(self) -> bool:
        return self.action in _BEFORE

    def hit(self) -> None:
        """Count, and act when it is the turn. Raises ``UnavailableError`` where that is the action."""
        with self._lock:
            self._hits += 1
            if self._hits != self.nth:
                return
        log.warning("failpoint.hit", point=self.name, action=self.action, hit=self.nth)
        if self.action == "delay":
            time.sleep(self.milliseconds / 1000)
        elif self.action.endswith("error"):
            raise UnavailableError(f"failpoint {self.name} ({self.action})")
        else:
            os._exit(CRASHED)


_armed: dict[str, list[Failpoint]] = {}


def before(name: str) -> None:
    """The operation of the point *name* is about to begin."""
    if _armed:
        _reach(name, is_before=True)


def after(name: str) -> None:
    """The operation of the point *name* is done."""
    if _armed:
        _reach(name, is_before=False)


def _reach(name: str, *, is_before: bool) -> None:
    for point in _armed.get(name, ()):
        if point.is_before is is_before:
            point.hit()


def arm(text: str) -> None:
    """Arm what *text* names and nothing else, and say so. Raises ``StartupError``."""
    points = parse(text)
    _armed.clear()
    for point in points:
        _armed.setdefault(point.name, []).append(point)
        log.warning(
            "failpoint.armed",
            point=point.name,
            action=point.action,
            hit=point.nth,
            remedy="this process is going to fail on purpose; unset CALLBOARD_FAILPOINT",
        )


def parse(text: str) -> list[Failpoint]:
    """The points in ``name:action[:nth],…``. Raises ``StartupError`` where one is not known."""
    return [_parse(item.strip()) for item in text.split(",") if item.strip()]


def _parse(item: str) -> Failpoint:
    name, _, rest = item.partition(":")
    action, _, nth = rest.partition(":")
    action, equals, milliseconds = action.partition("=")
    _check(item, "point", name, POINTS)
    _check(item, "action", action, ACTIONS)
    if equals and action != "delay":
        raise _wrong(item, f"only delay takes a number, {action} does not")
    return Failpoint(
        name,
        action,
        _number(item, nth, "hit") if nth else 1,
        _number(item, milliseconds, "milliseconds") if equals else DELAY,
    )


def _check(item: str, what: str, word: str, known: Iterable[str]) -> None:
    if word in known:
        return
    near = difflib.get_close_matches(word, known, n=1)
    meant = f", did you mean {near[0]}?" if near else ","
    raise _wrong(item, f"there is no {what} {word!r}{meant} there are {', '.join(known)}")


def _number(item: str, text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise _wrong(item, f"{what} is a whole number from 1, not {text!r}")
    return int(text)


def _wrong(item: str, reason: str) -> StartupError:
    return StartupError(
        f"CALLBOARD_FAILPOINT, {item!r}: {reason}",
        remedy="write name:action or name:action:nth, or unset it; 'callboard config --failpoints' "
        "lists all",
    )
