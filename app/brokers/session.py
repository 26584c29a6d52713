"""What one process shares with NATS: a bridge, a publisher, and the pullers of its queues."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import orjson
from nats.aio.client import Client
from nats.js import api
from nats.js.errors import NotFoundError

from app.brokers.bridge import Bridge, Wire
from app.brokers.examination import Examined, examine
from app.brokers.publisher import Publisher
from app.brokers.puller import Puller
from app.brokers.slots import Slots
from app.brokers.streams import Streams

T = TypeVar("T")


class QueueDepth(NamedTuple):
    """How many messages a queue has.

    ``waiting``: never delivered; ``held``: delivered and not ended, so at work, or given back and
    not fetched again yet; ``delayed``: not due.
    """

    waiting: int
    held: int
    delayed: int

    @property
    def total(self) -> int:
        return self.waiting + self.held + self.delayed


@dataclass(frozen=True, slots=True)
class Options:
    """How a broker talks to its server. Times in seconds."""

    url: str
    streams: Streams
    publish_timeout: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """How far each stream went when a connection was new."""

    connections: int
    seqs: dict[str, int]


class Session:
    """The connection of one process; opens nothing until it is used."""

    def __init__(self, options: Options) -> None:
        self._streams = options.streams
        self._timeout = options.publish_timeout
        self._pullers: list[Puller] = []
        #: On which connection we have tidied.
        self._tidied = 0
        #: What was there when the connection was new.
        self._last: _Seen | None = None
        self.slots = Slots()
        # Of this process: a forked child that went on with its parent's numbers would lose messages
        # to the server's dropping of repeated ids.
        self._name, self._numbers = uuid4().hex[:16], itertools.count()
        name = f"{options.streams.subjects.prefix}-{os.getpid()}"
        self.bridge = Bridge(options.url, name=name)
        self.publisher = Publisher(self.bridge, options.streams, timeout=self._timeout)

    def unique(self) -> str:
        """A name that no other message of any process gets."""
        return f"{self._name}-{next(self._numbers)}"

    def pull(self, queue: str, *, prefetch: int) -> Puller:
        """Begin to fetch from *queue*; stop and retire the puller when done."""
        puller = Puller(self.bridge, self._streams, queue, prefetch=prefetch, slots=self.slots)
        self._pullers.append(puller)
        puller.start()
        return puller

    def retire(self, puller: Puller) -> None:
        """Let go of a stopped puller; what its workers still do stays alive."""
        if puller in self._pullers:
            self._pullers.remove(puller)
            self.bridge.post(puller.retire)

    def stop_pulling(self) -> None:
        """Fetch no more, on any queue, and give back what waits in our buffers."""
        for puller in list(self._pullers):
            puller.stop()

    def purge(self, queues: Iterable[str]) -> None:
        """Drop all messages of these queues, the delayed ones included."""

        async def purge(client: Client) -> None:
            js, subjects = client.jetstream(), self._streams.subjects
            for queue in queues:
                await js.purge_stream(subjects.stream(queue), subject=subjects.everything(queue))

        self._ask(purge)

    def calm(self, queue: str, keys: Iterable[str]) -> None:
        """Drop the delayed messages of these keys of a coalescing queue; returns at once.

        While there is no connection nothing is dropped. Raises ``ValueError`` for another queue.
        """
        subjects = self._streams.subjects
        if queue not in subjects.coalescing:
            raise ValueError(f"the messages of queue {queue!r} have no keys")
        place = f"$JS.API.STREAM.PURGE.{subjects.stream(queue)}"
        for key in keys:
            wanted = orjson.dumps({"filter": f"{subjects.delayed(queue, key)}>"})
            self.bridge.post(self.bridge.send, Wire(place, wanted))

    def tidy(self) -> None:
        """Drop the messages that were acknowledged and are there all the same.

        A server that is killed forgets which messages it removed in its last moments, and still
        knows how far each consumer has come: what lies before that is delivered to nobody again, and
        would stay for ever. So after each new connection it is called again until all that was there
        then has been dealt with; later it does nothing.
        """
        connections = self.bridge.connections
        if connections and connections == self._tidied:
            return

        async def purge(client: Client) -> bool:
            if self._last is None or self._last.connections != connections:
                self._last = await self._seen(client, connections)
            behind = [
                await self._purge(client, stream, seq) for stream, seq in self._last.seqs.items()
            ]
            return not any(behind)

        if self._ask(purge) is not False:
            self._tidied = max(1, connections)

    async def _seen(self, client: Client, connections: int) -> _Seen:
        js, subjects = client.jetstream(), self._streams.subjects
        infos = {name: await js.stream_info(name) for name in (subjects.steps, subjects.wakes)}
        return _Seen(connections, {name: info.state.last_seq for name, info in infos.items()})

    @staticmethod
    async def _purge(client: Client, stream: str, last: int) -> bool:
        """Drop what consumers are done with; whether one of them has some up to *last* before it."""
        js = client.jetstream()
        behind = False
        for consumer in await js.consumers_info(stream):
            floor = consumer.ack_floor.stream_seq if consumer.ack_floor else 0
            subject = consumer.config.filter_subject
            # Without a subject all that waits for other consumers would go, too.
            if floor and subject:
                await js.purge_stream(stream, seq=floor + 1, subject=subject)
            open_ = bool(consumer.num_pending or consumer.num_ack_pending)
            behind = behind or (open_ and floor < last)
        return behind

    def depth(self, queue: str) -> QueueDepth:
        """Count the messages of *queue*. Lists the delayed ones, so it costs by their number."""
        subjects = self._streams.subjects

        async def depth(client: Client) -> QueueDepth:
            js = client.jetstream()
            info = await js.stream_info(subjects.stream(queue), subjects.everything(queue))
            counts = info.state.subjects or {}
            at = subjects.delayed(queue)
            delayed = sum(count for name, count in counts.items() if name.startswith(at))
            stored = sum(counts.values()) - delayed
            try:
                consumer = await js.consumer_info(subjects.stream(queue), subjects.durable(queue))
            except NotFoundError:
                return QueueDepth(stored, 0, delayed)
            return QueueDepth(consumer.num_pending, consumer.num_ack_pending, delayed)

        return self._ask(depth) or QueueDepth(0, 0, 0)

    def waiting(self, queue: str) -> int:
        """How many messages of *queue* were never delivered. One cheap question."""
        consumer = self._consumer(queue)
        return self.depth(queue).waiting if consumer is None else int(consumer.num_pending or 0)

    def waited(self, queue: str) -> float:
        """Seconds since the oldest message of *queue* that was never delivered was stored; 0 for none."""
        consumer = self._consumer(queue)
        if consumer is not None and not consumer.num_pending:
            return 0.0
        delivered = consumer.delivered.stream_seq if consumer and consumer.delivered else 0
        subjects = self._streams.subjects

        async def oldest(client: Client) -> api.RawStreamMsg:
            found: api.RawStreamMsg = await client.jetstream().get_msg(
                subjects.stream(queue),
                seq=delivered + 1,
                subject=subjects.waiting(queue),
                next=True,
            )
            return found

        message = self._ask(oldest)
        if message is None or message.time is None:
            return 0.0
        # By our clock against the server's, which NTP keeps alike; it is compared with many seconds.
        return max(0.0, (datetime.now(UTC) - message.time).total_seconds())

    def epoch(self) -> str:
        """When each stream was made, now if it is missing; another text once one of them was lost."""
        subjects = self._streams.subjects

        async def born(client: Client) -> str:
            await self._streams.ensure(client)
            js = client.jetstream()
            infos = [await js.stream_info(name) for name in (subjects.steps, subjects.wakes)]
            return " ".join(str(info.created) for info in infos)

        return self.bridge.call(born, timeout=self._timeout)

    def _consumer(self, queue: str) -> api.ConsumerInfo | None:
        """What the server says of the queue's consumer; None while no worker ever asked for one."""
        subjects = self._streams.subjects

        async def info(client: Client) -> api.ConsumerInfo:
            found: api.ConsumerInfo = await client.jetstream().consumer_info(
                subjects.stream(queue), subjects.durable(queue)
            )
            return found

        return self._ask(info)

    def examine(self, queues: Iterable[str], *, timeout: float) -> Examined:
        """See ``examination.examine``; raises ``NatsUnreachableError`` after *timeout* seconds."""
        wanted = list(queues)
        return self.bridge.call(
            lambda client: examine(client, self._streams, wanted), timeout=timeout
        )

    def flush(self) -> None:
        """Wait until the server has read all that was acknowledged and given back."""
        if self.bridge.client is not None:
            self.bridge.flush()

    def close(self) -> None:
        """Give back whatever is left and close the connection. Final."""
        for puller in self._pullers:
            puller.stop()
            self.bridge.post(puller.abandon)
        self.bridge.close()

    def _ask(self, work: Callable[[Client], Coroutine[Any, Any, T]]) -> T | None:
        """The answer, or None where the stream or consumer is not there (yet, or any more)."""

        async def ask(client: Client) -> T | None:
            try:
                return await work(client)
            except NotFoundError:
                return None

        return self.bridge.call(ask, timeout=self._timeout)
