"""The floor's worker: claims, forks a child that does nothing, reports."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
from nats.aio.msg import Msg
from nats.js import api

from bench.floor import board, forks


class Hands(threading.local):
    """What each thread holds: its connection to the server and to the fork server."""

    folder: Path

    def __init__(self) -> None:
        self.http = http.client.HTTPConnection("127.0.0.1", int(os.environ[board.PORT]))
        self.forks = socket.socket(socket.AF_UNIX)
        self.forks.connect(str(self.folder / forks.NAME))

    def post(self, path: str, body: dict[str, object]) -> None:
        self.http.request("POST", path, orjson.dumps(body), {"Content-Type": "application/json"})
        answer = self.http.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}: {content!r}")

    def fork(self) -> bytes:
        """Have a child made, and its answer."""
        self.forks.sendall(b"1")
        return self.forks.recv(16)


class Worker:
    """Runs units on its threads."""

    def __init__(self) -> None:
        self.hands = Hands()
        self.threads = ThreadPoolExecutor(board.THREADS)
        self.tasks = board.Tasks()

    async def pointed(self, message: Msg) -> None:
        self.tasks.start(self._run(message))

    async def _run(self, message: Msg) -> None:
        execution, unit = map(int, message.data.split())
        await asyncio.get_running_loop().run_in_executor(self.threads, self._work, execution, unit)
        await message.ack()

    def _work(self, execution: int, unit: int) -> None:
        self.hands.post("/claim", {"execution": execution, "unit": unit})
        result = self.hands.fork().decode()
        self.hands.post("/report", {"execution": execution, "unit": unit, "result": result})


async def serve() -> None:
    """Run units until told to stop."""
    async with board.board() as here:
        worker = Worker()
        await here.streams.subscribe(
            "floor.pointers.*",
            stream=board.POINTERS,
            durable="worker",
            cb=worker.pointed,
            manual_ack=True,
            config=api.ConsumerConfig(max_ack_pending=2 * board.THREADS, ack_wait=board.ACK_WAIT),
        )
        await worker.tasks.stopped()
        worker.threads.shutdown()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="floor-") as folder:
        Hands.folder = Path(folder)
        command = [sys.executable, "-I", "-S", str(forks.__file__), folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            server.stdout.readline()
            try:
                asyncio.run(serve())
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
