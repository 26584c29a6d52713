"""Variables of executions: set, read, counted, expired, and apart from what the engine keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.engine.events import ExecutionStarted
from app.engine.ports import Draft
from app.engine.variables import Variable, VariableDraft, VariableStore
from app.store.memory import MemoryLog
from app.store.memory_variables import MemoryVariables
from app.store.variables import PostgresVariables
from tests.contracts.conftest import Store

PAST = datetime(2020, 1, 1, tzinfo=UTC)
KEPT = "result/load/1/-1/0123456789abcdef"


@pytest.fixture
def variables(store: Store, request: pytest.FixtureRequest) -> VariableStore:
    if isinstance(store.log, MemoryLog):
        return MemoryVariables()
    return PostgresVariables(request.getfixturevalue("shared_database"))


def one(variables: VariableStore, name: str = "a") -> Variable:
    (found,) = [row for row in variables.rows(1) if row.name == name]
    return found


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1.5, 1e300, "", "zażółć 🎉", [], [1, [None]], {}, {"a": {"b": [1, "x"]}}],
)
def test_a_value_comes_back_as_it_went_in(variables: VariableStore, value: Any) -> None:
    variables.put(1, [VariableDraft("a", value, "computed", "load")])
    found = one(variables)
    assert (found.value, type(found.value)) == (value, type(value))
    assert (found.type, found.source_step, found.expires_at) == ("computed", "load", None)


def test_only_reading_by_name_counts(variables: VariableStore) -> None:
    variables.put(1, [VariableDraft("a", 1)])
    variables.rows(1)
    assert (one(variables).access_count, one(variables).accessed_at) == (0, None)
    variables.read(1, "a")
    read = variables.read(1, "a")
    assert read is not None
    assert read == one(variables)
    assert read.access_count == 2
    assert read.accessed_at is not None
    assert read.accessed_at >= read.created_at


def test_setting_again_keeps_age_and_counts(variables: VariableStore) -> None:
    variables.put(1, [VariableDraft("a", 1, "computed", "load")])
    before = variables.read(1, "a")
    assert before is not None
    variables.put(1, [VariableDraft("a", 2), VariableDraft("b", 3)])
    after = one(variables)
    assert (after.value, after.type, after.source_step) == (2, "user_defined", None)
    assert (after.created_at, after.access_count) == (before.created_at, 1)
    assert [row.name for row in variables.rows(1)] == ["a", "b"]


def test_an_expired_one_is_gone_until_it_is_set_again(variables: VariableStore) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    variables.put(
        1, [VariableDraft("a", 1, expires_at=PAST), VariableDraft("b", 2, expires_at=later)]
    )
    assert [(row.name, row.expires_at) for row in variables.rows(1)] == [("b", later)]
    assert variables.read(1, "a") is None
    assert variables.delete(1, "a") == 0
    variables.put(1, [VariableDraft("a", 3)])
    assert one(variables).value == 3


def test_each_execution_has_its_own(variables: VariableStore) -> None:
    variables.put(1, [VariableDraft("a", 1)])
    variables.put(2, [VariableDraft("a", 2)])
    assert variables.delete(1) == 1
    assert variables.rows(1) == []
    found = variables.read(2, "a")
    assert found is not None
    assert found.value == 2


def test_deleting_says_how_many_were_there(variables: VariableStore) -> None:
    variables.put(1, [VariableDraft(name, 1) for name in ("a", "b", "c")])
    assert variables.delete(1, "b") == 1
    assert variables.delete(1, "b") == 0
    assert variables.delete(1) == 2
    assert variables.delete(1) == 0


def test_what_the_engine_keeps_is_neither_seen_nor_touched(
    store: Store, variables: VariableStore
) -> None:
    with store.log.transaction([1]) as tx:
        tx.append(1, [Draft(ExecutionStarted(7, "p", 1, {}))])
        tx.store_value(1, KEPT, {"rows": [1]}, source_step="load")
    variables.put(1, [VariableDraft("a", 1)])
    assert [row.name for row in variables.rows(1)] == ["a"]
    assert variables.read(1, KEPT) is None
    assert variables.delete(1, KEPT) == 0
    assert variables.delete(1) == 1
    variables.put(1, [VariableDraft(KEPT, "forged")])
    assert store.log.values(1, [KEPT]) == {KEPT: {"rows": [1]}}
