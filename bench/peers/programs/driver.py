"""The client of a peer: one order a line on standard input, one answer a line on standard output.

An order is a workload's size, ``{"shape": "chain", "steps": 20, "executions": 5, "together": false}``.
The answer has the seconds of each execution (of all, where they run together) and how many outcomes
were recorded, or ``{"error": …}``. Standard library only: every peer's environment can run it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

#: Where a program finds its servers.
DATABASE, VALKEY = "PEER_DATABASE_URL", "PEER_VALKEY_SOCKET"
#: Seconds between two looks, and until a round has failed: those of ``bench.sides``.
PAUSE = 0.002
PATIENCE = 120.0
#: Threads that submit where executions run together: those of ``bench.measure``.
SUBMITTERS = 8


class NotEndedError(Exception):
    """An execution failed, or did not end in time."""


class Program(Protocol):
    """A peer as its client sees it. What ``start`` returns names the execution to the others."""

    def start(self, shape: str, steps: int) -> Any:
        """Start one execution: a ``chain`` of steps, one of a ``crowd`` of such chains, or a ``wide``
        one of steps - 1 and a join."""

    def wait(self, started: Sequence[Any]) -> None:
        """Return when all have ended. Raises ``NotEndedError`` where one did not end well."""

    def outcomes(self, started: Sequence[Any]) -> int:
        """How many outcomes of their steps are recorded durably."""


def serve(program: Program) -> None:
    """Carry out orders until standard input ends. The first answer says that the workers are up."""
    # What the peer prints must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    first = {"shape": "chain", "steps": 1, "executions": 1, "together": False}
    answers.write(json.dumps(_answer(program, first)) + "\n")
    for line in sys.stdin:
        answers.write(json.dumps(_answer(program, json.loads(line))) + "\n")


def _answer(program: Program, order: dict[str, Any]) -> dict[str, Any]:
    try:
        return carry_out(program, order)
    except Exception as error:  # noqa: BLE001 (whatever a peer raises is told to who ordered)
        return {"error": f"{type(error).__name__}: {error}"}


def carry_out(program: Program, order: dict[str, Any]) -> dict[str, Any]:
    """One round. Raises ``NotEndedError`` where an outcome is missing."""
    shape, steps, executions = order["shape"], order["steps"], order["executions"]
    run = _together if order["together"] else _one_by_one
    seconds, started = run(program, shape, steps, executions)
    # Some store the outcome of a step after they have sent the next.
    expected = steps * executions
    poll(lambda: (program.outcomes(started), 0), expected, "outcomes were not recorded")
    return {"seconds": seconds, "recorded": expected}


def _one_by_one(
    program: Program, shape: str, steps: int, executions: int
) -> tuple[list[float], list[Any]]:
    seconds, started = [], []
    for _ in range(executions):
        began = time.perf_counter()
        started.append(program.start(shape, steps))
        program.wait(started[-1:])
        seconds.append(time.perf_counter() - began)
    return seconds, started


def _together(
    program: Program, shape: str, steps: int, executions: int
) -> tuple[list[float], list[Any]]:
    began = time.perf_counter()
    if executions == 1:
        started = [program.start(shape, steps)]
    else:
        with ThreadPoolExecutor(SUBMITTERS) as pool:
            started = list(pool.map(lambda _: program.start(shape, steps), range(executions)))
    program.wait(started)
    return [time.perf_counter() - began], started


def poll(
    look: Callable[[], tuple[int, int]], expected: int, missing: str = "executions did not end"
) -> None:
    """Ask *look* how many ended well and how many badly, until *expected* did, or one badly."""
    deadline = time.monotonic() + PATIENCE
    while True:
        well, badly = look()
        if badly:
            raise NotEndedError(f"{badly} of {expected} executions failed")
        if well == expected:
            return
        if time.monotonic() > deadline:
            raise NotEndedError(f"{expected - well} of {expected} {missing} in {PATIENCE:g} s")
        time.sleep(PAUSE)
