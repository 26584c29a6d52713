"""Memory and Postgres answer any sequence of operations alike."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.engine.events import (
    TYPES,
    AttemptExpired,
    AttemptFailed,
    CtxUpdated,
    Event,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    LoopDone,
    StepCancelled,
    StepDone,
    StepFailed,
    StepKey,
    StepScheduled,
    StepSkipped,
    StepStarted,
)
from app.engine.ports import Draft, DuplicateEventError, EventLog, ExecutionFilter
from app.store.database import Database
from app.store.events import PostgresLog
from app.store.memory import MemoryLog
from app.store.rows import STATUS

IDS = (1, 2)
KEYS = [StepKey(step, 1, iteration) for step in ("a", "b") for iteration in (-1, 0)]

steps = st.sampled_from(["a", "b"])
iterations = st.sampled_from([-1, 0])
attempts = st.integers(1, 2)
errors = st.sampled_from([{"message": "m"}, {"kind": "x"}])
workers = st.sampled_from(["v", "w"])
visit = st.just(1)
json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(steps, inner, max_size=2),
    max_leaves=4,
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(ExecutionStarted, st.just(7), steps, st.just(1), st.dictionaries(steps, json)),
    st.builds(StepScheduled, steps, visit, iterations, attempts, steps, steps, st.just({"w": 1})),
    st.builds(StepStarted, steps, visit, iterations, attempts, workers),
    st.builds(StepDone, steps, visit, iterations, attempts, json, worker=workers),
    st.builds(StepFailed, steps, visit, iterations, attempts, errors),
    st.builds(AttemptFailed, steps, visit, iterations, attempts, errors, st.just(1.5)),
    st.builds(AttemptExpired, steps, visit, iterations, attempts),
    st.builds(StepSkipped, steps, visit),
    st.builds(StepCancelled, steps, visit, iterations),
    st.builds(LoopDone, steps, visit, st.just(1), st.just(1), st.just(0)),
    st.builds(CtxUpdated, steps, visit, st.dictionaries(steps, json)),
    st.builds(ExecutionCompleted),
    st.builds(ExecutionFailed, errors),
)
drafts = st.builds(Draft, events, st.none() | st.sampled_from(["k1", "k2", "k3"]))
#: A transaction: what it appends to which execution, and whether it ends well.
transactions = st.tuples(
    st.lists(st.tuples(st.sampled_from(IDS), st.lists(drafts, min_size=1, max_size=3)), max_size=3),
    st.booleans(),
)


class Stop(Exception):  # noqa: N818 (a signal, not an error)
    """Ends a transaction badly on purpose."""


def run(log: EventLog, writes: list[tuple[int, list[Draft]]], *, ends_well: bool) -> Any:
    """What one transaction saw and how it ended."""
    seen: list[Any] = []
    try:
        with log.transaction(IDS) as tx:
            for execution_id, batch in writes:
                written = tx.append(execution_id, batch)
                states = tx.attempts([(i, key) for i in IDS for key in KEYS])
                shown = [(entry.seq, entry.event) for entry in written]
                seen.append((shown, tx.last_seq(execution_id), tx.ended(IDS), states))
            if not ends_well:
                raise Stop
    except DuplicateEventError as exc:
        seen.append((exc.key, str(exc)))
    except Stop:
        seen.append("stopped")
    return seen


def shown(log: EventLog) -> Any:
    """Everything that can be asked without a lock; times apart, they differ."""
    entries = [[(e.seq, e.event) for e in log.read(i)] for i in IDS]
    summaries = [
        row._replace(started_at=None, ended_at=row.ended_at is None)  # type: ignore[arg-type]  # times are blanked out
        for row in log.executions(ExecutionFilter())
    ]
    loops = [[entry.event for entry in log.iterations(i, "a", 1)] for i in IDS]
    outstanding = (sorted(log.unclaimed(older_than=0)), sorted(log.abandoned(lease=0)))
    return entries, summaries, loops, outstanding, log.count_by_status(), log.open_executions()


BEGUN = ExecutionStarted(7, "a", 1, {})


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(history=st.lists(transactions, min_size=1, max_size=6))
@example(history=[([(1, [Draft(BEGUN, "k1")]), (2, [Draft(BEGUN, "k1")])], False)])
def test_memory_and_postgres_agree(pool: Database, history: list[Any]) -> None:
    with pool.raw() as connection:
        connection.execute("ALTER TABLE noetl.event DISABLE TRIGGER USER")
        connection.execute("TRUNCATE noetl.event, noetl.execution")
    memory, postgres = MemoryLog(), PostgresLog(pool)
    for writes, ends_well in history:
        expected = run(memory, writes, ends_well=ends_well)
        assert run(postgres, writes, ends_well=ends_well) == expected
        assert shown(postgres) == shown(memory)


def test_every_type_of_event_has_a_status() -> None:
    assert set(STATUS) == set(TYPES)
