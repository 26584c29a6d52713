"""A message for several iterations: each is claimed, run and reported as if it had come alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from app.actors.steps import Runner
from app.engine.events import AttemptInterrupted, StepDone, StepFailed, StepScheduled
from app.engine.ports import Pointer
from app.errors import UnavailableError
from app.services.desk import Desk
from app.settings import load
from app.tools import Context
from app.tools.python import tool as python
from app.wire import Exchange, ExchangeAnswer, PointerWire
from app.wiring import ToolKinds
from tests.services.conftest import Bench, bench, make_bench  # noqa: F401 (fixtures)

COUNT = 12
LOOP = (
    "workflow: [{step: each, loop: {in: '{{ range(%d) }}', iterator: i, spec: {mode: parallel}},"
    " tool: {kind: python, input: {n: '{{ i }}'}, code: '%s'}}]"
)
PID = "import os; result = [n, os.getpid()]"


@dataclass(frozen=True, slots=True)
class Watched(Desk):
    """The control plane in this process, which remembers what it was asked."""

    requests: list[Exchange] = field(default_factory=list)
    #: As a server would be that knows nothing of chunks.
    is_older: bool = False

    def exchange(self, request: Exchange) -> ExchangeAnswer:
        self.requests.append(request)
        known = request.model_copy(update={"released": []}) if self.is_older else request
        return Desk.exchange(self, known)


def runner_of(desk: Desk, name: str = "w1") -> Runner:
    return Runner(desk, load({}).settings, ToolKinds(), {}, name=name)


def begun(bench: Bench, code: str = PID) -> tuple[int, Pointer]:  # noqa: F811
    execution_id = bench.start(LOOP % (COUNT, code))
    return execution_id, bench.advance(execution_id)[0]


def events(bench: Bench, execution_id: int, kind: type) -> list[Any]:  # noqa: F811
    return [e.event for e in bench.log(execution_id) if isinstance(e.event, kind)]


def test_each_is_a_unit_of_work_of_its_own(bench: Bench) -> None:  # noqa: F811
    execution_id, first = begun(bench)
    desk = Watched(bench.control)
    runner = runner_of(desk)
    runner.run(first, COUNT)
    done = events(bench, execution_id, StepDone)
    assert [event.iteration for event in done] == list(range(COUNT))
    assert [event.result[0] for event in done] == list(range(COUNT))
    assert len({event.result[1] for event in done}) <= 2  # the first went alone, to find the pace
    assert runner.running() == []
    assert runner.activity()["reports"] == COUNT
    # One for the first, then they are claimed and reported many at a time.
    assert len(desk.requests) < COUNT
    bench.advance(execution_id)
    assert bench.types(execution_id)[-1] == "execution.completed"


def test_one_that_fails_is_one_that_fails(bench: Bench) -> None:  # noqa: F811
    execution_id, first = begun(bench, "result = 1 / (n - 3)")
    runner_of(Watched(bench.control)).run(first, COUNT)
    assert [event.iteration for event in events(bench, execution_id, StepFailed)] == [3]
    assert len(events(bench, execution_id, StepDone)) == COUNT - 1


def test_those_that_others_have_are_left_to_them(bench: Bench) -> None:  # noqa: F811
    execution_id, first = begun(bench)
    taken = [first._replace(iteration=place) for place in (0, 5, COUNT - 1)]
    for pointer in taken:
        assert bench.claim(pointer, worker="another").granted
    runner_of(Watched(bench.control)).run(first, COUNT)
    done = [event.iteration for event in events(bench, execution_id, StepDone)]
    assert done == [place for place in range(COUNT) if place not in {0, 5, COUNT - 1}]


def test_a_message_that_comes_again_does_nothing(bench: Bench) -> None:  # noqa: F811
    execution_id, first = begun(bench)
    runner = runner_of(Watched(bench.control))
    runner.run(first, COUNT)
    before = bench.types(execution_id)
    runner.run(first, COUNT)
    assert bench.types(execution_id) == before


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the seconds that a chunk may take: plenty, so that a busy machine changes nothing."""

    def be(seconds: float) -> None:
        monkeypatch.setattr("app.actors.chunks.SLICE", seconds)

    be(60.0)
    return be


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[threading.Event, threading.Event]]:
    """Has one iteration stand still until it is let on: (it stands, it may go on)."""

    def shut(place: int) -> tuple[threading.Event, threading.Event]:
        stands, goes = threading.Event(), threading.Event()
        really = python.run

        def run(request: Any, context: Context) -> Any:
            if context.iteration == place:
                stands.set()
                assert goes.wait(30)
            return really(request, context)

        monkeypatch.setattr("app.actors.sequence.load_tool", lambda _: replace(python, run=run))
        return stands, goes

    return shut


