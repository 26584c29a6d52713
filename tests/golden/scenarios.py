"""What is recorded: a scenario is a sentence, a name, and a function that lets it happen.

To add one, write a function here or in a module beside it, and run ``python -m tests.golden``. All
the services are real, on the memory twins; the clock moves when a scenario moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.engine.ports import Pointer
from app.wire import Beat
from tests.services.conftest import Bench

ERROR = {"kind": "server_error", "message": "it answered 500", "retryable": True, "code": None}
LEASE = 60.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens on a bench. ``settings`` are those the control plane has."""

    name: str
    says: str
    play: Callable[[Bench], None]
    settings: Mapping[str, Any] = field(default_factory=dict)


SCENARIOS: dict[str, Scenario] = {}


def scenario(says: str, **settings: Any) -> Callable[[Callable[[Bench], None]], None]:
    """Registers a function under its own name; *settings* are the control plane's."""

    def register(play: Callable[[Bench], None]) -> None:
        SCENARIOS[play.__name__] = Scenario(play.__name__, says, play, settings)

    return register


# ---------------------------------------------------------------------- hands
def play_on(
    bench: Bench, execution_id: int, results: Mapping[str, Any] | None = None, *, most: int = 300
) -> None:
    """Work off an execution, a second per attempt. ``results`` are by key, else by step.

    An exception type among them fails the step with ``ERROR``.
    """
    for _ in range(most):
        before = len(bench.log(execution_id))
        for pointer in bench.advance(execution_id):
            finish(bench, pointer, results)
        if len(bench.log(execution_id)) == before:
            return


def finish(bench: Bench, pointer: Pointer, results: Mapping[str, Any] | None = None) -> None:
    """Claim, take a second, report."""
    given = results or {}
    name = str(pointer.key)
    result = given.get(name, given.get(pointer.step, {"of": name}))
    claim(bench, pointer)
    if result is Exception:
        report(bench, pointer, outcome="failed", error=ERROR)
    else:
        report(bench, pointer, result)


def claim(bench: Bench, pointer: Pointer, *, worker: str = "w1") -> None:
    bench.now[0] += 0.25
    assert bench.claim(pointer, worker=worker).granted


def report(
    bench: Bench, pointer: Pointer, result: Any = None, *, accepted: bool = True, **said: Any
) -> None:
    bench.now[0] += 0.75
    answer = bench.report(pointer, result, duration_ms=750.0, tail=f"{pointer.step} ran\n", **said)
    assert answer.accepted is accepted, answer.reason


def only(bench: Bench, execution_id: int) -> Pointer:
    """The one attempt that follows now."""
    (pointer,) = bench.advance(execution_id)
    return pointer


def beat(bench: Bench, *workers: str) -> None:
    for worker in workers:
        bench.control.presence.beat(Beat(name=worker, kind="worker_pool", capacity=4))


def fall_silent(bench: Bench) -> None:
    """Longer than any lease goes by without a sign of life, and the sweeper looks."""
    bench.now[0] += 2 * LEASE
    bench.control.sweeper.sweep()
