"""What holds for every playbook and every order of completions."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.engine.decide import Limits
from app.engine.events import (
    EXECUTION_ENDS,
    STEP_ENDS,
    Entry,
    LoopStarted,
    StepScheduled,
)
from app.engine.playbook import Playbook
from app.engine.state import NEW, evolve, replay
from tests.engine.driver import Failed, Lost, Run, playbook_of

TURNS = 3


@st.composite
def workflows(draw: st.DrawFn) -> str:
    """Random graphs: forward arcs anywhere, back arcs that end after some turns, loops, joins."""
    count = draw(st.integers(1, 7))
    steps = []
    for number in range(count):
        arcs = []
        for target in draw(st.lists(st.integers(0, count), max_size=3)):
            name = "end" if target == count else f"s{target}"
            when = draw(
                st.sampled_from(["true", "true", "false", "output.flag", "output.turn < 2"])
            )
            if target <= number:
                when = f"output.turn < {TURNS}"  # a back edge, or a self-loop
            if draw(st.integers(0, 5)) == 0:
                when = "output.status == 'error'"
            arcs.append(f'{{step: {name}, when: "{{{{ {when} }}}}"}}')
        mode = draw(st.sampled_from(["exclusive", "inclusive"]))
        loop = ""
        if draw(st.integers(0, 3)) == 0:
            size = draw(st.integers(0, 4))
            window = draw(st.integers(1, 3))
            kind = draw(st.sampled_from(["sequential", "parallel"]))
            spec = f"{{mode: {kind}, max_in_flight: {window}}}"
            loop = f", loop: {{in: '{{{{ {size} }}}}', iterator: i, spec: {spec}}}"
        put = ", set: {ctx.last: '{{ output.turn }}'}" if draw(st.booleans()) else ""
        steps.append(
            f"- {{step: s{number}, tool: {{kind: noop}}{loop}{put}, "
            f"next: {{spec: {{mode: {mode}}}, arcs: [{', '.join(arcs)}]}}}}"
        )
    return "workflow:\n" + "\n".join(steps)


def outcomes_of(draw: st.DrawFn) -> Any:
    fates = draw(
        st.lists(st.sampled_from(["ok", "ok", "ok", "ok", "fail", "lost"]), min_size=1, max_size=20)
    )
    flags = draw(st.lists(st.booleans(), min_size=1, max_size=5))
    calls = Counter[str]()

    def outcome(scheduled: StepScheduled) -> Any:
        calls["all"] += 1
        fate = fates[calls["all"] % len(fates)]
        if fate == "fail":
            return Failed("planned")
        if fate == "lost":
            return Lost()
        return {"turn": scheduled.visit, "flag": flags[calls["all"] % len(flags)]}

    return outcome


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """A whole execution, its completions in an order drawn at random, several at a time."""
    playbook = playbook_of(draw(workflows()))
    begun = Run(playbook, outcomes_of(draw), limits=Limits(max_visits=20, max_attempts=3)).begin()
    for _ in range(2_000):
        if not begun.state.is_running or not begun.out:
            break
        for _ in range(draw(st.integers(1, 3))):
            if begun.out:
                begun.complete(begun.out[draw(st.integers(0, len(begun.out) - 1))])
        begun.decide()
    return begun


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


@given(runs())
@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
def test_every_execution_ends_and_its_log_is_sound(done: Run) -> None:
    assert not done.state.is_running, "nothing runs, nothing is scheduled, and there is no end"
    types = [event.type for event in done.log]
    assert sum(kind in EXECUTION_ENDS for kind in types) == 1
    assert types[-1] in EXECUTION_ENDS
    assert_unique_keys(done)
    assert_order(done.playbook, done)
    assert done.decide() == []


@given(runs())
@settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
def test_the_incremental_fold_equals_the_replay_of_every_prefix(done: Run) -> None:
    entries = [Entry(1, seq, event) for seq, event in enumerate(done.log, 1)]
    state = NEW
    for entry in entries:
        state = evolve(state, entry.event, entry.seq)
    assert state == replay(entries) == done.state
    middle = len(entries) // 2
    assert replay(entries[middle:], replay(entries[:middle])) == state


@given(runs())
@settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
def test_deciding_is_a_function_of_the_log(done: Run) -> None:
    """Replaying any prefix after which the engine decided leads to the same next decision."""
    again = Run(done.playbook, limits=done.limits)
    for seq, event in enumerate(done.log):
        decided = event.type not in {
            "step.done",
            "step.failed",
            "attempt.expired",
            "execution.started",
        }
        # step.failed may also be decided (a refused entry); only what is surely outside news stops here
        if decided and again.log and again.log[-1].type in {"step.done", "execution.started"}:
            expected = done.log[seq : seq + 1]
            assert again.decision()[:1] == expected
        again.append(event)


def assert_unique_keys(done: Run) -> None:
    scheduled = Counter((event.key, event.attempt) for event in done.of(StepScheduled))
    assert max(scheduled.values(), default=1) == 1, "U3"
    ends = Counter(event.key for event in done.log if event.type in STEP_ENDS)  # type: ignore[union-attr]
    assert max(ends.values(), default=1) == 1, "U4"


def assert_order(playbook: Playbook, done: Run) -> None:
    """No step is scheduled before the completion that led to it, and none by an arc that is not there."""
    ended: set[tuple[str, int]] = set()
    for event in done.log:
        if event.type in STEP_ENDS:
            key = event.key  # type: ignore[union-attr]
            if key.iteration < 0:
                ended.add((key.step, key.visit))
        if isinstance(event, StepScheduled | LoopStarted) and event.source is not None:
            assert (event.source, event.source_visit) in ended
            assert event.step in {arc.step for arc in playbook.steps[event.source].arcs}
