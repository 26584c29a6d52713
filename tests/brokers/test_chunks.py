"""How iterations travel together: how many, and which ones never do."""

from __future__ import annotations

import math
from typing import Any

import pytest

from app.brokers.chunks import LONGEST, SLICE, chunks
from app.brokers.dispatch import DramatiqDispatcher
from app.engine.ports import Dispatch, Pointer


def loop(count: int, *, start: int = 0, step: str = "each", **more: Any) -> list[Dispatch]:
    attempt = more.pop("attempt", 1)
    return [
        Dispatch(Pointer(7, step, 1, place, attempt), "python", "default.cpu", **more)
        for place in range(start, start + count)
    ]


def lengths(steps: list[Dispatch]) -> list[int]:
    return [chunk.length for chunk in chunks(steps)]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param(loop(1), [1], id="one"),
        pytest.param(loop(40), [1] * 40, id="a small loop of unknown pace spreads"),
        pytest.param(loop(64), [2] * 32, id="a larger one is cut into thirty-two"),
        pytest.param(loop(1000), [31] * 32 + [8], id="a thousand"),
        pytest.param(loop(10_000), [LONGEST] * 312 + [16], id="no chunk is longer than that"),
        pytest.param(loop(8, pace=0.001), [4, 4], id="short ones go together, in two halves"),
        pytest.param(loop(100, pace=SLICE / 4), [4] * 25, id="as many as fit into the time"),
        pytest.param(loop(100, pace=3.0), [1] * 100, id="slow ones go alone"),
        pytest.param(loop(100, pace=math.inf), [1] * 100, id="and those that are to"),
        pytest.param(loop(100, pace=0.0), [LONGEST] * 3 + [4], id="no time at all"),
        pytest.param(loop(200, delay=1.0), [1] * 200, id="delayed ones go alone"),
        pytest.param(loop(200, attempt=2), [1] * 200, id="further attempts go alone"),
        pytest.param(
            [Dispatch(Pointer(7, f"s{n}", 1, -1, 1), "noop", "default.io") for n in range(99)],
            [1] * 99,
            id="steps that are no iterations",
        ),
        pytest.param(
            loop(64) + loop(64, start=100) + loop(64, step="other"), [2] * 96, id="gaps and others"
        ),
    ],
)
def test_how_many_travel_together(steps: list[Dispatch], expected: list[int]) -> None:
    assert lengths(steps) == expected


def test_each_iteration_is_in_one_chunk_in_its_order() -> None:
    steps = loop(777) + loop(5, attempt=3) + loop(90, start=1000, pace=0.002)
    found = [
        chunk.first.pointer._replace(iteration=chunk.first.pointer.iteration + place)
        for chunk in chunks(steps)
        for place in range(chunk.length)
    ]
    assert found == [step.pointer for step in steps]


def test_a_message_names_the_first_and_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher = DramatiqDispatcher(None)  # type: ignore[arg-type]  # nothing is sent
    sent: list[Any] = []
    monkeypatch.setattr(dispatcher, "_send", sent.extend)
    dispatcher.dispatch(loop(64)[:3] + loop(64, start=10))
    assert [message.args for message, _ in sent[:4]] == [
        (7, "each", 1, 0, 1),
        (7, "each", 1, 1, 1),
        (7, "each", 1, 2, 1),
        (7, "each", 1, 10, 1, 2),
    ]
