"""The streams and consumers we need on the server: made where missing, never deleted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, BadRequestError, NotFoundError

from app.brokers.errors import UnusableServerError
from app.brokers.subjects import Subjects

log = structlog.get_logger(__name__)

#: Message schedules, which carry our delays, came with this release.
MIN_SERVER = (2, 12)

#: Seconds in which NATS recognises a publish repeated after a broken connection. Short, because
#: the server keeps every id of the window in memory.
DUPLICATE_WINDOW = 15.0

#: Pull requests that may wait at one consumer at a time: a few per worker process.
MAX_WAITING = 8192


@dataclass(frozen=True, slots=True)
class Streams:
    """What must exist on the server for one broker."""

    subjects: Subjects
    ack_wait: float
    replicas: int

    async def ensure(self, client: Client) -> None:
        """Create the streams, or bring existing ones in line where that loses nothing.

        Raises ``UnusableServerError`` where the server is too old or a stream of that name cannot
        be used, and the errors of nats-py where the server refuses or does not answer.
        """
        complaint = too_old(client)
        if complaint is not None:
            raise UnusableServerError(complaint)
        js = client.jetstream()
        for config in self.wanted():
            await _ensure_stream(js, config)

    async def ensure_consumer(self, client: Client, queue: str) -> None:
        """Create the durable consumer of *queue*, or bring it in line; its stream must exist."""
        config = self.consumer(queue)
        await client.jetstream().add_consumer(self.subjects.stream(queue), config)

    def consumer(self, queue: str) -> api.ConsumerConfig:
        """What the durable consumer of *queue* must be like."""
        return api.ConsumerConfig(
            durable_name=self.subjects.durable(queue),
            filter_subject=self.subjects.waiting(queue),
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self.ack_wait,
            # Without limits: a message at max_deliver would stay in the stream for ever, invisible.
            max_deliver=-1,
            max_ack_pending=-1,
            max_waiting=MAX_WAITING,
        )

    def wanted(self) -> tuple[api.StreamConfig, ...]:
        """What the streams must be like."""
        return self._steps(), self._wakes()

    def _steps(self) -> api.StreamConfig:
        return self._config(self.subjects.steps, self.subjects.steps_root, per_subject=-1)

    def _wakes(self) -> api.StreamConfig:
        return self._config(self.subjects.wakes, self.subjects.wakes_root, per_subject=1)

    def _config(self, name: str, root: str, *, per_subject: int) -> api.StreamConfig:
        return api.StreamConfig(
            name=name,
            subjects=[f"{root}.>"],
            retention=api.RetentionPolicy.WORK_QUEUE,
            storage=api.StorageType.FILE,
            discard=api.DiscardPolicy.OLD,
            max_msgs_per_subject=per_subject,
            num_replicas=self.replicas,
            duplicate_window=DUPLICATE_WINDOW,
            allow_msg_schedules=True,
            # A stream that was lost and made again starts above every number of the old one (fewer
            # than one message per microsecond went through it), so that a late acknowledgement of
            # an old message can never hit a new one.
            first_seq=time.time_ns() // 1000,
        )


def too_old(client: Client) -> str | None:
    """Why the server's version does not do, and which would; None where it does."""
    version = client.connected_server_version
    if (version.major, version.minor) >= MIN_SERVER:
        return None
    return (
        f"NATS is {version.major}.{version.minor}, which cannot delay messages: "
        f"run version {MIN_SERVER[0]}.{MIN_SERVER[1]} or newer"
    )


#: What we keep in line; the other fields of an existing stream belong to its operator.
_KEPT = (
    "subjects",
    "retention",
    "max_msgs_per_subject",
    "num_replicas",
    "duplicate_window",
    "allow_msg_schedules",
)


def differences(found: api.StreamConfig, wanted: api.StreamConfig) -> dict[str, Any]:
    """What *wanted* has otherwise than the stream that is there, of what we keep in line."""
    return {
        name: getattr(wanted, name)
        for name in _KEPT
        if getattr(found, name) != getattr(wanted, name)
    }


async def _ensure_stream(js: JetStreamContext, wanted: api.StreamConfig) -> None:
    found = await _stream(js, wanted.name)
    if found is None:
        await _create_stream(js, wanted)
        return
    changes = differences(found, wanted)
    if not changes:
        return
    try:
        await js.update_stream(found.evolve(**changes))
    except APIError as exc:
        raise UnusableServerError(
            f"the NATS stream {wanted.name} exists and cannot be changed to "
            f"{changes} ({exc.description}): delete it or choose another prefix"
        ) from exc
    log.info("stream_updated", stream=wanted.name, changed=sorted(changes))


async def _create_stream(js: JetStreamContext, wanted: api.StreamConfig) -> None:
    try:
        await js.add_stream(wanted)
    except BadRequestError:
        # Another process may have been faster: its first sequence differs, so the server speaks of
        # another configuration. Where there still is no stream the refusal was about something else.
        if await _stream(js, wanted.name) is None:
            raise
        return
    log.info("stream_created", stream=wanted.name)


async def _stream(js: JetStreamContext, name: str | None) -> api.StreamConfig | None:
    try:
        return (await js.stream_info(name or "")).config
    except NotFoundError:
        return None
