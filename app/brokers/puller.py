"""Pulling messages of one queue: credit, what is held, signs of life, and giving back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from app import failpoints
from app.brokers.bridge import Bridge, Wire
from app.brokers.delivery import FINAL, NAK, PROGRESS, Delivery
from app.brokers.errors import NatsUnreachableError, UnusableServerError
from app.brokers.slots import PATIENCE, Slots
from app.brokers.streams import Streams
from app.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable

log = structlog.get_logger(__name__)

#: How many ended messages a puller remembers, so as to run none again that the server delivers again.
REMEMBERED = 1024

#: Seconds a pull request lives on the server, and between its signs of life while it waits.
REQUEST_LIFE = 30.0
REQUEST_HEARTBEAT = 5.0
#: A request silent for this many heartbeats is lost: ask again, from a new inbox.
MISSED_HEARTBEATS = 2.5
#: Seconds in which the server must have heard that we want no more.
STOP_TIMEOUT = 2.0
#: Seconds between two attempts to find or make the consumer: the first, and the longest.
ATTACH_BACKOFF = (0.05, 2.0)


@dataclass(slots=True)
class _Keys:
    """Deliveries of a coalescing queue by subject: one waiting and one at work at the most.

    Used by the loop and by workers, hence the lock.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: dict[str, Delivery] = field(default_factory=dict)
    busy: dict[str, Delivery] = field(default_factory=dict)


