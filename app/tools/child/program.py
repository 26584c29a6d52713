"""The user's program in the child: its names, its run, its result, and what it did wrong."""

from __future__ import annotations

import ast
import atexit
import contextlib
import functools
import importlib
import inspect
import json
import linecache
import os
import sys
import threading
import traceback
import types
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from app.tools.child import agents, compiling, encode, frames, leftovers, names
from app.tools.child.compiling import BODY
from app.tools.child.isolate import JOB_FD

#: The value of a program that gave no result.
SILENT = object()
_OURS = f"{os.path.dirname(__file__)}{os.sep}"  # noqa: PTH120 (a text to compare with)
_IMPORTS = importlib.__file__
MAX_MESSAGE, MAX_TRACEBACK = 4_096, 32_768
#: The names of the program that runs, or ran last.
_spaces: list[dict[str, Any]] = []


def play(job: Mapping[str, Any]) -> None:
    """Run the program of *job*, answer on the job's descriptor, and end this process.

    Returns where the job may have successors (``more``) and its program left nothing behind.
    """
    filename = f"<step {job['step']}>"
    code = 0
    try:
        born = _as_born() if job["more"] else None
        value = agents.value(job) if job["kind"] == "agent" else _value(job, filename)
        reply = frames.NOTHING, b""
        if value is not SILENT:
            reply = frames.RESULT, encode.encode(value, job["result_bytes"])
        del value
        if born is not None and _goes_on(born, reply):
            return
        _wind_down()
        with contextlib.suppress(OSError):  # the program closed it; its exit code 0 tells
            frames.write(JOB_FD, reply)
    except SystemExit as exc:
        # Reached by sys.exit() in an exit handler; one in the program itself is in _value.
        code = _exit_code(exc)
    except (agents.Unfit, encode.Refused) as exc:
        answer_error(exc.kind, str(exc))
        code = 1
    except MemoryError:
        answer_error("resource", _out_of_memory(job))
        code = 1
    except BaseException as exc:  # noqa: BLE001 (whatever the program raises is its outcome)
        _answer_exception(exc, filename)
        code = 1
    _flush()
    os._exit(code)


@functools.cache
def _as_born() -> leftovers.Born:
    """What this process was like before its first program."""
    return leftovers.born()


def _goes_on(born: leftovers.Born, reply: tuple[bytes, bytes]) -> bool:
    """Answer, and say that another job may come; False where the program left traces."""
    _flush()
    if not leftovers.may_be_forgotten(born):
        return False
    # What it made goes with its names, and may have last words, or leave something as it goes.
    leftovers.forget(_spaces.pop() if _spaces else {})
    _flush()
    if not leftovers.is_clean(born):
        return False
    frames.write(JOB_FD, reply, (frames.NEXT, b""))
    return True


def warm_up() -> None:
    """Touch what every program needs, while nobody waits: after a fork each first write to a page
    costs a copy, and those copies were the larger half of a short step's time."""
    for code in _WARM_UPS:
        job = json.loads(_WARM_UP) | {"code": code}
        encode.encode(_value(job, "<step>"), 1024)
    linecache.cache.pop("<step>", None)
    _flush()


#: A program with a ``main``, and one with a top-level ``return``, which is compiled otherwise.
_WARM_UPS = (
    "def main(a):\n    b = [n for n in a]\n    return {'b': b}",
    "import time\nb = [n for n in a]\nreturn {'b': b}",
)
_WARM_UP = json.dumps(
    {
        "more": False,
        "input": {"a": "[1]"},
        "variables": {},
        "libs": {},
        "step": "",
        "execution_id": "",
        "idempotency_key": "",
        "auth": None,
        "named": {},
    }
)


def answer_error(kind: str, message: str, **more: Any) -> None:
    """Tell the worker why there is no result."""
    error = {"kind": kind, "message": _readable(message[:MAX_MESSAGE]), **more}
    payload = encode.dumps(error).encode()
    # Before the answer: after it nobody listens any more.
    _flush()
    with contextlib.suppress(OSError):  # the program closed it; its exit code tells
        frames.write(JOB_FD, (frames.ERROR, payload))


def _value(job: Mapping[str, Any], filename: str) -> Any:
    source = job["code"]
    # None as modification time: the traceback module shall not look for a file.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    program, gives, defines_main = compiling.compiled(source, filename, again=job["more"])
    # With a main() the engine calls, a closing `if __name__ == "__main__": main()` would be one
    # call too many; without one it is the program's own way to start.
    space = _namespace(job, "step" if defines_main else "__main__", filename)
    given = space.get("result")  # an input of that name is no result
    try:
        exec(program, space)  # noqa: S102 (this is the tool's purpose; the process is the fence)
        value = space[BODY]() if gives == BODY else space.pop(gives, ...)
        if value is not ...:
            return value
        result = space.get("result")
        if result is not None and result is not given:
            return result
        main = space.get("main")
        return _call(main, job, space) if callable(main) and not gives else SILENT
    except SystemExit as exc:
        code = _exit_code(exc)
        if code:
            _wind_down()
            os._exit(code)
    # sys.exit() and sys.exit(0) end a program well.
    result = space.get("result")
    return SILENT if result is None or result is given else result


