"""``python``: runs the playbook's own code in a child process: a fresh one, or one in which the same
step ran before and left nothing behind (``CALLBOARD_PYTHON_WARM``).

The result is, in this order: what a top-level ``return`` returns; the global ``result`` where it is
not None; what ``main`` returns (sync or async, called with the inputs its parameters name); else
``{stdout, stderr}``. Whole numbers of more than 64 bits become floats.

What the child is kept from: the worker's memory and environment, more memory than
``CALLBOARD_PYTHON_MEMORY``, more time than the step has, outliving the step. Where the worker is
root and the interpreter is readable to all, also the worker's files (a user of its own per step).
Not from the network, and as the worker's own user not from that user's files and processes; the
profile ``jail`` keeps it from these, too.
"""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, Field, field_validator

from app.errors import ToolError
from app.tools import Context, Tool
from app.tools.child import frames
from app.tools.child.keys import NO_KEYS
from app.tools.child.run import Ended, child_job, exit_error, parse
from app.tools.child.run import run as run_child
from app.tools.places import Source
from app.tools.sources import Script, decoded, text_of
from app.tools.surroundings import Deps, Given, Surroundings, deps_of


class Input(Surroundings, Given):
    """One of ``code``, ``code_b64``, ``script`` or ``source``, and its ``input``.

    ``libs`` maps names to modules (``{pd: pandas}`` or ``{name: {from: module, import: attr}}``).
    Credentials of ``auth`` are in the variable of that name; those of AWS, Google and Postgres also
    where their libraries look for them.
    """

    code: str | None = Field(None, description="The program.")
    code_b64: str | None = Field(
        None,
        validation_alias=AliasChoices("code_b64", "code_base64"),
        description="The program in base64.",
    )
    script: Script | str | None = Field(
        None, description="The program as text, or the place that holds it."
    )
    source: Source | None = Field(None, description="Where the program is.")
    libs: dict[str, str | dict[str, str]] = Field(
        default_factory=dict, description="Modules to import, by the name they get."
    )
    deps: Deps | None = Field(None, description="Folders and packages it needs.")
    python: str | None = Field(None, description="Another interpreter than the worker's.")

    _deps = field_validator("deps", mode="before", json_schema_input_type=Deps | list[str] | None)(
        deps_of
    )

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

    def program(self, context: Context) -> str:
        """The code to run. Raises ``ToolError``, of kind schema where there is none."""
        if self.script:
            return self.script if isinstance(self.script, str) else text_of(self.script, context)
        if self.code_b64:
            return decoded(self.code_b64, "code_b64")
        if self.source:
            return text_of(self.source, context)
        if self.code and self.code.strip():
            return self.code
        raise ToolError("there is no program; give code, code_b64, script or source", kind="schema")


def run(request: Input, context: Context) -> Any:
    """Run the program and return its result."""
    ended = played(request, context, request.program(context))
    return result_of(ended)


def played(request: Input, context: Context, code: str) -> Ended:
    """How the child ended that ran *code*. Raises ``ToolError`` where it gave no result."""
    keys, where = request.keys(context), request.where(context, request.python)
    plain = keys is NO_KEYS and not (request.env or request.cwd or request.deps or where.jailed)
    job = child_job(
        context,
        "python",
        # The next run may have the process that nothing was brought into.
        more=context.lodge is not None and context.lodge.is_open and plain,
        code=code,
        input=request.input,
        variables=dict(context.variables),
        libs=request.libs,
        deps=request.deps.model_dump() if request.deps else {},
        step=context.step,
        execution_id=str(context.execution_id),
        idempotency_key=context.idempotency_key,
        cwd=request.cwd,
        env={**keys.env, **request.env},
        files=keys.files,
        auth=keys.auth,
        named=keys.named,
    )
    ended = run_child(job, context, timeout=request.seconds(context), where=where)
    if ended.tag not in {frames.RESULT, frames.NOTHING}:
        raise exit_error(ended, "the python program")
    return ended


def result_of(ended: Ended) -> Any:
    """The result the program gave; what it printed where it gave none."""
    if ended.tag == frames.RESULT:
        return parse(ended)
    return {"stdout": ended.stdout, "stderr": ended.stderr}


tool = Tool(
    "python",
    input=Input,
    run=run,
    queue="cpu",
    verbatim=frozenset({"code", "code_b64", "code_base64", "source"}),
    needs=(("code", "code_b64", "script", "source"),),
    program="code",
)
