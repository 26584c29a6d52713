"""Variables that programs outside keep with an execution."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from app.wire.base import Wire

#: A moment in the distant future, so that every clock can hold it.
LONGEST = 3_153_600_000.0


class SetVariables(Wire):
    """Variables by name. They stay with the execution, or for ``ttl_seconds``."""

    variables: dict[str, Any]
    var_type: Literal["user_defined", "step_result", "computed", "iterator_state"] = "user_defined"
    source_step: str | None = Field(None, max_length=200)
    ttl_seconds: float | None = Field(None, gt=0, le=LONGEST)


class VariablesSet(Wire):
    """Ids of executions are numbers here, as programs of NoETL's users expect."""

    execution_id: int
    variables_set: int
    var_names: list[str]


class VariableRow(Wire):
    """A variable with how often, and when last, it was read by its name."""

    value: Any
    type: str
    source_step: str | None
    created_at: datetime
    accessed_at: datetime | None
    access_count: int
    expires_at: datetime | None


class VariableAnswer(VariableRow):
    execution_id: int
    name: str


class VariableList(Wire):
    execution_id: int
    variables: dict[str, VariableRow]
    count: int


class VariableDeleted(Wire):
    execution_id: int
    name: str
    deleted: bool


class VariablesDeleted(Wire):
    execution_id: int
    deleted_count: int
