"""``playbook``: starts another registered playbook, and waits for its end where it is asked to.

Without ``return_step``, ``return_result`` or ``wait`` the result is there at once:
``{status: started, execution_id, path, async: true}``. Otherwise it is what the child's step
returned, over ``{status, completed, failed, execution_id, path}``; a child that does not end within
``timeout`` gives ``status: timeout`` and goes on. A waiting step holds no worker. The child's failure
is the step's only with ``on_failure: fail``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from app.engine.children import call_of
from app.errors import ToolError
from app.tools import Context, Parked, Tool
from app.tools.times import Time


class Input(BaseModel):
    """The playbook by ``path`` (and ``version``) or by ``catalog_id``, and what it is started with."""

    model_config = ConfigDict(populate_by_name=True)

    path: str | None = Field(None, description="catalog path of the playbook")
    catalog_id: int | str | None = Field(None, description="one version of it, by its id")
    version: int | str | None = Field(None, description="a version; the newest by default")
    args: dict[str, Any] | None = Field(None, description="older name of input")
    input: dict[str, Any] | None = Field(None, description="overrides workload keys of the child")
    workload: dict[str, Any] | None = Field(None, description="the same; wins over input")
    payload: dict[str, Any] | None = Field(None, description="the same; wins over workload")
    return_step: str | None = Field(
        None,
        validation_alias=AliasChoices("return_step", "result_step"),
        description="wait, and return the result of this step of the child",
    )
    return_result: bool = Field(False, description="wait, and return the child's last result")
    wait: bool = Field(False, description="the same")
    timeout: Time | None = Field(
        None,
        validation_alias=AliasChoices("timeout", "timeout_seconds"),
        description="how long to wait, in seconds or as '5m'; for ever by default",
    )
    on_failure: Literal["continue", "fail"] = Field(
        "continue", description="whether the child's failure fails the step"
    )


def run(request: Input, _: Context) -> Any:
    """Let go of the step until the orchestrator has started the child, and heard of its end."""
    try:
        call = call_of(request.model_dump())
    except ValueError as exc:
        raise ToolError(str(exc), kind="schema") from exc
    raise Parked(call)


tool = Tool("playbook", input=Input, run=run, needs=(("path", "catalog_id"),), own_names=True)
