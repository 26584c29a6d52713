"""The virtual environments of the peers: made once, made anew when what they hold changes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE / ".venvs"
#: What an environment was made of; written last, so that half an environment is none.
STAMP = "made-of"


class EnvironmentFailedError(Exception):
    """An environment cannot be made; says why."""


def python_of(name: str, folder: Path = FOLDER) -> Path:
    """The interpreter of the environment *name*, whether it is there or not."""
    return folder / name / "bin" / "python"


def is_made(name: str, folder: Path = FOLDER) -> bool:
    """Whether the environment *name* is there, with what its requirements say now."""
    stamp = folder / name / STAMP
    return stamp.exists() and stamp.read_text() == _made_of(requirements(name))


def requirements(name: str) -> Path:
    """The file of pinned requirements of the environment *name*."""
    return HERE / f"requirements-{name}.txt"


def make(name: str, folder: Path = FOLDER, wanted: Path | None = None) -> Path:
    """Make the environment *name* where it is not there, from *wanted*; its interpreter.

    Raises ``EnvironmentFailedError`` with what ``venv`` or ``pip`` said last.
    """
    python, needs = python_of(name, folder), wanted or requirements(name)
    stamp = folder / name / STAMP
    if stamp.exists() and stamp.read_text() == _made_of(needs):
        return python
    shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    _run(sys.executable, "-m", "venv", str(folder / name))
    _run(
        *(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--requirement", str(needs)),
    )
    stamp.write_text(_made_of(needs))
    return python


def _made_of(needs: Path) -> str:
    return hashlib.sha256(sys.version.encode() + needs.read_bytes()).hexdigest()


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFailedError(str(error)) from error
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise EnvironmentFailedError(lines[-1] if lines else f"it ended with {done.returncode}")
