"""``shell``: runs the playbook's shell programs, one after the other, until one fails.

Each runs in a child isolated as that of a python step, all in one private folder (or ``cwd``), with
PATH, locale and the variables of ``env`` as the whole environment. stdin is empty.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from app.tools import Context, Tool
from app.tools.child.run import Ended, child_job, exit_error
from app.tools.child.run import run as run_child
from app.tools.sources import EnvInput, as_texts, seconds
from app.tools.times import Time

DEFAULT_TIMEOUT = 600.0
PREVIEW = 200


class Input(BaseModel):
    """``cmds`` (a program or a list), with ``cmd`` and ``command`` as other names."""

    model_config = ConfigDict(populate_by_name=True)

    cmds: list[str] = Field(
        validation_alias=AliasChoices("cmds", "cmd", "command"),
        min_length=1,
        description="The program, or several that run until one fails.",
    )
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables.")
    cwd: str | None = Field(None, description="The folder they run in; else one of their own.")
    shell: str = Field("/bin/sh", description="The shell that runs them.")
    timeout: Time = Field(
        DEFAULT_TIMEOUT,
        validation_alias=AliasChoices("timeout", "timeout_seconds"),
        description="How long they may take together: seconds, or text such as `30s`.",
    )

    _env_texts = field_validator("env", mode="before", json_schema_input_type=EnvInput)(as_texts)

    @field_validator("cmds", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("shell", mode="before", json_schema_input_type=str | bool | None)
    @classmethod
    def _default_shell(cls, value: Any) -> Any:
        return "/bin/sh" if isinstance(value, bool) or value is None else value


def run(request: Input, context: Context) -> dict[str, Any]:
    """``{returncode, stdout, stderr, text, duration_ms, commands: [...]}`` where all succeed."""
    started = time.monotonic()
    deadline = started + seconds(request.timeout, most=context.timeout)
    done: list[dict[str, Any]] = []
    with _folder(request) as folder:
        for program in request.cmds:
            begin = time.monotonic()
            job = _job(request, context, program, folder)
            ended = run_child(
                job,
                context,
                timeout=max(deadline - begin, 0.001),
                folder=None if request.cwd else Path(folder),
            )
            done.append(_entry(program, ended, begin))
            if ended.exit_code != 0:
                raise exit_error(ended, f"command {len(done)}", data=_result(done, started))
    return _result(done, started)


@contextlib.contextmanager
def _folder(request: Input) -> Iterator[str]:
    """The folder the programs share: ``cwd``, or one that only lives as long as they do."""
    if request.cwd:
        yield request.cwd
        return
    folder = tempfile.mkdtemp(prefix="callboard-shell-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _job(request: Input, context: Context, program: str, folder: str) -> dict[str, Any]:
    env = {"CALLBOARD_IDEMPOTENCY_KEY": context.idempotency_key, "HOME": folder, **request.env}
    argv = [request.shell, "-c", program]
    return child_job(context, "shell", argv=argv, cwd=folder, env=env)


def _entry(program: str, ended: Ended, begin: float) -> dict[str, Any]:
    return {
        "cmd_preview": program[:PREVIEW],
        "returncode": ended.exit_code,
        "stdout": ended.stdout,
        "stderr": ended.stderr,
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