class Puller:
    """Fetches up to *prefetch* messages of a queue into ``buffer`` and answers for all it holds.

    ``begin``, ``post_end``, ``stop`` and ``retire`` may be called from any thread, the rest is the
    loop's. ``stopped`` is True once nothing will come any more.
    """

    def __init__(
        self, bridge: Bridge, streams: Streams, queue: str, *, prefetch: int, slots: Slots
    ) -> None:
        self.queue = queue
        self.buffer: SimpleQueue[Delivery | None] = SimpleQueue()
        self.stopped = False
        self._bridge = bridge
        self._streams = streams
        self._prefetch = prefetch
        self._slots = slots
        # Ask again only when it is worth a message; a quarter leaves the workers enough to do.
        self._step = max(1, prefetch // 4)
        subjects = streams.subjects
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.stream(queue)}.{subjects.durable(queue)}"
        self._keys = _Keys() if queue in subjects.coalescing else None
        self._held: dict[int, Delivery] = {}
        self._ended: dict[int, bytes] = {}
        self._credit = 0
        self._requests = 0
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._heard = 0.0
        self._attaching: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._retired = False

    # From any thread

    def start(self) -> None:
        """Begin to fetch as soon as there is a connection."""
        self._bridge.post(self._start)

    def begin(self, delivery: Delivery) -> bool:
        if not self._slots.take(delivery, time.monotonic()):
            return False
        if self._keys is None:
            return True
        with self._keys.lock:
            if self._keys.waiting.get(delivery.subject) is delivery:
                del self._keys.waiting[delivery.subject]
            self._keys.busy[delivery.subject] = delivery
        return True

    def post_end(self, delivery: Delivery, verdict: bytes) -> None:
        self._bridge.post(self._end, delivery, verdict)

    def stop(self, also: Iterable[Delivery] = ()) -> None:
        """Fetch no more and give back at once whatever no worker has begun, *also* included.

        Messages at work stay ours, and kept alive, until they end.
        """
        if not self.stopped:
            self.stopped = True
            if self._bridge.client is None:
                self._bridge.post(self._give_back)
            else:
                # If it breaks meanwhile the server gives our messages to others after ack_wait.
                with contextlib.suppress(NatsUnreachableError):
                    self._bridge.call(self._stop, timeout=STOP_TIMEOUT)
            # Whoever waits for a message may stop waiting.
            self.buffer.put(None)
        for delivery in also:
            delivery.end(NAK)

    # On the loop

    def connected(self, client: Client) -> None:
        self.disconnected()
        if not self.stopped:
            self._attach(client)

    def disconnected(self) -> None:
        """Forget all requests: the server forgets them with the connection."""
        self._forget_requests()
        self._subscription = None

    def _forget_requests(self) -> None:
        self._credit = 0
        self._inbox = ""

    def _start(self) -> None:
        self._bridge.listen(self)
        self._slots.listen(self._top_up)
        self._watching = self._bridge.spawn(self._watch())

    def _attach(self, client: Client, *, patient: bool = False) -> None:
        if self._attaching is not None:
            self._attaching.cancel()
        self._attaching = self._bridge.spawn(self._attach_for_good(client, patient=patient))

    async def _attach_for_good(self, client: Client, *, patient: bool) -> None:
        """Make sure the consumer exists, then ask for messages; try until the connection ends."""
        pause, most = ATTACH_BACKOFF
        complained = False
        if patient:
            # A server that just refused is not asked again in a tight circle.
            await asyncio.sleep(_jittered(pause))
        while client is self._bridge.client and not self.stopped:
            try:
                await self._streams.ensure(client)
                await self._streams.ensure_consumer(client, self.queue)
                await self._subscribe(client)
            except (nats.errors.Error, TimeoutError, OSError, UnusableServerError) as exc:
                if not complained and client is self._bridge.client:
                    log.warning("queue_not_available", queue=self.queue, error=str(exc))
                    complained = True
                await asyncio.sleep(_jittered(pause))
                pause = min(most, pause * 2)
                continue
            self._top_up()
            return

    async def _subscribe(self, client: Client) -> None:
        """Listen on a new inbox, so that requests of the old one end and their count with them."""
        old, self._inbox, self._credit = self._subscription, client.new_inbox(), 0
        self._subscription = await client.subscribe(f"{self._inbox}.*", cb=self._received)
        if old is not None:
            # What is under way to the old inbox still arrives: drain waits for it.
            self._bridge.spawn(_drain(old))

    def _top_up(self) -> None:
        missing = self._missing()
        if missing < self._step and (missing < 1 or self._credit):
            return
        if self.stopped or not self._inbox:
            return
        if self._credit == 0:
            self._heard = asyncio.get_running_loop().time()
        self._credit += missing
        self._requests += 1
        request = b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}' % (
            missing,
            REQUEST_LIFE * 1e9,
            REQUEST_HEARTBEAT * 1e9,
        )
        self._bridge.send(Wire(self._next, request, f"{self._inbox}.{self._requests}"))

    def _missing(self) -> int:
        """How many more messages to ask for."""
        most = self._prefetch - len(self._held) - self._credit
        if self._slots.total is None:
            return most
        waiting = sum(not delivery.is_begun for delivery in self._held.values())
        ahead = 0 if self._slots.is_slow else self._prefetch // 2
        return min(most, self._slots.free + ahead - waiting - self._credit)

    async def _received(self, msg: Msg) -> None:
        self._heard = now = asyncio.get_running_loop().time()
        if not msg.reply:
            self._told(msg.headers or {})
            return
        self._credit = max(0, self._credit - 1)
        seq, count = _numbers(msg.reply)
        if self.stopped:
            self._bridge.send(Wire(msg.reply, NAK))
            return
        if self._known(seq, msg.reply, now):
            self._top_up()
            return
        arrived = time.monotonic()
        delivery = Delivery(self, msg.subject, msg.reply, seq, count, msg.data, now, arrived)
        if self._keys is None:
            self._held[seq] = delivery
            self.buffer.put(delivery)
        else:
            self._coalesce(self._keys, delivery)

    def _known(self, seq: int, reply: str, now: float) -> bool:
        """Whether this is a message we have or had: the server forgot what it heard of it.

        It does after kill -9, which takes what a consumer was told in the last moments.
        """
        if (verdict := self._ended.get(seq)) is not None:
            self._bridge.send(Wire(reply, verdict, keep=True))
            return True
        if (held := self._held.get(seq)) is not None:
            held.reply, held.seen = reply, now
            return True
        return False

    def _coalesce(self, keys: _Keys, delivery: Delivery) -> None:
        """Let a wake that nobody has begun stand for this one too; one at work is followed by one."""
        with keys.lock:
            waiting = keys.waiting.get(delivery.subject)
            if waiting is not None:
                # The newer message took the older one's place in the stream: answer for that.
                self._held.pop(waiting.seq, None)
                waiting.seq, waiting.reply, waiting.seen = (
                    delivery.seq,
                    delivery.reply,
                    delivery.seen,
                )
                self._held[waiting.seq] = waiting
                ready = False
            else:
                keys.waiting[delivery.subject] = delivery
                self._held[delivery.seq] = delivery
                ready = delivery.subject not in keys.busy
        if ready:
            self.buffer.put(delivery)
        self._top_up()

    def _told(self, headers: dict[str, str]) -> None:
        """The server speaks of a request: still waiting, ended, or impossible."""
        status = headers.get("Status", "")
        if status == "100":
            return
        left = headers.get("Nats-Pending-Messages")
        if left is not None:
            self._credit = max(0, self._credit - int(left))
            self._top_up()
        elif self._bridge.client is not None and not self.stopped:
            # The consumer is gone, moved or overcrowded: find or make it, and ask afresh.
            self._forget_requests()
            self._attach(self._bridge.client, patient=status != "503")

    def _end(self, delivery: Delivery, verdict: bytes) -> None:
        if self._held.get(delivery.seq) is not delivery:
            # It was given back, and may have come again: that one is not ours to end.
            return
        del self._held[delivery.seq]
        self._tell(delivery, verdict)
        self._slots.release(delivery)
        if verdict in FINAL:
            self._ended[delivery.seq] = verdict
            if len(self._ended) > REMEMBERED:
                del self._ended[next(iter(self._ended))]
        if self._keys is not None:
            self._release(self._keys, delivery)
        self._top_up()
        if self._retired and not self._held:
            self._finish()

    def _tell(self, delivery: Delivery, verdict: bytes) -> None:
        try:
            failpoints.before("broker.ack")
            self._bridge.send(Wire(delivery.reply, verdict, keep=True))
            failpoints.after("broker.ack")
        except UnavailableError as exc:
            # The server never heard it: after ack_wait it delivers again, and is told then.
            log.warning("message.not_ended", queue=self.queue, error=str(exc))

    def _release(self, keys: _Keys, delivery: Delivery) -> None:
        with keys.lock:
            if keys.waiting.get(delivery.subject) is delivery:
                del keys.waiting[delivery.subject]
            if keys.busy.get(delivery.subject) is not delivery:
                return
            del keys.busy[delivery.subject]
            follower = keys.waiting.get(delivery.subject)
        if follower is not None:
            self.buffer.put(follower)

    async def _watch(self) -> None:
        """Give signs of life for everything held, and notice requests that got lost."""
        loop = asyncio.get_running_loop()
        every = self._streams.ack_wait / 3
        while True:
            await asyncio.sleep(min(every, PATIENCE))
            self._hand_on()
            now = loop.time()
            for delivery in self._held.values():
                if now - delivery.seen >= every / 2:
                    delivery.seen = now
                    self._bridge.send(Wire(delivery.reply, PROGRESS))
            silent = now - self._heard > MISSED_HEARTBEATS * REQUEST_HEARTBEAT
            client = self._bridge.client
            if silent and self._credit > 0 and client is not None and not self.stopped:
                self._forget_requests()
                self._attach(client)

    def _hand_on(self) -> None:
        """Give back what waits here while every slot is taken by slow work: others may be free."""
        now = time.monotonic()
        for delivery in list(self._held.values()):
            if not self._is_parked(delivery) and self._slots.give_back(delivery, now):
                self._end(delivery, NAK)

    def _is_parked(self, delivery: Delivery) -> bool:
        """It waits for another of its key, which is at work here, and not for a slot."""
        if self._keys is None:
            return False
        with self._keys.lock:
            return delivery.subject in self._keys.busy

    async def _stop(self, _client: Client) -> None:
        subscription, self._subscription, self._inbox = self._subscription, None, ""
        if subscription is not None:
            # First no more requests, then the messages: else the server gives them back to us.
            await _drain(subscription)
        self._give_back()

    def _give_back(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                delivery = self.buffer.get_nowait()
                if delivery is not None:
                    self._end(delivery, NAK)
        if self._keys is not None:
            with self._keys.lock:
                parked = [d for s, d in self._keys.waiting.items() if s in self._keys.busy]
            for delivery in parked:
                self._end(delivery, NAK)

    def retire(self) -> None:
        """Nobody reads the buffer any more; keep alive what is at work until it ends."""
        self._give_back()
        self._retired = True
        if not self._held:
            self._finish()

    def abandon(self) -> None:
        """Give back everything, also what is at work: this process will not finish it."""
        for delivery in list(self._held.values()):
            self._end(delivery, NAK)

    def _finish(self) -> None:
        self._slots.unlisten(self._top_up)
        self._bridge.unlisten(self)
        if self._watching is not None:
            self._watching.cancel()


def _jittered(seconds: float) -> float:
    return random.uniform(seconds / 2, seconds)  # noqa: S311 (jitter, not secrecy)


async def _drain(subscription: Subscription) -> None:
    with contextlib.suppress(nats.errors.Error, OSError):
        await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py left it untyped


def _numbers(reply: str) -> tuple[int, int]:
    """(stream sequence, count of deliveries) from an acknowledgement subject.

    ``$JS.ACK.<stream>.<consumer>.<count>.<sequence>.…``; newer servers may put a domain and an
    account hash before the stream.
    """
    tokens = reply.split(".")
    first = 4 if len(tokens) == 9 else 6
    return int(tokens[first + 1]), int(tokens[first])
