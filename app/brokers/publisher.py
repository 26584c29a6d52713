"""Publishing that waits for the server's word: many messages at once, one wake-up of the caller."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import nats.errors
import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from app.brokers.bridge import Bridge, Wire
from app.brokers.errors import NotStoredError, UnusableServerError
from app.brokers.streams import Streams

log = structlog.get_logger(__name__)

#: How often a message that the server refused is offered again after the streams were looked after.
MAX_REFUSALS = 2
#: Seconds between two looks after streams that are not there yet.
PAUSE = 0.1


class Parcel(NamedTuple):
    """What is to be stored: a subject, the encoded message, and headers for the server."""

    subject: str
    payload: bytes
    headers: dict[str, str] | None = None


@dataclass(slots=True, eq=False)
class _Batch:
    """Parcels of one caller. ``done`` is set once, when all are stored or one cannot be."""

    parcels: Sequence[Parcel]
    missing: int = 0
    error: str = ""
    failed: bool = False
    tokens: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True, eq=False)
class _Entry:
    """One parcel that is not stored yet."""

    batch: _Batch
    parcel: Parcel
    refusals: int = 0
    refused: bool = False


class Publisher:
    """Publishes through a bridge. ``publish`` may be called from any thread, the rest is the loop's."""

    def __init__(self, bridge: Bridge, streams: Streams, *, timeout: float) -> None:
        self._bridge = bridge
        self._streams = streams
        self._timeout = timeout
        self._open: dict[str, _Entry] = {}
        self._tokens = itertools.count()
        self._inbox = ""
        self._repairing = False
        bridge.listen(self)

    def publish(self, parcels: Sequence[Parcel]) -> None:
        """Store all *parcels*; returns when the server has confirmed every one.

        Raises ``NotStoredError`` after the timeout, or at once where NATS has been away for longer
        than that already. Some of the parcels may be stored all the same.
        """
        batch = _Batch(parcels, missing=len(parcels))
        if not parcels:
            return
        try:
            self._bridge.post(self._begin, batch)
            stored = batch.done.wait(self._timeout)
        except BaseException:
            # A time limit or an interrupt, thrown into this thread.
            self._bridge.post(self._forget, batch)
            raise
        if stored and not batch.failed:
            return
        if not stored:
            self._bridge.post(self._forget, batch)
        reason = batch.error or f"no answer within {self._timeout:g} s"
        raise NotStoredError(f"NATS at {self._bridge.address} did not store the message: {reason}")

    # On the loop

    def connected(self, client: Client) -> None:
        self._bridge.spawn(self._attach(client))

    def disconnected(self) -> None:
        self._inbox = ""

    async def _attach(self, client: Client) -> None:
        inbox = client.new_inbox()
        try:
            await client.subscribe(f"{inbox}.*", cb=self._answered)
        except nats.errors.Error:
            # The connection broke again; the next one attaches again.
            return
        self._inbox = inbox
        for token in list(self._open):
            self._send(token)

    def _begin(self, batch: _Batch) -> None:
        if self._bridge.client is None:
            away = time.monotonic() - self._bridge.down_since
            if away > self._timeout:
                self._fail(batch, f"no connection for {away:.0f} s")
                return
        for parcel in batch.parcels:
            token = str(next(self._tokens))
            batch.tokens.append(token)
            self._open[token] = _Entry(batch, parcel)
            self._send(token)

    def _send(self, token: str) -> None:
        entry = self._open.get(token)
        if entry is not None and self._inbox:
            subject, payload, headers = entry.parcel
            self._bridge.send(Wire(subject, payload, f"{self._inbox}.{token}", headers))

    async def _answered(self, msg: Msg) -> None:
        token = msg.subject.rpartition(".")[2]
        if token not in self._open:
            return
        if msg.headers is not None and msg.headers.get("Status") == "503":
            self._refused(token, "the stream is missing", temporary=True)
        elif b'"error"' in msg.data:
            error = orjson.loads(msg.data)["error"]
            self._refused(token, error.get("description", ""), temporary=error["code"] == 503)
        else:
            batch = self._open.pop(token).batch
            batch.missing -= 1
            if batch.missing == 0:
                batch.done.set()

    def _refused(self, token: str, reason: str, *, temporary: bool) -> None:
        entry = self._open[token]
        entry.batch.error = reason
        entry.refusals += 1
        entry.refused = True
        if not temporary and entry.refusals > MAX_REFUSALS:
            self._fail(entry.batch, reason)
        elif not self._repairing:
            self._repairing = True
            self._bridge.spawn(self._repair())

    async def _repair(self) -> None:
        """Look after the streams until they are there, then offer again what was refused."""
        try:
            while True:
                client = self._bridge.client
                if client is None or await self._repaired(client):
                    break
                await asyncio.sleep(PAUSE)
            if any(entry.refusals > 1 for entry in self._open.values()):
                # There, and refusing all the same: give the server time.
                await asyncio.sleep(PAUSE)
        finally:
            self._repairing = False
        for token, entry in list(self._open.items()):
            if entry.refused:
                entry.refused = False
                self._send(token)

    async def _repaired(self, client: Client) -> bool:
        try:
            await self._streams.ensure(client)
        except UnusableServerError as exc:
            for entry in list(self._open.values()):
                self._fail(entry.batch, str(exc))
        except (nats.errors.Error, TimeoutError) as exc:
            for entry in self._open.values():
                entry.batch.error = str(exc)
            return False
        return True

    def _fail(self, batch: _Batch, reason: str) -> None:
        batch.error, batch.failed = reason, True
        self._forget(batch)
        batch.done.set()

    def _forget(self, batch: _Batch) -> None:
        for token in batch.tokens:
            self._open.pop(token, None)
