"""Celery on Valkey: canvas chains and chords, results in the same Valkey.

Every acknowledgement is late and every write is synced to disk before its answer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import redis
from celery import Celery, chain, chord, group
from celery.result import AsyncResult

from bench.peers.programs.driver import PATIENCE, VALKEY, serve

SOCKET = f"redis+socket://{os.environ[VALKEY]}"

app = Celery("peer", broker=SOCKET, backend=SOCKET, broker_connection_retry_on_startup=True)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=int(os.environ.get("PEER_PREFETCH", "4")),
    result_expires=3600,
    worker_send_task_events=False,
)


@app.task(name="step")
def step() -> int:
    return 1


class Client:
    def __init__(self) -> None:
        self._rows = redis.Redis(unix_socket_path=os.environ[VALKEY])

    def start(self, shape: str, steps: int) -> AsyncResult:
        if shape == "wide":
            return chord(group(step.si() for _ in range(steps - 1)), step.si()).apply_async()
        if steps == 1:
            return step.apply_async()
        return chain(*(step.si() for _ in range(steps))).apply_async()

    def wait(self, started: Sequence[AsyncResult]) -> None:
        for result in started:
            result.get(timeout=PATIENCE)

    def outcomes(self, started: Sequence[AsyncResult]) -> int:
        """The results that Valkey holds, whatever the client believes."""
        tasks = [task for result in started for task in _tasks(result)]
        values: Any = self._rows.mget([f"celery-task-meta-{task}" for task in tasks])
        found = [json.loads(value) for value in values if value is not None]
        return sum(one["status"] == "SUCCESS" and one["result"] == 1 for one in found)


def _tasks(result: AsyncResult) -> list[str]:
    """Its task and those before it, the parts of a group included."""
    ids: list[str] = []
    while result is not None:
        ids += [part.id for part in result.results] if hasattr(result, "results") else [result.id]
        result = result.parent
    return ids


if __name__ == "__main__":
    serve(Client())
