"""Looks at NATS without changing anything: is it what we need, and does work pile up on it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from app.brokers.streams import MIN_SERVER, Streams, differences, too_old

#: Limits of a stream that make the server drop messages, and what stands for "none".
_LIMITS = {"max_age": 0, "max_msgs": -1, "max_bytes": -1}
#: What of a consumer decides whether messages are delivered, and again where they must.
_OF_CONSUMERS = ("ack_policy", "ack_wait", "max_deliver", "max_ack_pending")


class Fault(NamedTuple):
    """``subject`` is nats (the server itself), streams or consumers."""

    subject: str
    message: str
    remedy: str


class Lag(NamedTuple):
    """Messages of a queue that wait or are at work, and the seconds since one was last ended."""

    messages: int
    since_ended: float


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found; ``lags`` has the queues that somebody ever fetched from."""

    faults: Sequence[Fault] = ()
    lags: Mapping[str, Lag] = field(default_factory=dict)


async def examine(client: Client, streams: Streams, queues: Sequence[str]) -> Examined:
    """Compare the server with what we need, and look how far *queues* lag behind."""
    complaint = too_old(client)
    if complaint is not None:
        remedy = f"install nats-server {MIN_SERVER[0]}.{MIN_SERVER[1]} or newer"
        return Examined([Fault("nats", complaint, remedy)])
    js = client.jetstream()
    faults: list[Fault] = []
    try:
        await js.account_info()
        for wanted in streams.wanted():
            faults += await _stream_faults(js, wanted)
            faults += await _consumer_faults(js, streams, wanted.name or "")
        lags = {queue: lag for queue in queues if (lag := await _lag(js, streams, queue))}
    except ServiceUnavailableError:
        return Examined([_no_jetstream()])
    except APIError as exc:
        if exc.err_code in _OFF:
            return Examined([_no_jetstream()])
        raise
    return Examined(faults, lags)


#: JetStream is off for the server, or for the account.
_OFF = frozenset({10039, 10076})


def _no_jetstream() -> Fault:
    return Fault(
        "nats",
        "JetStream is off, so NATS keeps no message",
        "start nats-server with -js, or enable JetStream for this account",
    )


async def _stream_faults(js: JetStreamContext, wanted: api.StreamConfig) -> list[Fault]:
    try:
        found = (await js.stream_info(wanted.name or "")).config
    except NotFoundError:
        remedy = (
            "the next message makes it, and what was in it is sent again from the log; where it "
            "stays missing, this user may not create streams"
        )
        return [Fault("streams", f"the stream {wanted.name} is missing", remedy)]
    return [*_unlike(found, wanted), *_limited(found)]


def _unlike(found: api.StreamConfig, wanted: api.StreamConfig) -> Iterator[Fault]:
    changes = differences(found, wanted)
    if changes:
        told = ", ".join(
            f"{name} {_text(getattr(found, name))} instead of {_text(value)}"
            for name, value in sorted(changes.items())
        )
        yield Fault(
            "streams",
            f"the stream {found.name} has {told}",
            "start an orchestrator or worker again, which sets it right; where it cannot (the "
            "retention), stop all, delete the stream and start again: the log sends what is due",
        )


def _limited(found: api.StreamConfig) -> Iterator[Fault]:
    limits = {
        name: value for name in _LIMITS if (value := getattr(found, name)) not in {None, 0, -1}
    }
    if limits:
        told = ", ".join(f"{name} {_text(value)}" for name, value in limits.items())
        yield Fault(
            "streams",
            f"the stream {found.name} drops messages above {told}",
            f"lift it: nats stream edit {found.name}; dropped messages are sent again late",
        )


async def _consumer_faults(js: JetStreamContext, streams: Streams, stream: str) -> list[Fault]:
    try:
        found = await js.consumers_info(stream)
    except NotFoundError:
        return []
    wanted = streams.consumer("")
    return [fault for info in found for fault in _consumer(info, wanted)]


def _consumer(info: api.ConsumerInfo, wanted: api.ConsumerConfig) -> Iterator[Fault]:
    if info.paused:
        yield Fault(
            "consumers",
            f"the consumer {info.name} of {info.stream_name} is paused: nothing is delivered",
            f"nats consumer resume {info.stream_name} {info.name}",
        )
    unlike = [
        f"{name} {_text(getattr(info.config, name))} instead of {_text(getattr(wanted, name))}"
        for name in _OF_CONSUMERS
        if getattr(info.config, name) != getattr(wanted, name)
    ]
    if unlike:
        yield Fault(
            "consumers",
            f"the consumer {info.name} of {info.stream_name} has {', '.join(unlike)}",
            "start its workers again, which sets it right; CALLBOARD_ACK_WAIT must be the same "
            "in all processes",
        )


async def _lag(js: JetStreamContext, streams: Streams, queue: str) -> Lag | None:
    subjects = streams.subjects
    try:
        info = await js.consumer_info(subjects.stream(queue), subjects.durable(queue))
    except NotFoundError:
        return None
    held = (info.num_pending or 0) + (info.num_ack_pending or 0)
    last = _last_ack(info)
    # By our clock against the server's: the same machine's in most places, or kept alike by NTP.
    return Lag(held, max(0.0, (datetime.now(UTC) - last).total_seconds()))


def _last_ack(info: api.ConsumerInfo) -> datetime:
    """When a message was last ended; where none ever was, when the consumer was made.

    Not the age of the oldest message: a wake that is repeated replaces the one before it.
    """
    last = info.ack_floor.last_active if info.ack_floor else None
    return last or info.created


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))
