"""The control plane's HTTP server: ``python -m app.server --host --port --init-db``."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING

import structlog

from app.errors import StartupError, UnavailableError
from app.processes import Stop, keep_memory_flat, main, signs
from app.settings import Settings, check_exposure, process_name

if TYPE_CHECKING:
    from types import FrameType

    from fastapi import FastAPI

    from app.services.ends import Ends
    from app.wiring import Plane

log = structlog.get_logger(__name__)


def run(settings: Settings, *, init_db: bool = False) -> None:
    """Serve the API until told to stop. Raises ``StartupError`` before anything is served."""
    from app.actors.heartbeat import Heartbeat
    from app.api.app import create_app
    from app.readiness import examination
    from app.wire import Beat
    from app.wiring import control_plane, migrate

    stop = Stop().listen()
    check_exposure(settings)
    listener = listen(settings)
    if init_db:
        migrate(settings)
    name = process_name("server")
    with listener, control_plane(settings, "web") as plane, examination(plane) as health:
        _check_keys(plane)
        app = create_app(
            plane.control, settings, health=health, doctor=health, metrics=plane.metrics
        )
        heartbeat = Heartbeat(
            plane.control.presence.beat,
            lambda: Beat(name=name, kind="server_api", uri=settings.url, runtime=signs()),
            lambda _: None,
            interval=settings.heartbeat,
        )
        heartbeat.start()
        log.info("server.started", url=settings.url)
        keep_memory_flat()
        _serve(settings, app, listener, stop)
        heartbeat.stop()
        plane.control.presence.leave("server_api", name)
    log.info("server.stopped")


def _check_keys(plane: Plane) -> None:
    """Raise ``StartupError`` where the database holds what our keys do not open."""
    try:
        plane.check_keys()
    except UnavailableError as exc:
        # It may come up, or be migrated, later; readiness says so until then.
        log.warning("keys.not_checked", error=str(exc))


def listen(settings: Settings) -> socket.socket:
    """The listening socket. Raises ``StartupError`` where the port is taken or not ours to take."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as exc:
        listener.close()
        raise StartupError(
            f"cannot listen on {settings.host}:{settings.port}: {exc.strerror}",
            remedy="choose another port with NOETL_PORT (or PORT), or stop what uses this one",
        ) from exc
    listener.listen(1024)
    return listener


def _serve(settings: Settings, app: FastAPI, listener: socket.socket, stop: Stop) -> None:
    """Run uvicorn until a signal comes, and return then: what follows is for us to do.

    Requests that wait for an end are answered then. Where *stop* has heard one already, while we
    started, nothing is served.
    """
    import uvicorn

    ends: Ends = app.state.control.ends

    class Server(uvicorn.Server):
        # uvicorn's own handling raises the signal again after serving, which ends the process
        # before it has signed off.
        capture_signals = contextlib.nullcontext  # type: ignore[assignment]  # called without arguments

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            # In a thread: the lock that it takes may be held where the signal came.
            threading.Thread(target=ends.close, daemon=True).start()

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=int(settings.grace),
        timeout_keep_alive=75,
        server_header=False,
    )
    server = Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    if not stop.is_set:
        server.run(sockets=[listener])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.server", description=__doc__)
    parser.add_argument("--host", help="address to listen on (NOETL_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on (NOETL_PORT, PORT)")
    parser.add_argument("--init-db", action="store_true", help="migrate the database first")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    main(partial(run, init_db=arguments.init_db), host=arguments.host, port=arguments.port)
