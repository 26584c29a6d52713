"""A Dramatiq broker on NATS JetStream (server 2.12 or newer) for messages that are pointers.

- A queue is one subject and one durable consumer of a work-queue stream: file storage, explicit
  acknowledgement, no limit of age or deliveries.
- On a *coalescing* queue a key has one message at most: a thousand wakes of one key become few.
- Delays are message schedules of the server: no worker holds a delayed message in its memory.
- Streams and consumers that got lost are made again, by whoever misses them first.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from queue import Empty
from typing import Any

import structlog
from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.errors import DecodeError, QueueJoinTimeout, QueueNotFound
from dramatiq.message import Message
from dramatiq.middleware import Middleware, default_middleware

from app import failpoints
from app.brokers.custody import Custody
from app.brokers.delivery import ACK, NAK, TERM, Delivery
from app.brokers.errors import MessageTooLargeError
from app.brokers.examination import Examined
from app.brokers.publisher import Parcel
from app.brokers.puller import Puller
from app.brokers.session import Options, QueueDepth, Session
from app.brokers.streams import Streams
from app.brokers.subjects import Subjects

log = structlog.get_logger(__name__)

#: The option that names the key of a message on a coalescing queue.
COALESCE_KEY = "coalesce_key"

#: Seconds between two looks of ``join``, and of a consumer that was stopped.
JOIN_INTERVAL = 0.05
STOPPED_INTERVAL = 0.05


class NatsBroker(Broker):
    """Sends and receives messages of at most *max_message_bytes* through JetStream.

    - *url*: one or more servers, ``nats://user:password@host:port``, separated by commas.
    - *middleware*: as for every Dramatiq broker; Dramatiq's defaults where None.
    - *prefix*: names the streams (``<prefix>_STEPS``, ``<prefix>_WAKES``) and subjects.
    - *coalescing*: queues on which a newer message replaces an older one of the same key, which is
      the option ``coalesce_key`` or else the arguments.
    - *ack_wait*: seconds until a message held without a sign of life is delivered again.
    - *replicas*: of the streams, on a cluster.
    - *publish_timeout*: seconds that an enqueue waits for the server.

    Connects on first use, never on import, construction or in a parent that forks.
    """

    def __init__(
        self,
        url: str = "nats://127.0.0.1:4222",
        *,
        middleware: list[Middleware] | None = None,
        prefix: str = "callboard",
        coalescing: Collection[str] = (),
        ack_wait: float = 30.0,
        replicas: int = 1,
        max_message_bytes: int = 1024,
        publish_timeout: float = 5.0,
    ) -> None:
        if middleware is None:
            middleware = [kind() for kind in default_middleware]
        super().__init__(middleware=[Custody(lambda: self.session), *middleware])
        self.queues: set[str] = set()
        self._max_bytes = max_message_bytes
        self._subjects = Subjects(prefix, frozenset(coalescing))
        self._options = Options(url, Streams(self._subjects, ack_wait, replicas), publish_timeout)
        # One session per process. A fork's child leaves its parent's alone, not even collected:
        # closing a copied event loop would disturb the original.
        self._sessions: dict[int, Session] = {}

    @property
    def session(self) -> Session:
        """This process's connection, made on first use."""
        pid = os.getpid()
        session = self._sessions.get(pid)
        if session is None:
            session = self._sessions.setdefault(pid, Session(self._options))
        return session

    # Queues

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue; what it needs on the server is made when it is first used."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def get_declared_queues(self) -> set[str]:
        return self.queues.copy()

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Begin to fetch from *queue_name*; waits *timeout* milliseconds for a message at a time.

        Raises ``QueueNotFound`` where the queue was never declared. A server that is away is no
        error: the messages come when it is back.
        """
        self._check(queue_name)
        puller = self.session.pull(queue_name, prefetch=max(1, prefetch))
        return NatsConsumer(self.session, puller, timeout=timeout / 1000)

    def flush(self, queue_name: str) -> None:
        """Drop all messages of the queue, the delayed ones included."""
        self._check(queue_name)
        self.session.purge([queue_name])

    def flush_all(self) -> None:
        self.session.purge(sorted(self.queues))

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """Wait until the queue has no message: none waiting, none delayed, none at work.

        Raises ``QueueJoinTimeout`` after *timeout* milliseconds.
        """
        self._check(queue_name)
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while (depth := self.depth(queue_name)).total:
            if deadline is not None and time.monotonic() >= deadline:
                raise QueueJoinTimeout(f"{queue_name!r} still has {depth}")  # type: ignore[no-untyped-call]  # no types there
            time.sleep(JOIN_INTERVAL)

    def calm(self, queue_name: str, keys: Iterable[str]) -> None:
        """Drop the delayed messages of these keys of a coalescing queue, soon; returns at once.

        What could not be dropped is delivered when it is due.
        """
        self.session.calm(queue_name, keys)

    def tidy(self) -> None:
        """Drop what was acknowledged and came back when the server was killed; see ``Session.tidy``."""
        self.session.tidy()

    def depth(self, queue_name: str) -> QueueDepth:
        """How many messages wait, are at work and are delayed. Costs by the number of delayed ones."""
        return self.session.depth(queue_name)

    def pending(self, queue_name: str) -> int:
        """How many messages of the queue no worker has fetched yet; cheap enough for a metric."""
        return self.session.waiting(queue_name)

    def waited(self, queue_name: str) -> float:
        """Seconds that a message of the queue has waited to be fetched, the longest; 0 for none; cheap."""
        return self.session.waited(queue_name)

    def epoch(self) -> str:
        """Another text than before where the server lost the streams in between."""
        return self.session.epoch()

    def examine(self, queues: Iterable[str], *, timeout: float) -> Examined:
        """What is wrong with the server, its streams and consumers; how far these *queues* lag.

        Changes nothing. Raises ``NatsUnreachableError`` after *timeout* seconds without an answer.
        """
        return self.session.examine(queues, timeout=timeout)

    def close(self) -> None:
        """Give back what is held, flush and disconnect. The next use connects again."""
        session = self._sessions.pop(os.getpid(), None)
        if session is not None:
            session.close()

    # Messages

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Store *message*, to be delivered now or after *delay* milliseconds; returns it.

        Returns when the server holds it. Delays are up to 250 ms late. The queue need not be
        declared here. Raises ``MessageTooLargeError`` or ``NotStoredError``.
        """
        self.enqueue_many([(message, delay)])
        return message

    def enqueue_many(self, messages: Iterable[tuple[Message[Any], int | None]]) -> None:
        """Store all (message, delay in milliseconds) at once; returns when the server holds them.

        Nothing is sent where one message is too large. After ``NotStoredError`` some of them may
        be stored: sending again is safe where receiving twice is.
        """
        batch = list(messages)
        for message, delay in batch:
            self.emit_before("enqueue", message, delay)
        failpoints.before("broker.publish")
        self.session.publisher.publish([self._parcel(message, delay) for message, delay in batch])
        failpoints.after("broker.publish")
        for message, delay in batch:
            self.emit_after("enqueue", message, delay)

    def _parcel(self, message: Message[Any], delay: int | None) -> Parcel:
        data = message.encode()
        if len(data) > self._max_bytes:
            raise MessageTooLargeError(message.actor_name, len(data), self._max_bytes)
        queue = message.queue_name
        coalescing = queue in self._subjects.coalescing
        key = _key(message) if coalescing else ""
        target = self._subjects.target(queue, key)
        unique = self.session.unique()
        if delay is not None and delay > 0:
            headers = {"Nats-Schedule": f"@at {_at(delay)}", "Nats-Schedule-Target": target}
            return Parcel(self._subjects.delayed(queue, key, unique), data, headers)
        if coalescing:
            return Parcel(target, data)
        # Only so that a publish repeated over a broken connection is stored once. Never the message
        # id alone: the server would swallow a retry or a second dispatch of the same message.
        return Parcel(target, data, {"Nats-Msg-Id": unique})

    def _check(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)  # type: ignore[no-untyped-call]  # no types there


