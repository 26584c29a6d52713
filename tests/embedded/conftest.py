"""Homes and other processes for the tests of the embedded servers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from app.embedded.postgres import EmbeddedPostgres
from app.settings import process_environment
from tests.places import in_memory

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home() -> Iterator[Path]:
    """A short-pathed folder of its own, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="cb-", dir=in_memory()) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def shared_home() -> Iterator[Path]:
    """The same for all tests of a module."""
    with tempfile.TemporaryDirectory(prefix="cb-", dir=in_memory()) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def made_before() -> Iterator[Path]:
    """The folder of a Postgres after its first start and a stop."""
    with tempfile.TemporaryDirectory(prefix="cb-", dir=in_memory()) as folder:
        with EmbeddedPostgres(Path(folder, "postgres"), durable=False):
            pass
        yield Path(folder, "postgres")


@pytest.fixture
def old_home(home: Path, made_before: Path) -> Path:
    """A home whose first start was earlier; saves most of a second."""
    shutil.copytree(made_before, home / "postgres", symlinks=True)
    return home


def eventually(fact: Callable[[], bool], *, seconds: float = 30.0) -> bool:
    """Wait until *fact* holds; False where it does not within *seconds*."""
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def ended(pid: int) -> bool:
    """Whether process *pid* is gone; a zombie that its parent has not seen yet counts as gone."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def other_process() -> Iterator[Run]:
    """Start Python programs that import ours; killed at the end if they still run."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str, *words: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*before, sys.executable, "-c", program, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**process_environment(), "PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that *process* prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="is about starting as root")
