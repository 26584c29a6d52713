"""What failed elsewhere and no other test of ours looks at; see docs/explanation/failure-classes.md."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import orjson
import psycopg
import pytest

from app.actors.steps import Runner
from app.engine.events import StepScheduled
from app.engine.ports import Dispatch, Pointer
from app.errors import ConflictError, StartupError, UnavailableError
from app.services.control import Control, control
from app.services.desk import Desk
from app.settings import load
from app.store.catalog import PostgresCatalog
from app.store.database import Database
from app.store.events import PostgresLog
from app.store.rows import Row
from app.wire import Beat, Exchange, ExchangeAnswer
from app.wiring import ToolKinds, pool_queues
from tests.engine.driver import Run, playbook_of
from tests.services.conftest import Bench, Recorder, bench, make_bench  # noqa: F401 (fixtures)

ONE = "workflow: [{step: start, tool: {kind: noop}}]"
TWO = """
workflow:
- {step: start, tool: {kind: noop}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop, message: "{{ start }}"}}
"""
FORK = """
workflow:
- {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b}]}}
- {step: a, tool: {kind: noop}, next: {arcs: [{step: join}]}}
- {step: b, tool: {kind: noop}, next: {arcs: [{step: join}]}}
- {step: join, tool: {kind: noop}}
"""
EACH = """
workflow:
- step: each
  loop: {in: [1, 2, 3], iterator: n, spec: {mode: parallel}}
  tool: {kind: noop, message: "{{ n }}"}
