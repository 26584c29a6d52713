"""The price of one more completion: the same in a short execution and in a long one.

Counted in function calls and in events read, which are the same on every machine; the times are
measured by ``python -m bench.flatness``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.engine.ports import Pointer
from tests.services.conftest import Bench

LOOP = """
workflow:
- step: start
  loop: {in: "{{ range(1500) | list }}", iterator: i, spec: {mode: parallel, max_in_flight: 50}}
  tool: {kind: noop}
"""
CYCLE = """
workflow:
- step: start
  tool: {kind: noop}
  set: {ctx.turn: "{{ (turn | default(0)) + 1 }}"}
  next: {arcs: [{step: start, when: "{{ turn < 600 }}"}]}
"""


class Counter:
    """How many functions of ours were called, and how many events were read from the log."""

    def __init__(self) -> None:
        self.calls = 0
        self.events = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        def called(frame: Any, event: str, _: object) -> None:
            self.calls += event == "call" and "/app/" in frame.f_code.co_filename

        sys.setprofile(called)
        try:
            yield
        finally:
            sys.setprofile(None)


@pytest.fixture
def counter(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter()
    from app.store.shelf import MemoryTransaction

    read = MemoryTransaction.read

    def counted(self: MemoryTransaction, execution_id: int, *, after: int = 0) -> Any:
        entries = read(self, execution_id, after=after)
        counter.events += len(entries)
        return entries

    monkeypatch.setattr(MemoryTransaction, "read", counted)
    return counter


@pytest.mark.parametrize("playbook", [LOOP, CYCLE], ids=["loop", "cycle"])
def test_a_late_completion_costs_what_an_early_one_did(
    bench: Bench, counter: Counter, playbook: str
) -> None:
    execution_id = bench.start(playbook)
    out: list[Pointer] = bench.advance(execution_id)
    costs: list[tuple[int, int]] = []
    while out:
        bench.work(out.pop(0))
        counter.calls = counter.events = 0
        with counter.counting():
            out += bench.advance(execution_id)
        costs.append((counter.calls, counter.events))
    early, late = costs[100], costs[-100]
    assert late[0] <= 1.05 * early[0], (early, late)
    assert late[1] == early[1]
