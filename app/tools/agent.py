"""``agent``: calls an agent and tells how that went, whatever happens; the step does not fail.

The agent is an attribute of a module (``entrypoint: module:attribute``), called in a child that is
isolated as that of a python step; or with ``framework: noetl`` another playbook, which holds no
worker while it runs. The envelope is the same: ``{status: ok | error, framework, entrypoint, data,
execution_id, duration, error}``, ``duration`` in seconds, ``error`` null or ``{kind, code, message,
diagnosis, retryable}``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from app.engine.children import Call
from app.errors import ToolError
from app.tools import Context, Parked, Tool
from app.tools.child import frames
from app.tools.child.run import child_job, exit_error, parse
from app.tools.child.run import run as run_child
from app.tools.surroundings import Deps, Surroundings, deps_of

#: What the result of a sub-playbook has beside what its last step gave.
_STATUS_FIELDS = ("status", "execution_id", "path", "completed", "failed", "error")
_MODES = {
    "function": "call", "callable": "call", "object": "instance", "builder": "factory",
    "default": "auto", "": "auto", None: "auto",
}  # fmt: skip


class Input(Surroundings):
    """The agent by ``entrypoint``, and what it is called with."""

    framework: Literal["custom", "noetl", "adk", "langchain"] | None = Field(
        None, description="What kind of agent it is; by default what the entrypoint looks like."
    )
    entrypoint: str = Field(
        min_length=1, description="`module:attribute`, or the catalog path of a playbook."
    )
    entrypoint_mode: Literal["auto", "call", "class", "factory", "instance"] = Field(
        "auto", description="What the attribute is; by default found out by looking."
    )
    payload: dict[str, Any] = Field(
        default_factory=dict, description="What the agent is given; `input` is another name."
    )
    invoke_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Further arguments of the call, by name."
    )
    on_failure: dict[str, Any] | None = Field(
        None, description="Kept with the error as it is (`troubleshoot`), for who looks into it."
    )
    deps: Deps | None = Field(None, description="Folders and packages it needs.")
    python: str | None = Field(None, description="Another interpreter than the worker's.")

    _deps = field_validator("deps", mode="before", json_schema_input_type=Deps | list[str] | None)(
        deps_of
    )

    @model_validator(mode="before")
    @classmethod
    def _with_input(cls, values: Any) -> Any:
        """A step's own input comes under ``input``, whatever the tool calls it."""
        given = values.get("input", values.get("args")) if isinstance(values, Mapping) else None
        payload = values.get("payload") or {} if given else None
        if not isinstance(given, Mapping) or not isinstance(payload, Mapping):
            return values
        return {**values, "payload": {**payload, **given}}

    @field_validator(
        "payload", "invoke_kwargs", mode="before", json_schema_input_type=dict[str, Any] | None
    )
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("entrypoint_mode", mode="before", json_schema_input_type=str | None)
    @classmethod
    def _word(cls, value: Any) -> Any:
        return _MODES.get(value, value) if value is None or isinstance(value, str) else value

    @property
    def path(self) -> str:
        """The entrypoint as a path of the catalog."""
        return self.entrypoint.strip().removeprefix("catalog://")

    @property
    def kind(self) -> str:
        return self.framework or ("custom" if ":" in self.path else "noetl")


def run(request: Input, context: Context) -> dict[str, Any]:
    """Call the agent; the envelope."""
    if request.kind == "noetl":
        raise Parked(_call(request))
    started = time.monotonic()
    data, error = None, None
    try:
        data = _called(request, context)
    except ToolError as exc:
        if exc.kind == "cancelled":
            raise  # nobody waits for an envelope any more
        error = exc
    place = {"execution_id": str(context.execution_id), "duration": time.monotonic() - started}
    return _envelope(request, data, error, place)


def resumed(request: Input, result: Any, error: ToolError | None, seconds: float) -> dict[str, Any]:
    """The envelope of an agent that is a playbook, once that has ended."""
    told = result if isinstance(result, Mapping) else {}
    ended = told.get("failed") is True or told.get("status") == "timeout"
    if error is None and ended:
        error = _failure(request, told)
    place = {"execution_id": told.get("execution_id"), "duration": seconds}
    return _envelope(request, None if error else _given(told), error, place)


def _failure(request: Input, told: Mapping[str, Any]) -> ToolError:
    late = told.get("status") == "timeout"
    why = told.get("error") or told.get("status")
    inner = why if isinstance(why, Mapping) else {}
    return ToolError(
        f"the playbook {request.entrypoint} ({told.get('execution_id')}) did not complete: "
        f"{inner.get('message', why)}",
        kind="timeout" if late else "playbook",
        retryable=late,
        error_code=inner.get("code"),
        details={"py": inner["py"]} if isinstance(inner.get("py"), Mapping) else {},
    )


def _call(request: Input) -> Call:
    return Call(
        path=request.path,
        payload={**request.payload, **request.invoke_kwargs},
        waits=True,
        timeout=request.timeout,
    )


def _given(told: Mapping[str, Any]) -> Any:
    """What the last step of the playbook gave, without the status fields around it."""
    given = {name: item for name, item in told.items() if name not in _STATUS_FIELDS}
    return given["data"] if given.keys() == {"data"} else given


def _called(request: Input, context: Context) -> Any:
    keys = request.keys(context)
    job = child_job(
        context,
        "agent",
        framework=request.kind,
        entrypoint=request.entrypoint,
        mode=request.entrypoint_mode,
        payload=request.payload,
        invoke=request.invoke_kwargs,
        step=context.step,
        deps=request.deps.model_dump() if request.deps else {},
        cwd=request.cwd,
        env={**keys.env, **request.env},
        files=keys.files,
    )
    where = request.where(context, request.python)
    ended = run_child(job, context, timeout=request.seconds(context), where=where)
    if ended.tag != frames.RESULT:
        raise exit_error(ended, "the agent")
    return parse(ended)


def _envelope(
    request: Input, data: Any, error: ToolError | None, place: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "status": "error" if error else "ok",
        "framework": request.kind,
        "entrypoint": request.entrypoint,
        "data": data,
        "execution_id": place["execution_id"],
        "duration": round(place["duration"], 6),
        "error": _told(request, error) if error else None,
    }


def _told(request: Input, error: ToolError) -> dict[str, Any]:
    py = error.details.get("py") or {}
    noted = {"on_failure": request.on_failure} if request.on_failure else {}
    return {
        "kind": error.kind,
        "code": error.error_code or error.kind,
        "message": str(error),
        "diagnosis": py.get("traceback") or str(error),
        "retryable": error.retryable,
        **noted,
    }


tool = Tool("agent", input=Input, run=run, queue="cpu", resumed=resumed)
