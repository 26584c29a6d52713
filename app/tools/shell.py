"""``shell``: runs the playbook's shell programs, one after the other, until one fails.

Each runs in a child isolated as that of a python step, all in one private folder (or ``cwd``), with
PATH, locale, ``KUBERNETES_SERVICE_*`` and the variables of ``env`` as the whole environment; inputs
are there as ``INPUT_<NAME>``, the fields of credentials as ``AUTH_<FIELD>``. stdin is empty.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, field_validator

from app.tools import Context, Tool
from app.tools.child.run import Ended, child_job, exit_error
from app.tools.child.run import run as run_child
from app.tools.surroundings import Given, Surroundings, input_variables

DEFAULT_TIMEOUT = 600.0
PREVIEW = 200


class Input(Surroundings, Given):
    """``cmds`` (a program or a list), with ``cmd`` and ``command`` as other names."""

    cmds: list[str] = Field(
        validation_alias=AliasChoices("cmds", "cmd", "command"),
        min_length=1,
        description="The program, or several that run until one fails.",
    )
    shell: str = Field("/bin/sh", description="The shell that runs them, with its options.")
    capture: bool = Field(True, description="Whether the result holds what they print.")

    @field_validator("cmds", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("shell", mode="before", json_schema_input_type=str | bool | None)
    @classmethod
    def _default_shell(cls, value: Any) -> Any:
        return "/bin/sh" if isinstance(value, bool) or not value else value


def run(request: Input, context: Context) -> dict[str, Any]:
    """``{returncode, stdout, stderr, text, duration_ms, commands: [...]}`` where all succeed."""
    started = time.monotonic()
    seconds = request.seconds(context) if request.timeout else min(DEFAULT_TIMEOUT, context.timeout)
    deadline = started + seconds
    done: list[dict[str, Any]] = []
    with shared_folder(request.cwd) as folder:
        job = _job(request, context, folder)
        where = request.where(context)
        for program in request.cmds:
            begin = time.monotonic()
            left = max(deadline - begin, 0.001)
            ended = run_child({**job, "program": program}, context, timeout=left, where=where)
            done.append(_entry(program, ended, begin, kept=request.capture))
            if ended.exit_code != 0:
                raise exit_error(ended, f"command {len(done)}", data=_result(done, started))
    return _result(done, started)


@contextlib.contextmanager
def shared_folder(cwd: str | None) -> Iterator[str | None]:
    """A folder that programs share and that lives as long as they do; None where they have *cwd*."""
    if cwd:
        yield None
        return
    outer = Path(tempfile.mkdtemp(prefix="callboard-shell-"))
    try:
        # The inner one will be the program's own; in the outer one it cannot be replaced.
        outer.chmod(0o711)
        folder = outer / "work"
        folder.mkdir(mode=0o700)
        yield str(folder)
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def _job(request: Input, context: Context, folder: str | None) -> dict[str, Any]:
    keys = request.keys(context)
    return child_job(
        context,
        "shell",
        argv=shlex.split(request.shell),
        cwd=request.cwd,
        folder=folder,
        files=keys.files,
        env={
            "CALLBOARD_IDEMPOTENCY_KEY": context.idempotency_key,
            **input_variables(request.input),
            **keys.variables(),
            **keys.env,
            **request.env,
        },
    )


def _entry(program: str, ended: Ended, begin: float, *, kept: bool) -> dict[str, Any]:
    return {
        "cmd_preview": program[:PREVIEW],
        "returncode": ended.exit_code,
        "stdout": ended.stdout if kept else "",
        "stderr": ended.stderr if kept else "",
        "duration_ms": _since(begin),
    }


def _result(done: list[dict[str, Any]], started: float) -> dict[str, Any]:
    stdout = "".join(entry["stdout"] for entry in done)
    return {
        "returncode": done[-1]["returncode"],
        "stdout": stdout,
        "stderr": "".join(entry["stderr"] for entry in done),
        "text": stdout,
        "commands": done,
        "duration_ms": _since(started),
    }


def _since(begin: float) -> float:
    return round((time.monotonic() - begin) * 1000, 3)


tool = Tool("shell", input=Input, run=run, queue="cpu", text=frozenset({"cmds", "cmd", "command"}))
