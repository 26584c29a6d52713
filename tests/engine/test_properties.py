"""What holds for every playbook and every order in which things happen to it.

``PROPERTY_EXAMPLES`` says how many examples are tried (10,000 for a thorough run, which takes some
minutes); the default suits a run of all tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st

from app.engine.events import LoopDone, StepFailed, StepScheduled, StepSkipped
from app.engine.state import NEW, evolve
from tests.engine.audit import NO_ARC, Audit
from tests.engine.driver import playbook_of
from tests.engine.generated import Shape, Tape, workflow
from tests.engine.world import World

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "300"))
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
THOROUGH = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SLOW)
HALF = settings(THOROUGH, max_examples=max(1, EXAMPLES // 4))

PLAYBOOKS = st.binary(min_size=60, max_size=180)
FATES = st.binary(min_size=1, max_size=32)
ORDERS = st.binary(min_size=30, max_size=120)


@pytest.mark.timeout(max(120, EXAMPLES // 10))
@given(PLAYBOOKS, FATES, ORDERS, st.sampled_from([None, None, None, 4.0, 12.0]))
@THOROUGH
def test_every_execution_ends_and_its_log_is_sound(
    playbook: bytes, fates: bytes, order: bytes, deadline: float | None
) -> None:
    text = workflow(Tape(playbook))
    world = World(playbook_of(text), fates, deadline)
    with told(text, world):
        world.begin().play(Tape(order))
        Audit(world.playbook).check(world.log)
        assert_replay(world)
        assert world.left_behind() == []
        assert world.decision(world.values) == []
    event(world.state.status)


@contextmanager
def told(text: str, *worlds: World) -> Iterator[None]:
    """Show the playbook and the logs of an example that fails."""
    try:
        yield
    except BaseException:
        note(text)
        for world in worlds:
            note("\n".join(f"{seq} {event}" for seq, event in enumerate(world.log, 1)))
        raise


def assert_replay(world: World) -> None:
    """The fold of what was stored is, at every prefix, the state that was decided on."""
    state = NEW
    for seq, stored in enumerate(world.stored, 1):
        state = evolve(state, stored, seq)
        assert state == world.states[seq]


@pytest.mark.timeout(max(120, EXAMPLES // 10))
@given(PLAYBOOKS, FATES, ORDERS, ORDERS, st.booleans())
@HALF
def test_the_order_of_things_does_not_change_what_comes_out(
    playbook: bytes, fates: bytes, one: bytes, other: bytes, cycles: bool
) -> None:
    """Where nothing depends on the order: without cycles, or with one branch at a time."""
    shape = Shape(cycles=cycles, branches=not cycles, timed=False, limits=False)
    text = workflow(Tape(playbook), shape)
    parsed = playbook_of(text)
    worlds = [World(parsed, fates, steady=True) for _ in range(2)]
    with told(text, *worlds):
        for world, order in zip(worlds, (one, other), strict=True):
            world.begin().play(Tape(order))
        assert worlds[0].state.status == worlds[1].state.status
        if worlds[0].state.status == "completed":
            assert outcome(worlds[0]) == outcome(worlds[1])


def outcome(world: World) -> Any:
    """Which steps ran, how each of their visits ended, and the counts of loops."""
    ran = {
        event.key
        for event in world.log
        if isinstance(event, StepScheduled) and not event.key.is_claim
    }
    failed = {event.key for event in world.log if isinstance(event, StepFailed)}
    counts = {
        event.key: (event.total, event.success, event.failed)
        for event in world.log
        if isinstance(event, LoopDone)
    }
    declined = {
        event.key
        for event in world.log
        if isinstance(event, StepSkipped) and event.reason != NO_ARC
    }
    return ran, failed, counts, declined
