"""The two that are measured, as their client sees them: start an execution, learn that it ended."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import orjson
import psycopg
import urllib3

from bench.stack import Side
from bench.workloads import Workload

#: Seconds between two looks at the log, and the part of what has passed that they are apart at least:
#: looking takes time from those that are measured.
PAUSE, PART = 0.002, 0.01
#: Seconds that a server is asked to put its answer off until the end.
ATTENTIVE = 10
#: Seconds until one execution of W1 counts as failed.
PATIENCE = 120.0
#: Threads that submit where executions run together.
SUBMITTERS = 8


class FailedRunError(Exception):
    """An execution did not end well, so its time means nothing."""


class Client(ABC):
    """Starts executions over HTTP. Whether one ended is asked over HTTP, whether many, of the log."""

    #: A failure of its ends the benchmark.
    required: ClassVar[bool] = True
    #: Counts those of the ids that ended, and those that ended well.
    ENDED: ClassVar[str]
    #: Counts the rows of the ids and of their children.
    EVENTS: ClassVar[str]

    def __init__(self, side: Side) -> None:
        self.side = side
        self.http = urllib3.connection_from_url(side.url, maxsize=8, retries=False, timeout=30.0)
        self.rows = psycopg.connect(side.database_url, autocommit=True)

    def close(self) -> None:
        self.http.close()
        self.rows.close()

    def takes(self, workload: Workload) -> bool:  # noqa: ARG002 (takes part in every one)
        return True

    def turn(self) -> contextlib.AbstractContextManager[None]:
        """Nothing: its processes are as they are in use."""
        return contextlib.nullcontext()

    @abstractmethod
    def prepare(self, workload: Workload) -> None:
        """Make the workload known."""

    @abstractmethod
    def start(self, workload: Workload) -> int:
        """Start one execution; its id."""

    @abstractmethod
    def has_ended(self, execution: int) -> bool:
        """Ask over HTTP, as a client would; the answer comes with the end, or after ``ATTENTIVE``."""

    @abstractmethod
    def seconds_since(self, step: str, execution: int) -> float:
        """Seconds from the end of *step* to that of *execution*, by the log."""

    def run(self, workload: Workload) -> tuple[list[float], list[int]]:
        """One round: seconds until each execution (or, together, all of them) ended, and ids."""
        return self._together(workload) if workload.together else self._one_by_one(workload)

    def _one_by_one(self, workload: Workload) -> tuple[list[float], list[int]]:
        seconds, executions = [], []
        for _ in range(workload.executions):
            began = time.perf_counter()
            execution = self.start(workload)
            if workload.asks_over_http:
                self.wait(execution)
            else:
                self.wait_all([execution], workload.patience)
            took = time.perf_counter() - began
            if workload.timed_from is not None:
                took = self.seconds_since(workload.timed_from, execution)
            seconds.append(took)
            executions.append(execution)
        return seconds, executions

    def _together(self, workload: Workload) -> tuple[list[float], list[int]]:
        began = time.perf_counter()
        if workload.executions == 1:
            executions = [self.start(workload)]
        else:
            with ThreadPoolExecutor(SUBMITTERS) as pool:
                executions = list(pool.map(self.start, [workload] * workload.executions))
        self.wait_all(executions, workload.patience)
        return [time.perf_counter() - began], executions

    def wait(self, execution: int) -> None:
        """Return when its client knows that it ended."""
        deadline = time.monotonic() + PATIENCE
        while not self.has_ended(execution):
            if time.monotonic() > deadline:
                raise FailedRunError(f"execution {execution} did not end in {PATIENCE:g} s")

    def wait_all(self, executions: Sequence[int], patience: float = PATIENCE) -> None:
        """Return when all have ended. Raises ``FailedRunError`` where one did not end well."""
        began = time.monotonic()
        while True:
            row = self.rows.execute(self.ENDED, (list(executions),)).fetchone()
            assert row is not None
            ended, well = row
            if ended > well:
                raise FailedRunError(
                    f"{type(self).__name__}: {ended - well} of {len(executions)} executions failed"
                )
            if ended == len(executions):
                return
            if ended > len(executions):
                raise FailedRunError(
                    f"{type(self).__name__}: {len(executions)} executions ended {ended} times"
                )
            passed = time.monotonic() - began
            if passed > patience:
                missing = len(executions) - ended
                raise FailedRunError(
                    f"{type(self).__name__}: {missing} of {len(executions)} executions did not end"
                    f" in {patience:g} s; they have {self.events(executions)} events"
                )
            time.sleep(max(PAUSE, PART * passed))

    def events(self, executions: Iterable[int]) -> int:
        """How many rows of the log they have."""
        row = self.rows.execute(self.EVENTS, (list(executions),)).fetchone()
        assert row is not None
        return int(row[0])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON that *path* answers."""
        raw = orjson.dumps(body) if isinstance(body, dict) else body
        answer = self.http.request(
            method, path, body=raw, headers={"Content-Type": "application/json"}
        )
        if answer.status >= 300:
            raise FailedRunError(f"{method} {path} answered {answer.status}: {answer.data[:500]!r}")
        return orjson.loads(answer.data)