"""
CALLS = "workflow: [{step: start, tool: {kind: playbook, path: child, wait: true}}]"


def begun(bench: Bench, workflow: str) -> tuple[int, Pointer]:  # noqa: F811 (the fixture's value)
    execution_id = bench.start(workflow)
    (pointer,) = bench.advance(execution_id)
    return execution_id, pointer


def status(bench: Bench, execution_id: int) -> str:  # noqa: F811 (the fixture's value)
    return bench.control.executions.get(execution_id).status


# ---------------------------------------------------------------------- 1, 2: acknowledge, publish
@dataclass(frozen=True, slots=True)
class Deaf(Desk):
    """A control plane that is away when something is reported, as often as ``outages`` has items."""

    outages: list[UnavailableError]

    def exchange(self, request: Exchange) -> ExchangeAnswer:
        if request.reports and self.outages:
            raise self.outages.pop()
        return Desk.exchange(self, request)


def test_01_an_actor_ends_only_after_its_report_is_in_the_log(bench: Bench) -> None:  # noqa: F811
    """A message is acknowledged when its actor ends, so nothing can be lost before that."""
    execution_id, pointer = begun(bench, ONE)
    deaf = Deaf(bench.control, [UnavailableError("away", retry_after=0.0)] * 2)
    Runner(deaf, load({}).settings, ToolKinds(), {}, name="w1").run(pointer)
    assert deaf.outages == []
    assert bench.types(execution_id)[-1] == "step.done"


def test_02_what_was_appended_and_not_published_is_published_by_the_sweeper(
    bench: Bench,  # noqa: F811
) -> None:
    execution_id = bench.start(ONE)
    bench.dispatcher.down = True
    with pytest.raises(UnavailableError):
        bench.control.advance.advance(execution_id)
    assert bench.types(execution_id) == ["execution.started", "step.scheduled"]
    bench.dispatcher.down = False
    bench.now[0] += 60
    for _ in range(2):
        bench.control.sweeper.sweep()
    first, *others = [sent.pointer for sent in bench.dispatcher.sent]
    bench.work(first)
    assert not any(bench.claim(other, worker="w2").granted for other in others)
    bench.settle(execution_id)
    assert status(bench, execution_id) == "COMPLETED"


class Watching(Recorder):
    """A dispatcher that looks into the log whenever it is told to send."""

    log: Any = None
    unwritten: list[Pointer]

    def dispatch(self, steps: Sequence[Dispatch]) -> None:
        super().dispatch(steps)
        for step in steps:
            read = self.log.read(step.pointer.execution_id, types=["step.scheduled"])
            known = {(entry.event.key, entry.event.attempt) for entry in read}
            if (step.pointer.key, step.pointer.attempt) not in known:
                self.unwritten.append(step.pointer)


def test_02_nothing_is_published_before_it_is_committed(bench: Bench) -> None:  # noqa: F811
    watching = Watching()
    watching.log, watching.unwritten = bench.ports.events, []
    ports = replace(bench.ports, dispatcher=watching)
    watched = replace(
        bench,
        ports=ports,
        dispatcher=watching,
        control=control(ports, load({}, eager=False).settings),
    )
    watched.settle(watched.start(FORK))
    assert len(watching.sent) == 4
    assert watching.unwritten == []


# ---------------------------------------------------------------------- 3, 23: time alone kills nothing
def beating(bench: Bench, seconds: float) -> None:  # noqa: F811 (the fixture's value)
    """Time passes in which w1 beats and the sweeper sweeps."""
    for _ in range(int(seconds / 10)):
        bench.now[0] += 10
        bench.control.presence.beat(Beat(name="w1", kind="worker_pool", capacity=1))
        bench.control.sweeper.sweep()


def test_03_a_step_may_take_an_hour_and_runs_once(bench: Bench) -> None:  # noqa: F811
    execution_id, pointer = begun(bench, ONE)
    assert bench.claim(pointer).granted
    sent = len(bench.dispatcher.sent)
    beating(bench, 3_600)
    assert len(bench.dispatcher.sent) == sent
    assert bench.report(pointer, {}).accepted
    bench.settle(execution_id)
    assert bench.types(execution_id).count("step.scheduled") == 1


def test_23_a_parent_waits_for_its_child_as_long_as_that_takes(bench: Bench) -> None:  # noqa: F811
    bench.register(ONE, "child")
    parent = bench.start(CALLS)
    bench.advance(parent)
    (child,) = bench.children(parent)
    (pointer,) = bench.advance(child)
    assert bench.claim(pointer).granted
    beating(bench, 3_600)
    bench.advance(parent)
    assert bench.children(parent) == [child], "there is no second one"
    assert (status(bench, parent), status(bench, child)) == ("RUNNING", "RUNNING")
    bench.report(pointer, {})
    bench.settle(child)
    bench.settle(parent)
    assert status(bench, parent) == "COMPLETED"


def test_23_age_alone_ends_nothing(bench: Bench) -> None:  # noqa: F811
    """Nobody claims it for a month: it is sent again, and still there."""
    execution_id, pointer = begun(bench, ONE)
    for _ in range(30):
        bench.now[0] += 86_400
        bench.control.sweeper.sweep()
        bench.advance(execution_id)
    assert status(bench, execution_id) == "RUNNING"
    bench.work(pointer)
    bench.settle(execution_id)
    assert status(bench, execution_id) == "COMPLETED"


# ---------------------------------------------------------------------- 5: loops
def test_05_an_iteration_counts_once_however_often_it_is_told(bench: Bench) -> None:  # noqa: F811
    execution_id = bench.start(EACH)
    pointers = bench.advance(execution_id)
    for pointer in pointers:
        bench.work(pointer, {"n": pointer.iteration})
        assert bench.report(pointer, {"n": pointer.iteration}).duplicate
        assert not bench.report(pointer, {"n": "zombie"}, worker="w2").accepted
        bench.advance(execution_id)
    (done,) = [entry.event for entry in bench.log(execution_id) if entry.event.type == "loop.done"]
    assert (done.total, done.success, done.failed) == (3, 3, 0)  # type: ignore[union-attr]  # a loop.done
    results = bench.control.executions.result(execution_id, "each")["results"]
    assert results == [{"n": 0}, {"n": 1}, {"n": 2}]


# ---------------------------------------------------------------------- 7: what events carry
def test_07_what_is_scheduled_is_small_whatever_it_reads(bench: Bench) -> None:  # noqa: F811
    workflow = """
