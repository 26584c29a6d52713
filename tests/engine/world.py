"""Everything outside the engine that may happen to an execution, in any order a tape chooses.

Workers that end, lose and park attempts, sub-playbooks that end early, late and twice, a table whose
rows appear while others are worked on, time, and a log that refuses what its unique keys refuse.
"""

from __future__ import annotations

import itertools
import zlib
from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from app.engine import decide as engine
from app.engine.children import Caller, Outcome, Target, call_of, ending
from app.engine.decide import Limits, decide
from app.engine.encoding import loads
from app.engine.entry import event_from
from app.engine.events import (
    AttemptExpired,
    AttemptFailed,
    AttemptInterrupted,
    AttemptLate,
    ChildStarted,
    Event,
    ExecutionStarted,
    FrameOpened,
    LoopDone,
    StepDone,
    StepFailed,
    StepKey,
    StepParked,
    StepScheduled,
    StepStarted,
)
from app.engine.playbook import Playbook
from app.engine.ports import Draft
from app.engine.state import NEW, Execution, evolve
from app.engine.values import ValueNeeded, Values
from app.store.keys import keys_of
from app.store.rows import FENCES, row_of
from tests.engine.driver import EXECUTION
from tests.engine.generated import CHILD, Tape

LIMITS = Limits(max_visits=6, max_attempts=3)
TARGETS = {CHILD: Target(7, CHILD, 3)}
#: Rows that a table may gain while it is worked on.
GAIN = 3
#: No execution of the generated playbooks needs more events; more would be an endless decision.
MOST_EVENTS = 1_000

Move = tuple[Callable[..., None], Any]


class Ledger(ChainMap[int, Event]):
    """The events of one decision; one that finds no end is told so."""

    def __setitem__(self, seq: int, event: Event) -> None:
        assert len(self.maps[0]) < MOST_EVENTS, "a decision finds no end"
        super().__setitem__(seq, event)


class Known(Values):
    """Values as every decision reads them, which notice a decision without an end."""

    __slots__ = ()

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        # The engine lays its new events over those that it was given.
        if isinstance(self.events, ChainMap):
            self.events = Ledger(*self.events.maps)


@dataclass
class Table:
    """What a cursor claims from."""

    rows: int
    gain: int = GAIN


