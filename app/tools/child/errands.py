"""The job of a child: what it needs around it, and then the program, agent or shell it is about."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from app.tools.child import jail, program

#: The shell program in the child's private folder: on the command line everybody could read it.
PROGRAM = ".program"


#: A job to do while nobody waits, for the reason that ``program.warm_up`` has.
NOTHING: Mapping[str, Any] = {"env": {}, "files": {}, "deps": {}}


class Impossible(Exception):  # noqa: N818 (an outcome, answered by zygote)
    """The job cannot be done here; ``kind`` is that of the error."""

    def __init__(self, message: str, kind: str = "schema") -> None:
        super().__init__(message)
        self.kind = kind


def prepare(job: Mapping[str, Any]) -> None:
    """Write the job's files, set its environment and folder, and find what it depends on."""
    os.environ.update(job["env"])
    home = os.getcwd()  # noqa: PTH109 (pathlib writes to 150 pages, each a copy after a fork)
    for number, (name, text) in enumerate(job["files"].items()):
        _write(f"{home}/.key-{number}", text)
        os.environ[name] = f"{home}/.key-{number}"
    if "program" in job:
        _write(f"{home}/{PROGRAM}", job["program"])
    if job["deps"]:
        _find(job["deps"])


def run(job: Mapping[str, Any], *, jailed: bool) -> None:
    """Do the job, answer, and end this process; see ``program.play`` for when it goes on."""
    home = os.getcwd() if job["kind"] == "shell" else ""  # noqa: PTH109 (the same)
    folder = jail.SHARED if jailed and job["folder"] else job["folder"]
    for place in (folder, job["cwd"]):
        if place:
            _enter(place)
    if folder and "HOME" not in job["env"]:
        os.environ["HOME"] = folder
    if job["kind"] == "agent" and job["cwd"]:
        sys.path.insert(0, job["cwd"])  # what is there can be imported, as with python -m
    if job["kind"] == "shell":
        _become_program([*job["argv"], f"{home}/{PROGRAM}"])
    program.play(job)


def _enter(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as exc:
        program.answer_error("not_found", f"cwd {folder} cannot be entered: {exc.strerror}")
        os._exit(1)
    os.environ["PWD"] = folder


def _write(path: str, text: str) -> None:
    """Write a file that nobody else can read, not even for a moment."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)


def _become_program(argv: list[str]) -> NoReturn:
    try:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.execvp(argv[0], argv)  # noqa: S606 (the program of the playbook, on purpose)
    except OSError as exc:
        program.answer_error("exit", f"{argv[0]} could not be started: {exc}")
        os._exit(127)


def _find(deps: Mapping[str, Any]) -> None:
    """Put the folders of *deps* before all others, and see that its packages are installed."""
    folders = list(deps.get("sys_path", ()))
    if venv := deps.get("venv_path"):
        found = sorted(Path(venv).glob("lib/python*/site-packages"))
        if not found:
            raise Impossible(f"deps.venv_path {venv} is no virtual environment")
        folders += map(str, found)
    sys.path[:0] = folders
    missing = [each for each in deps.get("packages", ()) if not _is_installed(each)]
    if missing:
        raise Impossible(
            f"deps: {', '.join(missing)} not installed for {sys.executable}; nothing is downloaded "
            "for a step: install it there, or name another interpreter with 'python'",
            kind="not_found",
        )


def _is_installed(requirement: str) -> bool:
    import importlib.metadata  # few need it, and every fork would have to carry it

    name = re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]
    try:
        importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
    return True