class NatsConsumer(Consumer):
    """Iterates over the messages of one queue. Its messages may be ended on any thread."""

    def __init__(self, session: Session, puller: Puller, *, timeout: float) -> None:
        self._session = session
        self._puller = puller
        self._timeout = timeout

    def __next__(self) -> NatsMessage | None:
        """The next message, or None where none came in time. Undecodable ones are ended and told."""
        if self._puller.stopped:
            time.sleep(min(self._timeout, STOPPED_INTERVAL))
            return None
        try:
            delivery = self._puller.buffer.get(timeout=self._timeout)
        except Empty:
            return None
        if delivery is None or delivery.is_given_back:
            return None
        return self._decoded(delivery)

    def _decoded(self, delivery: Delivery) -> NatsMessage | None:
        try:
            message = Message.decode(delivery.data)
        except DecodeError:
            log.exception("undecodable_message", subject=delivery.subject, data=delivery.data[:200])
            delivery.end(TERM)
            return None
        if message.queue_name != self._puller.queue:
            # Workers find the consumer to acknowledge with by this name.
            message = message.copy(queue_name=self._puller.queue)
        return NatsMessage(message, delivery)

    def ack(self, message: MessageProxy) -> None:
        """Take the message off the queue. Returns at once: a lost word means redelivery."""
        _delivery(message).end(ACK)

    def nack(self, message: MessageProxy) -> None:
        """Drop a failed message, and say so; or have it again, where it asked for that."""
        delivery = _delivery(message)
        if isinstance(message, NatsMessage) and message.redeliver_in is not None:
            delivery.end(
                NAK + b" " + json.dumps({"delay": int(message.redeliver_in * 1e9)}).encode()
            )
            return
        delivery.end(TERM)
        log.error(
            "message_rejected",
            actor=message.actor_name,
            queue=message.queue_name,
            message_id=message.message_id,
            args=message.args,
        )

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give messages back: the server delivers them again at once."""
        for message in messages:
            _delivery(message).end(NAK)

    def close(self) -> None:
        """Fetch no more, give back what nobody has read, and see that the server heard it all."""
        self._puller.stop()
        self._session.retire(self._puller)
        self._session.flush()


class NatsMessage(MessageProxy):
    """A message that NATS waits to hear about.

    Set ``redeliver_in`` (seconds) and call ``fail()`` to have it delivered again that much later.
    """

    def __init__(self, message: Message[Any], delivery: Delivery) -> None:
        super().__init__(message)
        self.delivery = delivery
        self.redeliver_in: float | None = None

    @property
    def deliveries(self) -> int:
        """How often this message was delivered, from 1."""
        return self.delivery.count


def _delivery(message: MessageProxy) -> Delivery:
    assert isinstance(message, NatsMessage), "only messages of this broker's consumers come back"
    return message.delivery


def _key(message: Message[Any]) -> str:
    key = message.options.get(COALESCE_KEY)
    return str(key) if key is not None else json.dumps([message.args, message.kwargs], default=str)


def _at(delay: int) -> str:
    moment = datetime.now(UTC) + timedelta(milliseconds=delay)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


__all__: Sequence[str] = ("COALESCE_KEY", "NatsBroker", "NatsConsumer", "NatsMessage", "QueueDepth")
