"""Resolved entries of keychains, kept by a worker process, and shared with others by the control plane.

Of all who want an entry at once one fetches it: one thread of this process, and by the turn that the
control plane gives one of all workers. A value that holds is used while its successor is fetched.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from app.actors.fetching import Asker
from app.errors import (
    CallboardError,
    ForbiddenError,
    NotFoundError,
    ToolError,
    UnavailableError,
)
from app.keychain.chain import Make
from app.keychain.entries import KINDS
from app.keychain.entry import Entry
from app.services.work import Worked
from app.wire import TokenAnswer, TokenPut, TokenRequest

log = structlog.get_logger(__name__)

#: Seconds that an attempt waits for a value that others fetch.
PATIENCE = 75.0
#: Seconds before its end that a value without ``auto_renew`` is fetched again.
LEEWAY = 10.0
#: Seconds after which a renewal that failed is tried again, while the old value holds.
AGAIN = 15.0
#: Values that a process keeps.
MOST = 1000
_LONGEST_PAUSE = 1.0

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A value; the moments are those of ``time.monotonic``."""

    fields: Mapping[str, Any] = field(repr=False)
    renew_at: float
    expires_at: float


@dataclass(slots=True)
class _Flight:
    """Those who want the same value now; the first of them fetches it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: int = 0
    failure: ToolError | None = None
    failed_at: float = 0.0


@dataclass(slots=True)
class HeldTokens:
    """The values of one process, and who fetches them; safe for threads."""

    _values: dict[Key, Held] = field(default_factory=dict, repr=False)
    _flights: dict[Key, _Flight] = field(default_factory=dict, repr=False)
    _guard: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def get(self, key: Key) -> Held | None:
        """The value while it holds."""
        with self._guard:
            held = self._values.get(key)
        return held if held is not None and time.monotonic() < held.expires_at else None

    def put(self, key: Key, held: Held) -> None:
        now = time.monotonic()
        with self._guard:
            self._values[key] = held
            if len(self._values) > MOST:
                valid = {k: each for k, each in self._values.items() if each.expires_at > now}
                while len(valid) > MOST:
                    del valid[next(iter(valid))]
                self._values = valid

    def one(self, key: Key, asker: Asker, fetch: Callable[[], Held]) -> Held:
        """The value, fetched by one thread at a time.

        Who waited while another one failed fails alike: 20 steps shall not ask 20 times.
        """
        held = self.get(key)
        if held is not None and time.monotonic() < held.renew_at:
            return held
        began = time.monotonic()
        with self._flight(key) as flight:
            while not flight.lock.acquire(timeout=0.05):
                held = self.get(key)
                if held is not None:
                    return held  # somebody renews it; it holds as yet
                check_time(asker, "a keychain entry")
            try:
                held = self.get(key)
                if held is not None and time.monotonic() < held.renew_at:
                    return held
                if flight.failure is not None and flight.failed_at > began:
                    raise again(flight.failure)
                return self._fetched(key, flight, fetch)
            finally:
                flight.lock.release()

    def _fetched(self, key: Key, flight: _Flight, fetch: Callable[[], Held]) -> Held:
        try:
            held = fetch()
        except ToolError as exc:
            # Being stopped is one attempt's own fate.
            if exc.kind != "cancelled":
                flight.failure, flight.failed_at = exc, time.monotonic()
            raise
        self.put(key, held)
        return held

    @contextmanager
    def _flight(self, key: Key) -> Iterator[_Flight]:
        with self._guard:
            flight = self._flights.setdefault(key, _Flight())
            flight.waiting += 1
        try:
            yield flight
        finally:
            with self._guard:
                flight.waiting -= 1
                if not flight.waiting:
                    self._flights.pop(key, None)


@dataclass(frozen=True, slots=True)
class SharedTokens:
    """The entries that one attempt reads; see ``keychain.chain.Keeping``."""

    work: Worked
    worker: str
    asker: Asker
    playbook: str
    held: HeldTokens
    conceal: Callable[..., None]
    ahead: float

    def get(self, entry: Entry, make: Make) -> Mapping[str, Any]:
        owner = None if entry.scope == "global" else self.asker.pointer.execution_id
        key = ("token", self.playbook, entry.name, entry.scope, entry.digest, owner)
        held = self.held.one(key, self.asker, lambda: self._fetched(entry, make))
        self._conceal(entry, held.fields)
        return held.fields

    def _fetched(self, entry: Entry, make: Make) -> Held:
        request = TokenRequest(
            **self.asker.pointer._asdict(),
            worker=self.worker,
            name=entry.name,
            scope=entry.scope,
            digest=entry.digest,
            holder=f"{self.worker[-200:]}:{uuid.uuid4().hex}",
            ahead=self.ahead if entry.auto_renew else LEEWAY,
        )
        answer = self._answer(request)
        if answer.data is not None:
            self._conceal(entry, answer.data)
        if answer.state == "kept":
            assert answer.data is not None
            return _held(answer.data, answer.expires_in, answer.renew_in)
        return self._made(entry, make, request, answer)

    def _made(self, entry: Entry, make: Make, request: TokenRequest, answer: TokenAnswer) -> Held:
        """The new value, in our turn; the old one where there is none to be had as yet."""
        started = time.monotonic()
        try:
            found = make(answer.data)
        except ToolError as exc:
            left = answer.expires_in - (time.monotonic() - started)
            if answer.data is None or left <= 0 or exc.kind == "cancelled":
                self._put(TokenPut(**request.model_dump()))
                raise
            # The turn is kept until it runs out: no worker asks again before.
            log.warning("keychain.not_renewed", entry=entry.name, error=str(exc))
            return _held(answer.data, left, min(AGAIN, left))
        except Exception:  # a bug of ours: others shall not wait until our turn runs out
            self._put(TokenPut(**request.model_dump()))
            raise
        life = entry.life(found.expires_in)
        fields = dict(found.fields)
        if life <= 0:
            self._put(TokenPut(**request.model_dump()))
            return _held(fields, 0.0, 0.0)
        put = TokenPut(
            **request.model_dump(),
            data=fields,
            ttl=life,
            kind=entry.kind,
            auto_renew=entry.auto_renew,
        )
        return _held(fields, life, self._put(put, life - min(request.ahead, life / 5)))

    def _put(self, put: TokenPut, renew_in: float = 0.0) -> float:
        """End our turn. Where that fails others fetch it, too: no reason to fail the step."""
        try:
            answer = self.work.put_token(put)
        except CallboardError as exc:
            log.warning("keychain.not_kept", entry=put.name, error=str(exc))
            return renew_in
        return answer.renew_in if answer.accepted and put.data is not None else renew_in

    def _answer(self, request: TokenRequest) -> TokenAnswer:
        """What the control plane says, asked for until it is the value or our turn."""
        what = f"keychain entry {request.name!r}"
        patience, pause = time.monotonic() + PATIENCE, 0.05
        while True:
            try:
                answer = self.work.take_token(request)
            except (NotFoundError, ForbiddenError) as exc:
                raise ToolError(str(exc), kind="auth") from exc
            except UnavailableError as exc:
                check_time(self.asker, what)
                log.warning("keychain.unavailable", entry=request.name, error=str(exc))
            else:
                if answer.state != "wait":
                    return answer
                if time.monotonic() > patience:
                    raise ToolError(
                        f"{what} is fetched by another worker, which does not end",
                        kind="timeout",
                        retryable=True,
                    )
            # Full jitter spreads those who wait for the same value.
            self.asker.stop.wait(random.uniform(0, pause))  # noqa: S311 (guards nothing)
            check_time(self.asker, what)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _conceal(self, entry: Entry, fields: Mapping[str, Any]) -> None:
        secrets = KINDS[entry.kind].secrets
        assert secrets is not None
        self.conceal(*secrets(fields))


def check_time(asker: Asker, what: str) -> None:
    """Raises ``ToolError`` where the attempt was stopped, or its time is over."""
    if asker.stop.is_set():
        raise ToolError("the attempt was stopped", kind="cancelled")
    if time.monotonic() > asker.deadline:
        raise ToolError(f"{what} was not there in time", kind="timeout", retryable=True)


def again(error: ToolError) -> ToolError:
    """The same error for somebody else: one object must not be raised by two threads."""
    return ToolError(
        error.message,
        kind=error.kind,
        retryable=error.retryable,
        error_code=error.error_code,
        details=error.details,
    )


def _held(fields: Mapping[str, Any], expires_in: float, renew_in: float) -> Held:
    now = time.monotonic()
    return Held(fields, now + renew_in, now + expires_in)