workload: {text: ""}
workflow:
- {step: start, tool: {kind: noop, message: "{{ text }}"}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop, message: "{{ start }} {{ text }}"}}
"""
    large = "x" * 1_000_000
    execution_id = bench.start(workflow, {"text": large})
    bench.settle(execution_id, {"text": large})
    scheduled = [
        entry.event for entry in bench.log(execution_id) if isinstance(entry.event, StepScheduled)
    ]
    assert [len(orjson.dumps(event)) < 500 for event in scheduled] == [True, True]


# ---------------------------------------------------------------------- 6, 12: many orchestrators
@pytest.fixture
def on_postgres(bench: Bench, database: str) -> Iterable[Bench]:  # noqa: F811
    opened = Database(database, pool_size=8)
    ports = replace(bench.ports, events=PostgresLog(opened), catalog=PostgresCatalog(opened))
    yield replace(bench, ports=ports, control=control(ports, load({}, eager=False).settings))
    opened.close()


class Crowd:
    """Several orchestrators, each with a cache of its own, woken at once."""

    def __init__(self, bench: Bench, size: int) -> None:  # noqa: F811 (the fixture's value)
        settings = load({}, eager=False).settings
        self.planes = [control(bench.ports, settings) for _ in range(size)]
        self.errors: list[Exception] = []

    def advance(self, execution_id: int) -> Self:
        barrier = threading.Barrier(len(self.planes))
        threads = [
            threading.Thread(target=self._one, args=(plane, execution_id, barrier))
            for plane in self.planes
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self

    def _one(self, plane: Control, execution_id: int, barrier: threading.Barrier) -> None:
        barrier.wait(10)
        try:
            plane.advance.advance(execution_id)
        except Exception as exc:  # noqa: BLE001 (looked at by the test)
            self.errors.append(exc)


def test_12_orchestrators_that_meet_decide_everything_once(on_postgres: Bench) -> None:
    """Also the join, whose two branches are reported before anybody looks."""
    bench = on_postgres  # noqa: F811
    crowd = Crowd(bench, 6)
    execution_id = bench.start(FORK)
    while bench.control.executions.get(execution_id).status == "RUNNING":
        before = len(bench.dispatcher.sent)
        crowd.advance(execution_id)
        for sent in bench.dispatcher.sent[before:]:
            bench.work(sent.pointer)
    assert crowd.errors == []
    assert bench.types(execution_id).count("step.scheduled") == 4
    assert [sent.pointer.step for sent in bench.dispatcher.sent] == ["start", "a", "b", "join"]
    assert bench.control.inspection.verify(execution_id).findings == []


def test_06_a_stale_memory_of_an_execution_decides_nothing_twice(bench: Bench) -> None:  # noqa: F811
    """Two orchestrators take turns; each has seen only what was there when it looked."""
    one, other = Crowd(bench, 2).planes
    execution_id = bench.start(FORK)
    one.advance.advance(execution_id)
    other.advance.advance(execution_id)
    bench.work(bench.dispatcher.sent[0].pointer)
    other.advance.advance(execution_id)
    for sent in bench.dispatcher.sent[1:]:
        bench.work(sent.pointer)
    one.advance.advance(execution_id)  # it still is where the first step was out
    other.advance.advance(execution_id)
    assert bench.types(execution_id).count("step.scheduled") == 4


# ---------------------------------------------------------------------- 15: versions
def test_15_an_execution_goes_on_with_the_version_it_began_with(bench: Bench) -> None:  # noqa: F811
    first = bench.start(TWO)
    pointers = bench.advance(first)
    bench.register(ONE.replace("start", "another"))
    second = bench.control.executions.start("t").execution_id
    for pointer in pointers:
        bench.work(pointer)
    bench.settle(first)
    bench.settle(second)
    assert [step.name for step in bench.control.executions.status(first).steps] == ["start", "end"]
    assert [step.name for step in bench.control.executions.status(second).steps] == ["another"]
    versions = [bench.control.executions.get(each).version for each in (first, second)]
    assert versions == [1, 2]


# ---------------------------------------------------------------------- 17: names
@pytest.mark.parametrize("names", [("load_next_facility", "patient_count"), ("end", "batch")])
def test_17_the_names_of_steps_mean_nothing_to_the_engine(names: tuple[str, str]) -> None:
    workflow = """
