"""The unique keys U1 to U9 of the log, and the errors with which both stores refuse a write."""

from __future__ import annotations

from app.engine.events import EXECUTION_ENDS, STEP_ENDS
from app.engine.ports import DuplicateEventError
from app.store.rows import Row

MEANING = {
    "U1": "an event with this seq exists already",
    "U2": "an event with this idempotency key exists already",
    "U3": "this attempt was scheduled already",
    "U4": "this step has ended already",
    "U5": "the execution has ended already",
    "U6": "the execution was started already",
    "U7": "this attempt was claimed already",
    "U8": "the sub-playbook of this attempt was started, or told of, already",
    "U9": "an execution was started under this key already",
}


def duplicate(key: str, execution_id: int) -> DuplicateEventError:
    """The error for an event of *execution_id* that broke unique key *key*."""
    return DuplicateEventError(key, f"execution {execution_id}: {MEANING[key]} [{key}]")


def not_locked(execution_id: int) -> ValueError:
    """The error for writing to an execution that the transaction was not opened for."""
    return ValueError(
        f"execution {execution_id} is not locked; name it when opening the transaction"
    )


def keys_of(row: Row) -> list[tuple[object, ...]]:
    """The unique keys that *row* takes, each led by its name; in the order Postgres checks them."""
    at = (row.step, row.visit, row.iteration)
    keys: list[tuple[object, ...]] = []
    if row.idempotency_key is not None:
        keys.append(("U2", row.idempotency_key))
    if row.type == "step.scheduled":
        keys.append(("U3", *at, row.attempt))
    if row.type in STEP_ENDS:
        keys.append(("U4", *at))
    if row.type in EXECUTION_ENDS:
        keys.append(("U5",))
    if row.type == "execution.started":
        keys.append(("U6",))
    if row.type == "step.started":
        keys.append(("U7", *at, row.attempt))
    if row.type in {"child.started", "child.ended"}:
        keys.append(("U8", *at, row.attempt, row.type))
    if (start := start_key_of(row)) is not None:
        keys.append(("U9", start))
    return keys


def start_key_of(row: Row) -> str | None:
    """The key under which *row* starts an execution: U9, the only one that spans executions."""
    return row.idempotency_key if row.type == "execution.started" else None
