"""The matrix: which process fails, where, how, and what that may cost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from app.failpoints import ACTIONS

ALL = tuple(ACTIONS)
#: After ``delay`` nothing is broken, only late: one of each kind of place is enough.
BREAKING = ("crash", "error", "done-then-error", "done-then-crash")


@dataclass(frozen=True, slots=True)
class Case:
    """Faults by process, and what follows from them.

    ``expires``: an attempt is lost, and its lease has to end. ``once``: the faults cannot make a
    step run twice. ``hold``: seconds that the step ``left`` takes. ``cancels``: the story is a
    cancellation. ``idles``: another execution is open all the time, so that there is one to wake.
    Unless ``eager``, orchestrators decide all of it.
    """

    name: str
    faults: Mapping[str, Sequence[str]]
    expires: bool = False
    once: bool = True
    hold: float = 0.0
    cancels: bool = False
    idles: bool = False
    eager: bool = True


def _cases(
    module: str, point: str, actions: Sequence[str], *, nth: int = 1, **more: bool
) -> Iterator[Case]:
    for action in actions:
        name = f"{module}-{point}-{action}" + (f"-{nth}" if nth > 1 else "")
        yield Case(name, {module: [f"{point}:{action}:{nth}"]}, **more)


def _web() -> Iterator[Case]:
    yield from _cases("server", "start.commit", ALL)
    yield from _cases("server", "start.wake", ("crash", "error", "done-then-crash"), eager=False)
    yield from _cases("server", "advance.decide", ("crash", "error", "done-then-crash"))
    yield from _cases("server", "advance.decide", ("crash", "error"), nth=4)
    yield from _cases("server", "advance.publish", BREAKING, nth=2)
    # The first exchange is a claim; later ones are reports, alone or with claims.
    yield from _cases("server", "exchange.commit", ("crash", "done-then-error"))
    yield from _cases("server", "exchange.commit", BREAKING, nth=4)
    yield from _cases("server", "exchange.wake", BREAKING, eager=False)
    yield from _cases("server", "exchange.answer", ("error", "done-then-crash"), nth=3)
    yield from _cases("server", "broker.publish", ("error", "done-then-error"), nth=2)
    yield from _cases("server", "heartbeat.send", ("crash", "error"), nth=2)
    yield from _cases("server", "cancel.commit", BREAKING, cancels=True)


def _orchestrator() -> Iterator[Case]:
    for case in _deciding():
        yield replace(case, eager=False)


def _deciding() -> Iterator[Case]:
    yield from _cases("orchestrator", "advance.decide", ("crash", "error", "done-then-crash"))
    yield from _cases(
        "orchestrator", "advance.append", ("crash", "error", "done-then-crash"), nth=2
    )
    yield from _cases("orchestrator", "advance.commit", ALL)
    yield from _cases("orchestrator", "advance.commit", ("crash", "done-then-crash"), nth=4)
    yield from _cases("orchestrator", "advance.publish", BREAKING)
    yield from _cases("orchestrator", "broker.publish", ("crash", "done-then-error"), nth=3)
    yield from _cases("orchestrator", "broker.ack", BREAKING, nth=2)
    yield from _cases("orchestrator", "child.begin", BREAKING)
    yield from _cases("orchestrator", "child.wake", BREAKING)
    yield from _cases("orchestrator", "tell.commit", BREAKING)
    yield from _cases("orchestrator", "tell.wake", BREAKING)
    yield from _cases("orchestrator", "heartbeat.send", ("crash", "done-then-error"), nth=2)


def _worker() -> Iterator[Case]:
    """A worker that dies takes along whatever else it runs: its attempts expire and run again."""
    lost = {"expires": True, "once": False}
    for point, nth in (("worker.claim", 2), ("worker.run", 2), ("worker.report", 2)):
        yield from _cases("worker", point, ("crash", "done-then-crash"), nth=nth, **lost)
    yield from _cases("worker", "worker.claim", ("error", "delay", "done-then-error"), nth=3)
    yield from _cases("worker", "worker.run", ("error", "delay"), nth=3)
    yield from _cases("worker", "worker.run", ("done-then-error",), nth=3, once=False)
    yield from _cases("worker", "worker.report", ("error", "delay", "done-then-error"), nth=3)
    yield from _cases("worker", "broker.ack", ("error", "done-then-error"), nth=2)
    yield from _cases("worker", "broker.ack", ("crash", "done-then-crash"), nth=2, **lost)
    yield from _cases("worker", "heartbeat.send", ("error",), nth=2)
    yield Case(
        "worker-heartbeat.send-delay",
        {"worker": ["heartbeat.send:delay=3000:2"]},
        expires=True,
        once=False,
        hold=3.0,
    )


def _scheduler() -> Iterator[Case]:
    """What the sweeper repairs must have been broken first, by another process."""
    unclaimed, unwoken = (
        {"orchestrator": ["advance.publish:crash"]},
        {"server": ["exchange.wake:error"]},
    )
    for action in BREAKING:
        for point, broken, lost in (
            ("expire.commit", {"worker": ["worker.run:crash:2"]}, True),
            ("expire.wake", {"worker": ["worker.run:crash:2"]}, True),
            ("resend.publish", unclaimed, False),
            ("sweep.wake", unwoken, False),
            ("tell.commit", {"orchestrator": ["tell.commit:crash"]}, False),
            ("tell.wake", {"orchestrator": ["tell.commit:crash"]}, False),
        ):
            faults = {**broken, "scheduler": [f"{point}:{action}"]}
            name, idles = f"scheduler-{point}-{action}", point == "sweep.wake"
            yield Case(name, faults, expires=lost, once=not lost, idles=idles, eager=False)


def _usual(cases: Sequence[Case]) -> list[Case]:
    """Of each place in the flow one case in which the process dies and one in which it goes on.

    The last two actions of a place, in turn, so that over all places each action is among them.
    """
    places: dict[str, list[Case]] = {}
    for case in cases:
        place = case.name
        for action in sorted(ACTIONS, key=len, reverse=True):
            place = place.replace(f"-{action}", "")
        places.setdefault(place, []).append(case)
    found = []
    for number, there in enumerate(places.values()):
        dies = [case for case in there if "crash" in case.name]
        lives = [case for case in there if "crash" not in case.name]
        found += [among[number % len(among)] for among in (dies, lives) if among]
    return found


EVERY_CASE = [
    Case("none", {}),
    *_web(),
    *_orchestrator(),
    *_worker(),
    *_scheduler(),
]
#: ``FAILPOINTS=all`` (``make failpoints``) plays every case; the suite has a few minutes for all.
CASES = EVERY_CASE if os.environ.get("FAILPOINTS") == "all" else _usual(EVERY_CASE)