@pytest.mark.parametrize("slow", [0, 4])
def test_what_waits_behind_a_slow_one_goes_to_others(
    bench: Bench,  # noqa: F811
    gate: Callable[..., tuple[threading.Event, threading.Event]],
    patience: Callable[[float], None],
    slow: int,
) -> None:
    execution_id, first = begun(bench)
    stands, goes = gate(slow)
    desk, line = Watched(bench.control), threading.Event()
    runner = runner_of(desk)
    thread = threading.Thread(target=runner.run, args=(first, COUNT))
    thread.start()
    assert stands.wait(30)
    patience(0.01)

    def others() -> set[int]:
        """The iterations that were given back: sent again, or interrupted."""
        told = {each.iteration for request in desk.requests for each in request.released}
        given = {event.iteration for event in events(bench, execution_id, AttemptInterrupted)}
        return told | given

    while others() != set(range(slow + 1, COUNT)):
        assert not line.wait(0.002)
    sent = [dispatch for dispatch in bench.dispatcher.sent if dispatch.pace is not None]
    assert {dispatch.pointer.iteration for dispatch in sent} <= others()
    # What has run before it is reported meanwhile.
    while len(events(bench, execution_id, StepDone)) < slow:
        assert not line.wait(0.002)
    goes.set()
    thread.join()
    done = {event.iteration for event in events(bench, execution_id, StepDone)}
    assert done == set(range(slow + 1))
    # The others do what is left.
    bench.advance(execution_id)
    left = {
        event.iteration: event.attempt
        for event in events(bench, execution_id, StepScheduled)
        if event.iteration > slow
    }
    other = runner_of(Watched(bench.control), "w2")
    for place, attempt in left.items():
        other.run(first._replace(iteration=place, attempt=attempt))
    bench.advance(execution_id)
    assert bench.types(execution_id)[-1] == "execution.completed"
    assert len(events(bench, execution_id, StepDone)) == COUNT


def test_a_cancelled_execution_stops_the_rest(
    bench: Bench,  # noqa: F811
    gate: Callable[..., tuple[threading.Event, threading.Event]],
) -> None:
    execution_id, first = begun(bench)
    stands, goes = gate(2)
    runner = runner_of(Watched(bench.control))
    thread = threading.Thread(target=runner.run, args=(first, COUNT))
    thread.start()
    assert stands.wait(30)
    bench.control.executions.cancel(execution_id)
    runner.fence(runner.running())
    goes.set()
    thread.join()
    assert runner.running() == []
    assert len(events(bench, execution_id, StepDone)) <= 2


def test_a_worker_that_stops_finishes_what_it_claimed_and_gives_the_message_back(
    bench: Bench,  # noqa: F811
    gate: Callable[..., tuple[threading.Event, threading.Event]],
) -> None:
    execution_id, first = begun(bench)
    stands, goes = gate(0)
    desk = Watched(bench.control, is_older=True)
    runner = runner_of(desk)
    said: list[BaseException] = []

    def work() -> None:
        try:
            runner.run(first, COUNT)
        except UnavailableError as exc:
            said.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    assert stands.wait(30)
    runner.begin_shutdown()
    goes.set()
    thread.join()
    assert [event.iteration for event in events(bench, execution_id, StepDone)] == [0]
    assert len(events(bench, execution_id, AttemptInterrupted)) == 0
    assert runner.running() == []
    assert bool(said) is not any(request.released for request in desk.requests)


def test_only_what_nobody_has_is_sent_again(bench: Bench) -> None:  # noqa: F811
    execution_id, first = begun(bench)
    bench.work(first)
    claimed, free = first._replace(iteration=1), first._replace(iteration=2)
    assert bench.claim(claimed).granted
    older, unknown = free._replace(attempt=2), free._replace(iteration=COUNT)
    before = len(bench.dispatcher.sent)
    wires = [PointerWire(**each._asdict()) for each in (first, claimed, free, older, unknown)]
    bench.control.work.exchange(Exchange(worker="w1", released=wires))
    assert [each.pointer for each in bench.dispatcher.sent[before:]] == [free]
    bench.dispatcher.down = True  # then the sweeper finds it
    bench.control.work.exchange(Exchange(worker="w1", released=wires))
    bench.control.executions.cancel(execution_id)