@dataclass
class World:
    """One execution and all that surrounds it.

    ``fates`` decide how work ends, by its key and attempt alone, so that another order of the same
    things can be compared. ``steady``: claims never fail.
    """

    playbook: Playbook
    fates: bytes
    deadline: float | None = None
    steady: bool = False
    log: list[Event] = field(default_factory=list)
    stored: list[Event] = field(default_factory=list)
    #: The state after each event, the first being that before any.
    states: list[Execution] = field(default_factory=lambda: [NEW])
    values: Values = field(default_factory=Known)
    taken: set[tuple[object, ...]] = field(default_factory=set)
    #: Attempts that are out, and the number of the newest of each key.
    out: dict[StepKey, StepScheduled] = field(default_factory=dict)
    newest: dict[StepKey, int] = field(default_factory=dict)
    #: Sub-playbooks that have not ended, and those of them that somebody waits for.
    children: dict[int, ChildStarted] = field(default_factory=dict)
    awaited: dict[StepKey, ChildStarted] = field(default_factory=dict)
    tables: dict[tuple[str, int], Table] = field(default_factory=dict)
    claimed: dict[tuple[StepKey, int], int] = field(default_factory=dict)
    said: list[tuple[Event, str]] = field(default_factory=list)
    decided: bool = False

    @property
    def state(self) -> Execution:
        return self.states[-1]

    # ------------------------------------------------------------------ the log
    def append(self, event: Event, key: str | None = None) -> None:
        """Write *event* as the log does; an event that the log refuses is an error here."""
        row = row_of(len(self.log) + 1, Draft(event, key))
        keys = keys_of(row)
        assert not self.taken.intersection(keys), f"the log refuses {event}"
        self.taken.update(keys)
        self.log.append(event)
        self.stored.append(event_from(row.type, row._asdict(), loads(row.payload)))
        self.values.events[row.seq] = event
        self.states.append(evolve(self.state, event, row.seq))
        self.note(event)

    def note(self, event: Event) -> None:
        """Keep count of what is out."""
        if isinstance(event, StepScheduled):
            self.out[event.key] = event
            self.newest[event.key] = event.attempt
        elif isinstance(event, ChildStarted):
            if event.waits:
                self.children[event.child_execution_id] = event
                self.awaited[event.key] = event
        elif event.type in FENCES or event.type in {"step.done", "step.failed", "child.ended"}:
            key = event.key  # type: ignore[union-attr]  # all of these are about a step
            self.awaited.pop(key, None)
            if event.type != "child.ended":
                self.out.pop(key, None)

    def report(self, event: Event, attempt: int, key: str) -> bool:
        """What a worker says, accepted or refused as the control plane would; True if accepted."""
        self.said.append((event, key))
        place: StepKey = event.key  # type: ignore[union-attr]  # reports are about a step
        current = place in self.out and self.newest[place] == attempt
        if ("U2", key) in self.taken:
            return False
        if current and self.state.is_running:
            self.append(event, key)
            return True
        late = f"late:{key}"
        if ("U2", late) not in self.taken:
            self.append(AttemptLate(*place, attempt=attempt, worker="w"), late)
        return False

    def tell(self, child: ChildStarted, event: Event) -> bool:
        """The end of a child told to its caller, where that still waits."""
        key = f"child:{child.child_execution_id}"
        self.said.append((event, key))
        row = row_of(1, Draft(event, key))
        ended = ("U4", *child.key) in self.taken
        if ended or not self.state.is_running or self.taken.intersection(keys_of(row)):
            return False
        self.append(event, key)
        return True

    # ------------------------------------------------------------------ deciding
    def begin(self) -> World:
        self.append(
            ExecutionStarted(1, self.playbook.path, 1, {}, deadline=self.deadline), "started"
        )
        self.settle()
        return self

    def decision(self, values: Values) -> list[Event]:
        """What follows now; *values* need hold nothing."""
        while True:
            # Ids depend on the state alone, so that deciding again gives the same ones.
            values.new_id = itertools.count(1_000 * (len(self.log) + 1)).__next__
            try:
                return decide(EXECUTION, self.playbook, self.state, values, LIMITS)
            except ValueNeeded as needed:
                wanted = needed.wanted
                if wanted.call is not None:
                    values.targets[wanted.call] = TARGETS.get(str(wanted.call.path))
                elif wanted.loop is not None:
                    values.loops[wanted.loop] = self.iterations(wanted.loop)
                else:
                    values.events[wanted.seq] = self.stored[wanted.seq - 1]

    def iterations(self, loop: StepKey) -> list[Any]:
        ended = [
            event
            for event in self.log
            if isinstance(event, StepDone | StepFailed)
            and (event.step, event.visit) == (loop.step, loop.visit)
            and event.iteration >= 0
        ]
        ended.sort(key=lambda event: event.iteration)
        return [event.result if isinstance(event, StepDone) else None for event in ended]

    def settle(self, *, afresh: bool = False) -> None:
        """Decide and append; deciding again gives nothing. *afresh*: with nothing at hand, too."""
        events = self.decision(self.values)
        if afresh:
            assert self.decision(Known(now=self.values.now)) == events
        for event in events:
            self.append(event)
        assert len(self.log) < MOST_EVENTS, "there is no end of decisions"
        assert self.decision(self.values) == [], "deciding again gave more"
        self.decided = True

    # ------------------------------------------------------------------ what may happen
    def play(self, order: Tape) -> World:
        """Let things happen in the order that the tape chooses, to the end."""
        while self.state.is_running:
            moves = self.moves()
            if not moves:
                assert not self.decided, "nothing is out, nobody is waited for, and there is no end"
                self.settle()
                continue
            act, subject = order.pick(moves)
            act(subject)
            self.decided = False
            if not self.steady and order.once_in(100):
                self.stop()
            if order.below(4) < 3:
                self.settle(afresh=order.once_in(4))
                self.disturb(order)
        self.disturb(order)
        return self

    def moves(self) -> list[Move]:
        """What can happen next. Time alone is no way out of a standstill, save for a child."""
        moves: list[Move] = []
        for scheduled in self.out.values():
            waits = scheduled.key.is_claim and _place(scheduled) not in self.claimed
            moves.append((self.take if waits else self.work, scheduled))
        moves += [(self.end_child, child) for child in self.children.values()]
        if any(child.deadline is not None for child in self.awaited.values()):
            moves.append((self.wait, None))
        if moves and self.deadline is not None and self.decided:
            moves.append((self.wait, None))
        return moves

    def wait(self, _: None) -> None:
        """Time passes, to the next moment at which something is due."""
        times = [child.deadline for child in self.awaited.values() if child.deadline is not None]
        times += [self.deadline] if self.deadline is not None else []
        self.values.now = max(self.values.now, min(times))

    def disturb(self, order: Tape) -> None:
        """Something is said again: the log refuses it, and nothing follows."""
        if not self.said or not order.once_in(5):
            return
        before = self.state
        event, key = order.pick(self.said)
        if key.startswith("child:"):
            child = next(
                seen for seen in self.log
                if isinstance(seen, ChildStarted) and key == f"child:{seen.child_execution_id}"
            )  # fmt: skip
            assert not self.tell(child, event)
        else:
            assert not self.report(event, event.attempt, key)  # type: ignore[union-attr]  # a report
        assert self.decision(self.values) == [], "a duplicate changed something"
        assert _but_version(self.state) == _but_version(before)

    def stop(self) -> None:
        """Somebody cancels the execution."""
        for event in engine.cancel(self.state, "asked"):
            self.append(event)

    def left_behind(self) -> list[str]:
        """Loops that ended well although their source still had rows."""
        broken = {
            (event.step, event.visit)
            for event in self.log
            if (isinstance(event, FrameOpened) and event.error is not None)
            or (isinstance(event, StepFailed) and event.key.is_claim)
        }
        return [
            str(event.key)
            for event in self.log
            if isinstance(event, LoopDone)
            and (event.step, event.visit) not in broken
            and (table := self.tables.get((event.step, event.visit)))
            and table.rows
        ]

    # ------------------------------------------------------------------ work
    def fate(self, *about: object) -> int:
        place = zlib.crc32(repr(about).encode())
        return self.fates[place % len(self.fates)]

    def take(self, claim: StepScheduled) -> None:
        """A claim takes rows; it is told of later."""
        table = self.table(claim.step, claim.visit)
        loop = self.playbook.steps[claim.step].loop
        assert loop is not None
        assert loop.cursor is not None
        rows = min(table.rows, int(loop.cursor.frame.max_rows))
        table.rows -= rows
        self.claimed[_place(claim)] = rows

    def table(self, step: str, visit: int) -> Table:
        return self.tables.setdefault((step, visit), Table(self.fate("rows", step) % 5))

    def work(self, scheduled: StepScheduled) -> None:
        """An attempt ends, one way or another."""
        key, attempt = scheduled.key, scheduled.attempt
        self.values.now = max(self.values.now, scheduled.not_before or 0.0)
        if self.fate("started", *key) % 2 and self.state.is_running:
            self.append(StepStarted(*key, attempt, "w"), f"claim:{key}:{attempt}")
        fate = self.fate(*key, attempt) % 24
        event = self.outcome(
            scheduled, 0 if attempt > 6 or (key.is_claim and self.steady) else fate
        )
        if not self.report(event, attempt, f"report:{key}:{attempt}"):
            raise AssertionError(f"the report {event} was refused")
        if key.is_claim and not isinstance(event, StepDone):
            self.table(key.step, key.visit).rows += self.claimed[_place(scheduled)]
        elif isinstance(event, StepDone) and key.iteration >= 0:
            self.gain(key)

    def outcome(self, scheduled: StepScheduled, fate: int) -> Event:
        """How the attempt ends; most end well."""
        key, attempt = scheduled.key, scheduled.attempt
        step = self.playbook.steps[key.step]
        error = {"kind": "test", "message": "planned", "retryable": False}
        match fate:
            case 10:
                return StepFailed(*key, attempt, error, {"last": False} if attempt > 1 else None)
            case 11 if scheduled.tries < 2:
                return AttemptFailed(*key, attempt, error, self.values.now + 3)
            case 12:
                return AttemptExpired(*key, attempt, "w")
            case 13:
                return AttemptInterrupted(*key, attempt, "w")
            case 14 | 8 | 9 if step.sequence and not key.is_claim and attempt < 4:
                return self.parked(scheduled, fate)
            case _:
                return StepDone(*key, attempt, self.result(scheduled))

    def parked(self, scheduled: StepScheduled, fate: int) -> StepParked:
        key, progress = scheduled.key, {"index": scheduled.attempt}
        if fate == 8:
            until = self.values.now + 4
            return StepParked(*key, scheduled.attempt, progress, resume_at=until)
        config = self.playbook.steps[key.step].tasks[1].config
        call = call_of(config).to_dict()
        return StepParked(*key, scheduled.attempt, progress, call)

    def result(self, scheduled: StepScheduled) -> Any:
        key = scheduled.key
        if not key.is_claim:
            return {"turn": key.visit, "flag": bool(self.fate("flag", *key) % 2)}
        if not self.steady and self.fate("nonsense", *key) % 23 == 22:
            return {"rows": "none"}
        return {"rows": ["row"] * self.claimed[_place(scheduled)]}

    def gain(self, key: StepKey) -> None:
        """The work on a row may add another one."""
        loop = self.playbook.steps[key.step].loop
        if loop is None or loop.cursor is None:
            return
        table = self.table(key.step, key.visit)
        if table.gain and self.fate("gain", *key) % 2:
            table.gain -= 1
            table.rows += 1

    def end_child(self, child: ChildStarted) -> None:
        del self.children[child.child_execution_id]
        status = ("completed", "completed", "failed", "cancelled")[
            self.fate("child", *child.key) % 4
        ]
        value = {"turn": child.visit, "flag": bool(self.fate("flag", *child.key) % 2)}
        caller = Caller(*child.key, child.attempt, child.returns or "", child.resumes, child.fails)
        outcome = Outcome(child.child_execution_id, child.path, status, value, None)
        self.tell(child, ending(caller, outcome))


def _place(scheduled: StepScheduled) -> tuple[StepKey, int]:
    return scheduled.key, scheduled.attempt


def _but_version(state: Execution) -> Execution:
    return replace(state, version=0)
