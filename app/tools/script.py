"""``script``: runs a program that is kept outside the playbook, in python, sh, bash or another.

A python program runs as in the ``python`` tool, with all its names. Others find their inputs as
``INPUT_<NAME>``, and give data back in the file that ``CALLBOARD_RESULT`` names or as JSON on the
last line they print. Settings of a Kubernetes job are taken and have no effect: it runs here.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import PurePosixPath
from typing import Any

import orjson
from pydantic import Field

from app.errors import ToolError
from app.tools import Context, Tool, python
from app.tools.child import frames, jail
from app.tools.child.run import Ended, child_job, exit_error, parse
from app.tools.child.run import run as run_child
from app.tools.shell import shared_folder
from app.tools.sources import place_of
from app.tools.surroundings import input_variables

PYTHON = "python"
RESULT = "result.json"
_BY_SUFFIX = {".py": PYTHON, ".sh": "sh", ".bash": "bash"}


class Input(python.Input):
    """Where the program is (``script: {uri, source}``), what runs it, and its ``input``."""

    interpreter: str | None = Field(
        None,
        description="`python`, `sh`, `bash` or a command; else its first line or its name says.",
    )
    job: Any = Field(None, description="Taken for compatibility; has no effect.")


def run(request: Input, context: Context) -> dict[str, Any]:
    """``{exit_code, stdout, stderr, data}`` where it succeeds."""
    code = request.program(context)
    argv = _argv(request, code)
    if argv == [PYTHON]:
        ended = python.played(request, context, code)
        return _result(ended, parse(ended) if ended.tag == frames.RESULT else None)
    with shared_folder(None) as folder:
        assert folder is not None
        held = os.open(folder, os.O_DIRECTORY)
        try:
            ended = _run(request, context, {"argv": argv, "program": code, "folder": folder})
            data = _data(held, ended, context.settings.result_bytes)
        finally:
            os.close(held)
    if ended.exit_code != 0:
        raise exit_error(ended, "the script", data=_result(ended, data))
    return _result(ended, data)


def _argv(request: Input, code: str) -> list[str]:
    """The command that runs the program; ``[python]`` for one that runs as the tool's do."""
    if request.interpreter:
        argv = shlex.split(request.interpreter)
    elif code.startswith("#!"):
        argv = shlex.split(code.partition("\n")[0][2:])
        if argv and PurePosixPath(argv[0]).name == "env":
            argv = [word for word in argv[1:] if word != "-S"]
    else:
        suffix = PurePosixPath(_place(request).partition("?")[0]).suffix
        argv = [_BY_SUFFIX[suffix]] if suffix in _BY_SUFFIX else []
    if not argv:
        raise ToolError(
            "nothing says what runs the script; give interpreter (python, sh, bash or a command), "
            "or begin it with #!",
            kind="schema",
        )
    name = PurePosixPath(argv[0]).name
    return [PYTHON] if len(argv) == 1 and name in {PYTHON, "python3"} else argv


def _place(request: Input) -> str:
    given = request.script if request.script is not None else request.source
    return "" if given is None or isinstance(given, str) else place_of(given)


def _run(request: Input, context: Context, what: dict[str, Any]) -> Ended:
    keys = request.keys(context)
    where = request.where(context)
    folder = jail.SHARED if where.jailed else what["folder"]
    job = child_job(
        context,
        "shell",
        **what,
        cwd=request.cwd,
        files=keys.files,
        env={
            "CALLBOARD_IDEMPOTENCY_KEY": context.idempotency_key,
            "CALLBOARD_RESULT": f"{folder}/{RESULT}",
            **input_variables(request.input),
            **keys.variables(),
            **keys.env,
            **request.env,
        },
    )
    return run_child(job, context, timeout=request.seconds(context), where=where)


def _data(folder: int, ended: Ended, limit: int) -> Any:
    """What the program gave back: the JSON in its file, else on its last line, else None."""
    try:
        # The program may have put anything there: a link to another's file, a pipe nobody feeds.
        fd = os.open(RESULT, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return _last_line(ended.stdout)
    except OSError as exc:
        raise ToolError(f"the script's result cannot be read: {exc}", kind="schema") from exc
    with os.fdopen(fd, "rb") as file:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
            raise ToolError("the script's result is no file of its own", kind="schema")
        text = file.read(limit + 1)
    if len(text) > limit:
        raise ToolError(
            f"the script's result has more than the {limit} bytes allowed; return where it is, or "
            "raise CALLBOARD_RESULT_BYTES",
            kind="resource",
        )
    try:
        return orjson.loads(text)
    except ValueError as exc:
        raise ToolError(f"the script's result is not JSON: {exc}", kind="schema") from exc


def _last_line(stdout: str) -> Any:
    line = stdout.rstrip().rpartition("\n")[2]
    try:
        return orjson.loads(line)
    except ValueError:
        return None


def _result(ended: Ended, data: Any) -> dict[str, Any]:
    code, stdout, stderr = ended.exit_code, ended.stdout, ended.stderr
    return {"exit_code": code, "stdout": stdout, "stderr": stderr, "data": data}


tool = Tool(
    "script",
    input=Input,
    run=run,
    queue="cpu",
    verbatim=frozenset({"code", "code_b64", "code_base64", "source"}),
    needs=(("code", "code_b64", "script", "source"),),
    program="code",
)