def _namespace(job: Mapping[str, Any], name: str, filename: str) -> dict[str, Any]:
    """The globals of the program: a real module's, so that functions, classes and pickles work."""
    inputs = {name: _literal(value) for name, value in job["input"].items()}
    module = types.ModuleType(name)
    sys.modules["__main__"] = sys.modules["step"] = module
    variables = job["variables"]
    space = module.__dict__
    _spaces[:] = [space]
    space["__file__"] = filename
    space.update(names.OFFERED)
    space.update(
        os=os,
        json=json,
        datetime=names.Datetime(),
        uuid=uuid,
        args=inputs,
        input_data=dict(inputs),
        variables=variables,
        execution_id=job["execution_id"],
        step=job["step"],
        idempotency_key=job["idempotency_key"],
        data=inputs,
    )
    if job["auth"] is not None:
        space["auth"] = job["auth"]
    if "noetl.worker" in job["code"]:
        sys.modules.update(names.secrets_modules(job["named"]))
    space["context"] = {
        **variables,
        "execution_id": job["execution_id"],
        "step": job["step"],
        "input": inputs,
        "data": inputs,
    }
    space.update({name: value for name, value in inputs.items() if name.isidentifier()})
    _import_libs(job["libs"], space)
    return space


def _import_libs(libs: Mapping[str, Any], space: dict[str, Any]) -> None:
    for alias, wanted in libs.items():
        if isinstance(wanted, str):
            space[alias] = importlib.import_module(wanted)
            continue
        module = importlib.import_module(wanted["from"])
        name = wanted.get("import", alias)
        if not hasattr(module, name):
            importlib.import_module(f"{wanted['from']}.{name}")
        space[alias] = getattr(module, name)


def _literal(value: Any) -> Any:
    """Text that looks like a list or mapping as what it looks like; everything else unchanged."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if (text[:1], text[-1:]) not in {("{", "}"), ("[", "]")}:
        return value
    for parse in (encode.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return parse(text)
    return value


def _call(main: Callable[..., Any], job: Mapping[str, Any], space: dict[str, Any]) -> Any:
    """Call the program's ``main`` with what its parameters name; None is an answer, too."""
    names_of_all = ("args", "input_data", "variables", "context", "auth")
    offered = {name: space[name] for name in names_of_all if name in space}
    known = {**job["variables"], **offered, **{n: space[n] for n in _RESERVED}, **space["args"]}
    known["context"] = space["context"]
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for name, parameter in inspect.signature(main).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            named = {**space["args"], **named}
        elif parameter.kind is parameter.POSITIONAL_ONLY and name in known:
            positional.append(known[name])
        elif name in known and parameter.kind is not parameter.VAR_POSITIONAL:
            named[name] = known[name]
    value = main(*positional, **named)
    if not inspect.iscoroutine(value):
        return value
    import asyncio  # most programs do without, and every fork would have to carry it

    return asyncio.run(value)


_RESERVED = ("execution_id", "step", "idempotency_key", "data")


def _exit_code(exc: SystemExit) -> int:
    if exc.code is None:
        return 0
    if isinstance(exc.code, int):
        return exc.code & 0xFF
    with contextlib.suppress(Exception):
        sys.stderr.write(f"{exc.code}\n")
    return 1


def _wind_down() -> None:
    """What the interpreter does at its end: wait for threads, run exit handlers, flush."""
    if threading.active_count() > 1:
        # The only way to have idle thread pools stopped before their threads are joined.
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001 (os._exit follows, which would skip them)
    _flush()


def _flush() -> None:
    streams = {id(each): each for each in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)}
    for stream in streams.values():
        # The program may have replaced or closed them.
        with contextlib.suppress(Exception):
            stream.flush()  # type: ignore[union-attr]  # None is suppressed as well


def _answer_exception(exc: BaseException, filename: str) -> None:
    name = type(exc).__name__
    try:
        text = str(exc)
    except Exception:  # noqa: BLE001 (the program's own __str__ failed)
        text = "(its message could not be read)"
    shown = _traceback(exc, filename)
    sys.excepthook = sys.__excepthook__
    with contextlib.suppress(Exception):
        sys.stderr.write(shown)
    message = f"{name}: {text}" if text else name
    answer_error(
        "exception", message, py={"exception": name, "traceback": _readable(shown[-MAX_TRACEBACK:])}
    )


def _readable(text: str) -> str:
    """*text* with its lone surrogates, which no JSON reader likes, shown as they are written."""
    return text.encode("utf-8", "backslashreplace").decode()


def _traceback(exc: BaseException, filename: str) -> str:
    """The traceback from the program's first line on; the frames that called it are ours."""
    trace = exc.__traceback__
    while trace is not None and _is_ours(trace, filename):
        trace = trace.tb_next
    report = traceback.TracebackException(type(exc), exc, trace, compact=True)
    return "".join(report.format()).replace(f", in {BODY}\n", ", in <module>\n")


def _is_ours(trace: types.TracebackType, filename: str) -> bool:
    """Whether this frame comes before the user's: all do up to the program, or an agent's module."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace)]
    if filename in files:
        return files[0] != filename
    return files[0].startswith((_OURS, "<frozen importlib")) or files[0] == _IMPORTS


def _out_of_memory(job: Mapping[str, Any]) -> str:
    return (
        f"MemoryError: the step needs more than the {job['memory']} bytes it may have; "
        "work in smaller pieces, or raise CALLBOARD_PYTHON_MEMORY"
    )
