"""Reads hostile texts in processes of their own and tells what became of them and what it took.

Started as a program it answers one JSON line for each it is given. It forks for each text, so that
what one text leaves behind is not counted for the next, and a text that passes all limits ends a
process under limits of the system rather than the test run.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.engine.language.source import read
from app.engine.templates.scope import Scope
from app.engine.templates.template import compile_text
from app.errors import CallboardError

ROOT = Path(__file__).parents[2]

#: What a text may take before something is wrong. Measured at rest it is below 1 s and 64 MB; a busy
#: machine counts twice the time and more for the same work.
SECONDS = 6.0
BYTES = 128 * 2**20

_END = 10, 4 * 2**30  # seconds of processor and bytes of memory at which the system ends it
_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Outcome:
    """``error`` is empty where the text was accepted; ``detail`` shows what it gave or why not."""

    error: str
    detail: str
    seconds: float
    memory: int


Ask = Callable[[str, str], Outcome]


@contextmanager
def containment() -> Iterator[Ask]:
    """A function of kind ('template' or 'yaml') and text that gives its outcome."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.engine.contained"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asks, answers = process.stdin, process.stdout

        def ask(kind: str, text: str) -> Outcome:
            asks.write(json.dumps([kind, text]) + "\n")
            asks.flush()
            return Outcome(**json.loads(answers.readline()))

        yield ask
        asks.close()


def check(outcome: Outcome) -> None:
    """Fail where it took too much."""
    assert outcome.seconds < SECONDS, outcome
    assert outcome.memory < BYTES, outcome


def _scope() -> Scope:
    rows = [{"id": number, "name": f"name {number}"} for number in range(10_000)]
    return Scope(
        workload={
            "n": 1,
            "rows": rows,
            "names": [f"name{number}" for number in range(50_000)],
            "blob": [{"k": "v" * 480, "n": number} for number in range(10_000)],
            "page": "x" * 5_000_000,
        },
        results={"wide": {f"k{number}": number for number in range(20_000)}},
        local={"now_at": 1_700_000_000.25},
    )


def _template(text: str) -> Any:
    return compile_text(text).value(_SCOPE)


def _yaml(text: str) -> Any:
    # Bytes come as text in which each character is one of them.
    prefix, _, rest = text.partition("bytes:")
    source = read(rest.encode("latin-1") if rest and not prefix else text)
    return source.data


_SCOPE = _scope()


def _try(kind: str, text: str) -> tuple[str, str]:
    try:
        value = _template(text) if kind == "template" else _yaml(text)
    except CallboardError as exc:
        return type(exc).__name__, str(exc)[:500]
    return "", json.dumps(value)[:200] if kind == "yaml" else type(value).__name__


def _contained(kind: str, text: str) -> dict[str, Any]:
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        resource.setrlimit(resource.RLIMIT_CPU, (_END[0], _END[0]))
        resource.setrlimit(resource.RLIMIT_AS, (_END[1], _END[1]))
        code = 1
        try:
            before = _resident()
            os.write(writer, json.dumps([*_try(kind, text), before]).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    _, status, used = os.wait4(pid, 0)
    with os.fdopen(reader, "rb") as pipe:
        found = pipe.read()
    ended: list[Any] = ["killed", f"ended with status {status}", 0]
    error, detail, before = json.loads(found) if found else ended
    return {
        "error": error,
        "detail": detail,
        "seconds": used.ru_utime + used.ru_stime,
        "memory": max(used.ru_maxrss * _UNIT - before, 0),
    }


def _resident() -> int:
    """The memory of this process, which a fork of it begins with; the most so far elsewhere."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


if __name__ == "__main__":
    gc.collect()
    gc.freeze()  # so that no process looks through the data of all of them
    for line in sys.stdin:
        print(json.dumps(_contained(*json.loads(line))), flush=True)  # noqa: T201 (it answers there)