workload: {turns: 3}
workflow:
- {step: start, set: {ctx.n: 0}, next: {arcs: [{step: FIRST}]}}
- step: FIRST
  loop: {in: "{{ [n, n] }}", iterator: i, spec: {mode: parallel}}
  tool: {kind: noop, message: "{{ i }}"}
  set: {ctx.n: "{{ n + 1 }}"}
  next: {arcs: [{step: SECOND}]}
- {step: SECOND, next: {arcs: [{step: FIRST, when: "{{ n < turns }}"}, {step: last}]}}
- {step: last, tool: {kind: noop, message: "{{ FIRST.results }}"}}
"""

    def order(first: str, second: str) -> list[str]:
        text = workflow.replace("FIRST", first).replace("SECOND", second)
        told = Run(playbook_of(text)).begin().finish().log
        renamed = {first: "FIRST", second: "SECOND"}
        return [
            f"{event.type} {renamed.get(name, name)}"
            for event in told
            for name in [str(getattr(event, "step", ""))]
        ]

    assert order(*names) == order("plain", "other")


# ---------------------------------------------------------------------- 18: cancelling
def test_18_cancelling_wins_over_what_was_reported_and_not_decided(bench: Bench) -> None:  # noqa: F811
    execution_id, pointer = begun(bench, ONE)
    bench.work(pointer)
    bench.control.executions.cancel(execution_id)
    bench.settle(execution_id)
    assert bench.types(execution_id)[-1] == "execution.cancelled"
    assert status(bench, execution_id) == "CANCELLED"


def test_18_cancelling_too_late_says_so(bench: Bench) -> None:  # noqa: F811
    execution_id, pointer = begun(bench, ONE)
    bench.work(pointer)
    bench.settle(execution_id)
    with pytest.raises(ConflictError, match="ended already"):
        bench.control.executions.cancel(execution_id)
    assert status(bench, execution_id) == "COMPLETED"


def test_18_cancelling_that_could_not_be_written_is_no_success(
    bench: Bench,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    execution_id, _ = begun(bench, ONE)

    def away(*_: object, **__: object) -> None:
        raise UnavailableError("the database is away")

    with monkeypatch.context() as outage:
        outage.setattr(bench.ports.events, "transaction", away)
        with pytest.raises(UnavailableError):
            bench.control.executions.cancel(execution_id)
    assert status(bench, execution_id) == "RUNNING"


# ---------------------------------------------------------------------- 20: pools
@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"CALLBOARD_QUEUES": ","}, "would serve no queue"),
        ({"CALLBOARD_QUEUES": "cpu, gpu"}, "there is no queue 'gpu'"),
        ({"CALLBOARD_POOL": "big.one"}, "'big.one' is not the name of a pool"),
        ({"CALLBOARD_POOL": "two words"}, "'two words' is not the name of a pool"),
    ],
)
def test_20_a_worker_that_nothing_could_reach_does_not_start(
    environment: dict[str, str], message: str
) -> None:
    with pytest.raises(StartupError, match=message) as error:
        pool_queues(load(environment).settings)
    assert "CALLBOARD_" in (error.value.remedy or "")


# ---------------------------------------------------------------------- 21: the database's own opinion
def test_21_the_log_takes_every_shape_that_is_json(database: str) -> None:
    """What a result may be is decided where it is made, never by a constraint on its row."""
    with psycopg.connect(database) as connection:
        checks = connection.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid = 'noetl.event'::regclass "
            "AND contype = 'c' AND pg_get_constraintdef(oid) NOT LIKE '%IS NOT NULL%'"
        ).fetchall()
    assert checks == []
    assert "payload" in Row._fields
