"""Clients that start executions at a steady rate, and do not give up until each is accepted."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson
import urllib3
from urllib3.exceptions import HTTPError

#: Starts under way at once.
CLIENTS = 16
#: Seconds that a client waits for one answer, and between two tries at the most.
TIMEOUT, PAUSE = 10.0, 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """One execution to be started, under a key of its own."""

    key: str
    path: str
    payload: Mapping[str, Any]


class Load:
    """Starts at the API of *url*; ``accepted`` has the execution of each key that was answered 2xx.

    ``answers`` counts every answer by its status, 0 for none; ``doubles`` has the keys that were
    answered with two different executions.
    """

    def __init__(self, url: str) -> None:
        self._pool = urllib3.connection_from_url(
            url, maxsize=CLIENTS, timeout=urllib3.Timeout(TIMEOUT), retries=False
        )
        self._guard = threading.Lock()
        self.over = threading.Event()
        self.accepted: dict[str, int] = {}
        self.answers: Counter[int] = Counter()
        self.doubles: list[str] = []
        self.refused: list[str] = []

    def run(self, starts: Sequence[Start], *, per_second: float) -> None:
        """Start them all; returns when each was accepted, or ``over`` was set."""
        begin = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as clients:
            for number, start in enumerate(starts):
                if self.over.wait(max(0.0, begin + number / per_second - time.monotonic())):
                    break
                clients.submit(self._insist, start)
        self._pool.close()

    def _insist(self, start: Start) -> None:
        while not self.over.is_set():
            status, body = self._try(start)
            with self._guard:
                self.answers[status] += 1
                if 200 <= status < 300:
                    self._accept(start, int(orjson.loads(body)["execution_id"]))
                    return
                if status not in {0, 503}:
                    self.refused.append(f"{status}: {body[:300].decode(errors='replace')}")
            self.over.wait(random.uniform(0.05, PAUSE))

    def _accept(self, start: Start, execution_id: int) -> None:
        if self.accepted.setdefault(start.key, execution_id) != execution_id:
            self.doubles.append(start.key)

    def _try(self, start: Start) -> tuple[int, bytes]:
        body = orjson.dumps({"path": start.path, "payload": dict(start.payload)})
        headers = {"content-type": "application/json", "idempotency-key": start.key}
        try:
            answer = self._pool.urlopen("POST", "/api/execute", body=body, headers=headers)
        except HTTPError:
            return 0, b""
        return answer.status, answer.data
