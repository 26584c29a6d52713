"""``python``: runs the playbook's own code in a fresh child process.

The result is, in this order: what a top-level ``return`` returns; the global ``result`` where it is
not None; what ``main`` returns (sync or async, called with the inputs its parameters name); else
``{stdout, stderr}``. Whole numbers of more than 64 bits become floats.

What the child is kept from: the worker's memory and environment, more memory than
``CALLBOARD_PYTHON_MEMORY``, more time than the step has, outliving the step. Where the worker is
root and the interpreter is readable to all, also the worker's files (a user of its own per step).
Not from the network, and as the worker's own user not from that user's files and processes.
"""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from app.errors import ToolError
from app.tools import Context, Tool
from app.tools.child import frames
from app.tools.child.run import child_job, exit_error, parse
from app.tools.child.run import run as run_child
from app.tools.sources import EnvInput, Script, Source, as_texts, decoded, seconds, text_of
from app.tools.times import Time


class Input(BaseModel):
    """One of ``code``, ``code_b64``, ``script`` or ``source``, and its ``input``.

    ``libs`` maps names to modules (``{pd: pandas}`` or ``{name: {from: module, import: attr}}``).
    """

    model_config = ConfigDict(populate_by_name=True)

    code: str | None = Field(None, description="The program.")
    code_b64: str | None = Field(
        None,
        validation_alias=AliasChoices("code_b64", "code_base64"),
        description="The program in base64.",
    )
    script: Script | str | None = Field(
        None, description="The program as text, or the file that holds it."
    )
    source: Source | None = Field(None, description="Where the program is.")
    input: dict[str, Any] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("input", "args"),
        description="Variables of the program.",
    )
    libs: dict[str, str | dict[str, str]] = Field(
        default_factory=dict, description="Modules to import, by the name they get."
    )
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables.")
    timeout: Time | None = Field(
        None,
        validation_alias=AliasChoices("timeout", "timeout_seconds"),
        description="How long it may take: seconds, or text such as `30s`.",
    )

    _env_texts = field_validator("env", mode="before", json_schema_input_type=EnvInput)(as_texts)

    @field_validator("input", mode="before", json_schema_input_type=dict[str, Any] | None)
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator(
        "libs",
        mode="before",
        json_schema_input_type=dict[str, str | dict[str, str]] | list[str] | None,
    )
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value or {}
        if not all(isinstance(name, str) for name in value):
            raise ValueError("a mapping, or a list of names of modules")
        return {name: name for name in value}

    def program(self) -> str:
        """The code to run. Raises ``ToolError`` (kind schema) where there is none."""
        if self.script:
            return self.script if isinstance(self.script, str) else text_of(self.script)
        if self.code_b64:
            return decoded(self.code_b64, "code_b64")
        if self.source:
            return text_of(self.source)
        if self.code and self.code.strip():
            return self.code
        raise ToolError("there is no program; give code, code_b64, script or source", kind="schema")


def run(request: Input, context: Context) -> Any:
    """Run the program and return its result."""
    job = child_job(
        context,
        "python",
        code=request.program(),
        input=request.input,
        variables=dict(context.variables),
        libs=request.libs,
        step=context.step,
        execution_id=str(context.execution_id),
        idempotency_key=context.idempotency_key,
        env=request.env,
    )
    ended = run_child(job, context, timeout=seconds(request.timeout, most=context.timeout))
    if ended.tag == frames.RESULT:
        return parse(ended)
    if ended.tag == frames.NOTHING:
        return {"stdout": ended.stdout, "stderr": ended.stderr}
    raise exit_error(ended, "the python program")


tool = Tool(
    "python",
    input=Input,
    run=run,
    queue="cpu",
    verbatim=frozenset({"code", "code_b64", "code_base64", "source"}),
    needs=(("code", "code_b64", "script", "source"),),
)
