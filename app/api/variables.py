"""Variables that programs outside keep with an execution: ``/api/vars``."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.api.bodies import Body, answer, parse, takes
from app.api.dependencies import ControlDep, ExecutionId
from app.engine.variables import Variable
from app.services.variables import About
from app.wire import (
    SetVariables,
    VariableAnswer,
    VariableDeleted,
    VariableList,
    VariableRow,
    VariablesDeleted,
    VariablesSet,
)

router = APIRouter(prefix="/api/vars", tags=["variables"])


@router.get("/{execution_id}", response_model=VariableList)
def variables(execution_id: ExecutionId, control: ControlDep) -> Response:
    """All of them; looking at the list does not count as reading them."""
    rows = {row.name: _row(row) for row in control.variables.rows(execution_id)}
    return answer(VariableList(execution_id=execution_id, variables=rows, count=len(rows)))


@router.post("/{execution_id}", openapi_extra=takes(SetVariables), response_model=VariablesSet)
def set_variables(execution_id: ExecutionId, body: Body, control: ControlDep) -> Response:
    """Set all that are given, or none. No step sees them: the playbook's own names are others."""
    given = parse(SetVariables, body)
    about = About(given.var_type, given.source_step, given.ttl_seconds)
    names = list(control.variables.put(execution_id, given.variables, about))
    return answer(
        VariablesSet(execution_id=execution_id, variables_set=len(names), var_names=names)
    )


@router.delete("/{execution_id}", response_model=VariablesDeleted)
def clear(execution_id: ExecutionId, control: ControlDep) -> Response:
    """Forget all of them."""
    count = control.variables.clear(execution_id)
    return answer(VariablesDeleted(execution_id=execution_id, deleted_count=count))


@router.get("/{execution_id}/{name}", response_model=VariableAnswer)
def variable(execution_id: ExecutionId, name: str, control: ControlDep) -> Response:
    """One of them; ``accessed_at`` and ``access_count`` tell of this reading too."""
    row = _row(control.variables.read(execution_id, name))
    return answer(VariableAnswer(execution_id=execution_id, name=name, **row.__dict__))


@router.delete("/{execution_id}/{name}", response_model=VariableDeleted)
def delete(execution_id: ExecutionId, name: str, control: ControlDep) -> Response:
    """Forget one of them."""
    control.variables.delete(execution_id, name)
    return answer(VariableDeleted(execution_id=execution_id, name=name, deleted=True))


def _row(variable: Variable) -> VariableRow:
    return VariableRow(
        value=variable.value,
        type=variable.type,
        source_step=variable.source_step,
        created_at=variable.created_at,
        accessed_at=variable.accessed_at,
        access_count=variable.access_count,
        expires_at=variable.expires_at,
    )
