"""What a puller makes of messages that it gave back and that came again to itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.brokers.bridge import Wire
from app.brokers.delivery import ACK, NAK, Delivery
from app.brokers.puller import Puller
from app.brokers.slots import PATIENCE, Slots
from app.brokers.streams import Streams
from app.brokers.subjects import Subjects


@dataclass
class Line:
    """A bridge without a connection: what is posted runs at once, what is sent is kept."""

    client: None = None
    sent: list[Wire] = field(default_factory=list)

    def post(self, action: Callable[..., None], *args: Any) -> None:
        action(*args)

    def send(self, wire: Wire) -> None:
        self.sent.append(wire)

    @property
    def verdicts(self) -> list[tuple[str, bytes]]:
        return [(wire.subject, wire.payload) for wire in self.sent]


@dataclass(frozen=True)
class Arrived:
    """A message as nats-py hands it over."""

    subject: str
    reply: str
    data: bytes = b"{}"
    headers: None = None


def ack_subject(seq: int, count: int) -> str:
    return f"$JS.ACK.S.C.{count}.{seq}.1.0.0"


@pytest.mark.parametrize("coalescing", [False, True])
def test_a_message_that_comes_again_is_not_ended_by_its_former_delivery(coalescing: bool) -> None:
    line, slots = Line(), Slots()
    slots.total = 1
    subjects = Subjects("t", frozenset({"q"} if coalescing else ()))
    puller = Puller(line, Streams(subjects, 30.0, 1), "q", prefetch=4, slots=slots)  # type: ignore[arg-type]  # all it needs of one

    def arrive(seq: int, count: int = 1) -> Delivery:
        asyncio.run(puller._received(Arrived(f"t.q.{seq}", ack_subject(seq, count))))  # type: ignore[arg-type]  # the same
        delivery = puller.buffer.get_nowait()
        assert delivery is not None
        return delivery

    slow = arrive(1)
    assert slow.begin()
    waits = arrive(2)
    waits.arrived -= 2 * PATIENCE
    puller._hand_on()
    assert line.verdicts == [(ack_subject(2, 1), NAK)]
    again = arrive(2, count=2)
    # The thread that takes the former one has nothing to do, and says so.
    assert not waits.begin()
    waits.end(ACK)
    assert line.verdicts == [(ack_subject(2, 1), NAK)]
    slow.end(ACK)
    assert again.begin()
    again.end(ACK)
    assert line.verdicts[1:] == [(ack_subject(1, 1), ACK), (ack_subject(2, 2), ACK)]
    assert slots.free == 1
