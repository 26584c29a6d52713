"""One peer, started: its worker processes, and its client that runs a round when told to."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import psutil
import psycopg

from app.settings import process_environment
from bench.peers.catalogue import Spec
from bench.peers.programs import board
from bench.peers.programs.driver import DATABASE, PATIENCE, VALKEY
from bench.sides import FailedRunError
from bench.stack import Side, start_process
from bench.workloads import Workload

ROOT = Path(__file__).parents[2]


class Peer:
    """A side of the measurement. Its processes sleep (SIGSTOP) while others have their turn."""

    required: ClassVar[bool] = False

    def __init__(
        self, spec: Spec, client: subprocess.Popen[bytes], side: Side, asleep: Sequence[int]
    ) -> None:
        self.spec = spec
        self.side = side
        self.rows = psycopg.connect(side.database_url, autocommit=True)
        self._client = client
        self._asleep = asleep
        self._recorded = 0
        #: Why it has no figures, by workload.
        self.failed: dict[str, str] = {}

    def close(self) -> None:
        self.rows.close()

    def takes(self, workload: Workload) -> bool:
        """Whether it takes part in *workload*."""
        return workload.name in self.spec.workloads

    def prepare(self, workload: Workload) -> None:
        """Its workload comes with each order."""

    def run(self, workload: Workload) -> tuple[list[float], list[int]]:
        """One round: seconds as ``Round`` has them. Raises ``FailedRunError``."""
        crowd = workload.together and workload.shape == "chain"
        order = {
            "shape": "crowd" if crowd else workload.shape,
            "steps": workload.steps,
            "executions": workload.executions,
            "together": workload.together,
        }
        try:
            answer = self._ask(order)
        except FailedRunError as error:
            self.failed[workload.name] = str(error)
            raise
        self._recorded = answer["recorded"]
        return answer["seconds"], []

    def events(self, executions: Sequence[int]) -> int:  # noqa: ARG002 (a peer counts by rounds)
        """Outcomes that were recorded in the last round."""
        return self._recorded

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._client.stdin is not None
        try:
            self._client.stdin.write(json.dumps(order).encode() + b"\n")
            self._client.stdin.flush()
        except BrokenPipeError as error:
            raise FailedRunError(
                f"the client of {self.spec.title} has ended; see its log"
            ) from error
        return self.answer(seconds=PATIENCE + 60.0)

    def answer(self, seconds: float) -> dict[str, Any]:
        """What the client says next. Raises ``FailedRunError`` for an error, silence or an end."""
        out = self._client.stdout
        assert out is not None
        if not select.select([out], [], [], seconds)[0]:
            raise FailedRunError(f"{self.spec.title} did not answer within {seconds:g} s")
        line = out.readline()
        if not line:
            raise FailedRunError(f"the client of {self.spec.title} ended; see its log")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise FailedRunError(f"{self.spec.title}: {answer['error']}")
        return answer

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Awake inside, asleep outside: pollers would take their share of others' rounds."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let it run on, so that it can be stopped in order."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._asleep:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                for one in (process, *process.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.send_signal(number)


@contextlib.contextmanager
def started(
    spec: Spec, python: Path, database_url: str, folder: Path, valkey: tuple[str, int] | None
) -> Iterator[Peer]:
    """The peer, its workers up: one step has run. Raises ``FailedRunError`` where that fails.

    *valkey* is the socket and the process id of its server, where it needs one.
    """
    variables = {
        **process_environment(),
        "PYTHONPATH": str(ROOT),
        DATABASE: database_url,
        **spec.variables,
    }
    pids = {}
    if valkey is not None:
        variables[VALKEY], pids["valkey"] = valkey
    with ExitStack() as exits:
        _prepare(spec, python, database_url, variables)
        workers = [
            start_process(
                f"{spec.name}-worker-{number}",
                (str(python), "-m", *spec.work),
                {**variables, "PEER_EXECUTOR": f"worker-{number}"},
                folder,
                exits,
            )
            for number in range(spec.workers)
        ]
        client = _client(spec, python, variables, folder, exits)
        pids |= {f"worker-{number}": worker.pid for number, worker in enumerate(workers)}
        pids["client"] = client.pid
        asleep = [client.pid, *(worker.pid for worker in workers)]
        peer = Peer(spec, client, Side("", database_url, pids), asleep)
        exits.callback(peer.close)
        # Before the processes are stopped: one that sleeps does not hear.
        exits.callback(peer.wake)
        peer.answer(seconds=PATIENCE)
        yield peer


def _prepare(spec: Spec, python: Path, database_url: str, variables: dict[str, str]) -> None:
    if spec.schema:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(board.SCHEMA)
    if not spec.prepare:
        return
    command = [str(python), "-m", *spec.prepare]
    done = subprocess.run(
        command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        raise FailedRunError(f"{spec.title} cannot make its tables: {done.stderr[-500:]}")


def _client(
    spec: Spec, python: Path, variables: dict[str, str], folder: Path, exits: ExitStack
) -> subprocess.Popen[bytes]:
    log = exits.enter_context((folder / f"{spec.name}-client.log").open("wb"))
    process = subprocess.Popen(
        (str(python), "-m", *spec.client),
        env=variables,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
    )
    exits.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """Its standard input ends, and so does the client; its pipes are closed."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