class Engine(Client):
    """Callboard."""

    ENDED = (
        "SELECT count(*), count(*) FILTER (WHERE status = 'COMPLETED') FROM noetl.execution"
        " WHERE execution_id = ANY(%s) AND status <> 'RUNNING'"
    )
    EVENTS = """
        WITH RECURSIVE family AS (
            SELECT unnest(%s::bigint[]) AS execution_id
            UNION ALL
            SELECT child.execution_id FROM noetl.execution child
            JOIN family ON child.parent_execution_id = family.execution_id)
        SELECT count(*) FROM noetl.event JOIN family USING (execution_id)
    """
    SINCE = """
        SELECT extract(epoch FROM max(created_at) FILTER (WHERE type = 'execution.completed')
            - max(created_at) FILTER (WHERE type = 'step.done' AND step = %s))
        FROM noetl.event WHERE execution_id = %s
    """

    def prepare(self, workload: Workload) -> None:
        for content in workload.playbooks:
            self.ask("POST", "/api/catalog/register", {"content": content})

    def start(self, workload: Workload) -> int:
        body = {"path": workload.path}
        return int(self.ask("POST", "/api/execute", body)["execution_id"])

    def has_ended(self, execution: int) -> bool:
        status = self.ask(
            "GET", f"/api/executions/{execution}/cancellation-check?wait={ATTENTIVE}"
        )["status"]
        if status in {"FAILED", "CANCELLED"}:
            raise FailedRunError(f"execution {execution} is {status}")
        return bool(status == "COMPLETED")

    def seconds_since(self, step: str, execution: int) -> float:
        row = self.rows.execute(self.SINCE, (step, execution)).fetchone()
        assert row is not None
        return float(row[0])


class Floor(Client):
    """The same hops, bare."""

    ENDED = "SELECT count(*), count(*) FROM event WHERE execution = ANY(%s) AND type = 'ended'"
    EVENTS = """
        WITH roots AS (SELECT unnest(%s::bigint[]) AS execution)
        SELECT count(*) FROM event WHERE execution IN (
            SELECT execution FROM roots UNION ALL
            SELECT event.execution FROM event JOIN roots
                ON roots.execution = (payload ->> 'parent')::bigint WHERE type = 'started')
    """

    def prepare(self, workload: Workload) -> None:
        """Its plan comes with each start."""

    def start(self, workload: Workload) -> int:
        plan = {"shape": workload.shape, "size": workload.steps}
        return int(self.ask("POST", "/start", plan)["execution_id"])

    def has_ended(self, execution: int) -> bool:
        return bool(
            self.ask("GET", f"/ended/{execution}?wait={ATTENTIVE}")["status"] == "COMPLETED"
        )

    def seconds_since(self, step: str, execution: int) -> float:
        raise NotImplementedError("its steps have no names")
