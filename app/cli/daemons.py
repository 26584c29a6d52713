"""``callboard server|worker start|stop``: single processes in the background, with PID files."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import psutil

from app.cli.output import print_json
from app.cli.pidfile import PidFile, Running, make_run_folder
from app.cli.programs import at_home, own_environment, worker_environment
from app.cli.ready import claim_port, problem_of
from app.cli.session import Commands, Failure, Session, json_option, pass_session
from app.errors import StartupError
from app.settings import Settings, check_exposure

#: How long a process may take to be up, in seconds.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Daemon:
    """A process in the background: what it is called, how it is run, where its API will be."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    url: str | None = None


@click.group(cls=Commands)
def server() -> None:
    """The API server as a background process of this machine."""


@server.command("start", epilog="\b\nExample:\n  callboard server start --port 8082 --init-db")
@click.option("--host", help="address to listen on")
@click.option("--port", type=click.IntRange(1, 65535), help="port to listen on")
@click.option("--init-db", is_flag=True, help="bring the database schema up to date first")
@json_option
@pass_session
def server_start(
    session: Session, host: str | None, port: int | None, init_db: bool, as_json: bool
) -> None:
    """Start it and return when it answers; its log is in HOME/run."""
    settings = session.load(
        host=host or session.overrides.get("host"), port=port or session.overrides.get("port")
    ).settings
    settings = at_home(settings)
    pidfile = PidFile.of(settings, "server")
    pidfile.claim("the server", remedy="stop it with 'callboard server stop'")
    check_exposure(settings)
    claim_port(settings.host, settings.port)
    command = ["-m", "app.server", "--host", settings.host, "--port", str(settings.port)]
    if init_db:
        command.append("--init-db")
    daemon = Daemon("server", command, own_environment(settings), settings.url)
    _start(daemon, pidfile, as_json=as_json)


@server.command("stop")
@click.option("-f", "--force", is_flag=True, help="kill it")
@json_option
@pass_session
def server_stop(session: Session, force: bool, as_json: bool) -> None:
    """Stop the server that was started with 'callboard server start'."""
    _stop(session.settings, "server", force=force, as_json=as_json)


@click.group(cls=Commands)
def worker() -> None:
    """Workers as background processes of this machine."""


@worker.command("start", epilog="\b\nExample:\n  callboard worker start -n second --threads 16")
@click.option("-n", "--name", default="worker", help="tells several workers of a machine apart")
@click.option("-m", "--max-workers", "--threads", "threads", type=int, help="steps at once")
@click.option("--pool", help="pool it belongs to")
@json_option
@pass_session
def worker_start(
    session: Session, name: str, threads: int | None, pool: str | None, as_json: bool
) -> None:
    """Start one and return when it runs; its log is in HOME/run."""
    settings = session.load(worker_threads=threads, pool=pool).settings
    settings = replace(settings, server_url=session.url)
    file = _worker_file(name)
    pidfile = PidFile.of(settings, file)
    pidfile.claim(f"worker {name!r}", remedy="stop it, or choose another --name")
    variables = worker_environment(settings)
    variables |= {"CALLBOARD_HOME": str(settings.home)}
    _start(Daemon(file, ["-m", "app.worker"], variables), pidfile, as_json=as_json)


@worker.command("stop")
@click.option("-n", "--name", default="worker", help="which one")
@click.option("-f", "--force", is_flag=True, help="kill it")
@json_option
@pass_session
def worker_stop(session: Session, name: str, force: bool, as_json: bool) -> None:
    """Stop a worker that was started with 'callboard worker start'; running steps may finish."""
    _stop(session.settings, _worker_file(name), force=force, as_json=as_json)


def _worker_file(name: str) -> str:
    if not name.replace("-", "").replace("_", "").isalnum():
        raise click.UsageError(f"--name {name!r}: letters, digits, - and _ only")
    return name if name == "worker" else f"worker-{name}"


def _start(daemon: Daemon, pidfile: PidFile, *, as_json: bool) -> None:
    make_run_folder(pidfile.path.parent)
    log = pidfile.path.with_suffix(".log")
    process = _launch(daemon, log)
    pidfile.write(Running.of(process.pid, daemon.url))
    try:
        _wait_up(daemon, process, log)
    except BaseException:
        process.kill()
        process.wait()
        pidfile.remove()
        raise
    if as_json:
        print_json({"status": "started", "pid": process.pid, "url": daemon.url, "log": str(log)})
    else:
        where = f" at {daemon.url}" if daemon.url else ""
        click.echo(f"{daemon.name} runs (process {process.pid}){where}; its log is {log}")
    # It outlives us on purpose, so nobody waits for it.
    process.returncode = 0


def _launch(daemon: Daemon, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, *daemon.command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=dict(daemon.environment),
            start_new_session=True,
        )


def _wait_up(daemon: Daemon, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when it answers (a server) or says that it started (a worker)."""
    deadline = time.monotonic() + PATIENCE
    while True:
        if process.poll() is not None:
            raise StartupError(f"{daemon.name} ended at once and said:\n{_tail(log)}")
        if _is_up(daemon, log):
            return
        if time.monotonic() > deadline:
            raise StartupError(
                f"{daemon.name} is not up after {PATIENCE:g} s and said:\n{_tail(log)}"
            )
        time.sleep(0.05)


def _is_up(daemon: Daemon, log: Path) -> bool:
    if daemon.url is not None:
        return problem_of(daemon.url) is None
    return "worker.started" in log.read_text(errors="replace")


def _tail(log: Path, lines: int = 6) -> str:
    said = log.read_text(errors="replace").strip().splitlines()[-lines:]
    return "\n".join(f"  {line}" for line in said) or "  nothing"


def _stop(settings: Settings, name: str, *, force: bool, as_json: bool) -> None:
    pidfile = PidFile.of(settings, name)
    running = pidfile.read()
    process = running.process() if running else None
    if process is None:
        pidfile.remove()
        _say_stopped(name, None, as_json=as_json)
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill() if force else process.terminate()
    try:
        process.wait(settings.grace + 10.0)
    except psutil.TimeoutExpired as exc:
        raise Failure(
            f"{name} (process {process.pid}) still runs after {settings.grace + 10:g} s "
            "(stop it with --force)"
        ) from exc
    pidfile.remove()
    _say_stopped(name, process.pid, as_json=as_json)


def _say_stopped(name: str, pid: int | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"status": "stopped" if pid else "not_running", "pid": pid})
    else:
        click.echo(f"{name} has stopped (process {pid})" if pid else f"no {name} is running")
