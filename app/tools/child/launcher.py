"""Owns the fork server of this worker process: starts it when needed, again when it died."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from app.errors import ToolError
from app.settings import child_environment
from app.tools.child.isolate import FIRST_UID, hide_memory
from app.tools.child.zygote import ANNOUNCED

log = structlog.get_logger(__name__)

# app.tools itself imports pydantic; the fork server must stay small, so stand-ins take its place.
BOOT = """
import sys, types
for name, path in zip(("app", "app.tools"), sys.argv[3:5]):
    sys.modules[name] = module = types.ModuleType(name)
    module.__path__ = [path]
from app.tools.child.zygote import main
main(int(sys.argv[1]), sys.argv[2], sys.argv[5].split(), jailed=sys.argv[6] == "jail")
"""


#: How many children wait for a job while there is none.
SPARES = 4


#: What the names of fork servers' folders begin with.
_FOLDERS = "callboard-children-"
#: Seconds after which a folder that nobody holds is nobody's: it is held a moment after it is made.
_YOUNG = 60.0


class Spare(NamedTuple):
    """A waiting child. Its descriptors (job, stdout, stderr, status) belong to who takes it, and
    reading or writing them waits for nothing."""

    zygote: Zygote
    pid: int
    descriptors: tuple[int, int, int, int]

    @property
    def status(self) -> int:
        """What becomes readable when the child ends."""
        return self.descriptors[3]

    @property
    def uid(self) -> int | None:
        """The user the child runs as; None where that is the worker's own."""
        return None if self.zygote.keeps_user_because else FIRST_UID + self.pid


def has_ended(spare: Spare) -> bool:
    """Whether the child that waits has ended meanwhile."""
    # select() cannot look at descriptors above 1023.
    poll = select.poll()
    poll.register(spare.status, select.POLLIN)
    return bool(poll.poll(0))


class Zygote:
    """One fork server. ``spare`` may be called by many threads at once."""

    def __init__(self, executable: str, preloaded: Sequence[str], *, jailed: bool = False) -> None:
        self.base = Path(tempfile.mkdtemp(prefix=_FOLDERS))
        self._hold = _held(self.base)
        self.base.chmod(0o711)  # children with users of their own pass through it
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._coming = 0
        self._broken = False
        self._socket, theirs = socket.socketpair()
        tools = Path(__file__).parents[1]
        places = (self.base, tools.parent, tools)
        try:
            self._process = subprocess.Popen(
                [
                    executable,
                    "-I",
                    "-c",
                    BOOT,
                    str(theirs.fileno()),
                    *map(str, places),
                    " ".join(preloaded),
                    "jail" if jailed else "plain",
                ],
                pass_fds=[theirs.fileno()],
                env=child_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as exc:
            self._socket.close()
            os.close(self._hold)
            shutil.rmtree(self.base, ignore_errors=True)
            raise ToolError(f"{executable} could not be started: {exc}", kind="not_found") from exc
        finally:
            theirs.close()
        greeting = self._greeting()
        self.keeps_user_because = greeting["keeps_user_because"]
        #: Why its children are not in jails, though they should be.
        self.no_jail_because = greeting["no_jail_because"]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._broken and self.owner == os.getpid() and self._process.poll() is None

    def spare(self) -> Spare:
        """A child that waits for its job. Raises ``OSError`` where the fork server is gone."""
        with self._lock:
            try:
                if not self._coming:
                    self._order(1)
                message, fds, _, _ = socket.recv_fds(self._socket, ANNOUNCED.size, 4)
                if not message:
                    raise ConnectionError("the fork server is gone")
            except OSError:
                # It may still look alive: a dying process is no zombie yet.
                self._broken = True
                raise
            self._coming -= 1
        (pid,) = ANNOUNCED.unpack(message)
        if pid < 0:
            raise ToolError(
                f"no process could be started for the step: {os.strerror(-pid)}",
                kind="resource",
                retryable=True,
            )
        job, out, err, status = fds
        for fd in fds:
            os.set_blocking(fd, False)
        return Spare(self, pid, (job, out, err, status))

    def replenish(self) -> None:
        """Have the next children made before they are needed: the fork is the dearest part of a
        step. To be called after a step, for it would compete with a running one for the processor.
        """
        # Where the fork server is gone, the next step finds out and starts another.
        with self._lock, contextlib.suppress(OSError):
            if self._coming <= SPARES // 2:
                self._order(SPARES - self._coming)

    def _order(self, number: int) -> None:
        if number > 0:
            self._socket.sendall(b"F" * number)
            self._coming += number

    def close(self) -> None:
        """Stop it and every child; returns when they are gone."""
        self._socket.close()
        os.close(self._hold)
        if self.owner != os.getpid():
            return
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
        shutil.rmtree(self.base, ignore_errors=True)

    def kill(self) -> None:
        """Stop it by force; its children die with it."""
        self._process.kill()
        self._process.wait()

    def _greeting(self) -> dict[str, str | None]:
        with self._socket.makefile("rb") as file:
            line = file.readline()  # nothing follows until we ask
        if not line:
            self.close()
            raise ToolError(
                f"the process that starts python steps ended at once (exit code "
                f"{self._process.returncode}); its messages are in the worker's stderr",
                kind="resource",
                retryable=True,
            )
        greeting: dict[str, str | None] = json.loads(line)
        return greeting


def _held(folder: Path) -> int:
    """A descriptor that holds *folder* until it is closed, as it is where we are killed."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def sweep() -> None:
    """Remove what fork servers left that were killed together with their worker: keys, too."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*"):
        # Another's, or held, or gone.
        with contextlib.suppress(OSError):
            about = folder.lstat()
            if about.st_uid == os.geteuid() and time.time() - about.st_mtime > _YOUNG:
                fd = _held(folder)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(fd)


class Breed(NamedTuple):
    """What the children of one fork server have in common."""

    executable: str
    preloaded: Sequence[str]
    jailed: bool


class Launcher:
    """The fork servers in use, made on first use: one per interpreter, modules and profile.

    *executable* is the Python that steps run in which ask for no other.
    """

    def __init__(self, executable: str = sys.executable) -> None:
        self.executable = executable
        self._lock = threading.Lock()
        self._zygotes: dict[Breed, Zygote] = {}

    def zygote(
        self, preloaded: Sequence[str], *, executable: str | None = None, jailed: bool = False
    ) -> Zygote:
        """A living fork server that has loaded these modules. Raises ``ToolError``."""
        breed = Breed(executable or self.executable, preloaded, jailed)
        with self._lock:
            current = self._zygotes.get(breed)
            if current is not None and current.alive:
                return current
            if current is not None:
                current.close()
                if current.owner == os.getpid():
                    log.warning("the process that starts steps died; starting it again")
            hide_memory()
            if not self._zygotes:
                sweep()
            made = self._zygotes[breed] = Zygote(breed.executable, preloaded, jailed=jailed)
            if current is None and made.keeps_user_because and os.geteuid() == 0:
                log.warning("steps run as root", because=made.keeps_user_because)
            return made

    def close(self) -> None:
        """Stop the fork servers; the next use starts others."""
        with self._lock:
            for zygote in self._zygotes.values():
                zygote.close()
            self._zygotes.clear()


launcher = Launcher()
atexit.register(launcher.close)
