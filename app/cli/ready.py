"""Asks the API whether it is ready, by the standard library only: it is asked before anything works."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit

from app.errors import StartupError


def problem_of(url: str, *, timeout: float = 2.0) -> str | None:
    """None where ``GET url/readyz`` says ready, else what is missing, in one line.

    Without NATS a server still serves, and nothing would run: to begin with, it must be there.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as exc:
        return f"{url} does not answer: {exc}"
    finally:
        connection.close()
    failed = _failed_checks(body)
    if answer.status == 200:
        failed = [check for check in failed if check.get("name") == "nats"]
    said = "; ".join(f"{check.get('name')}: {check.get('message')}" for check in failed)
    return said or (None if answer.status == 200 else f"/readyz answers {answer.status}")


def _failed_checks(body: bytes) -> list[dict[str, Any]]:
    """The checks that fail; their list is in ``checks``."""
    try:
        checks: Any = json.loads(body).get("checks", [])
        return [check for check in checks if not check.get("ok")]
    except (ValueError, AttributeError):
        return []


def claim_port(host: str, port: int) -> None:
    """Raise ``StartupError`` where nobody could listen on *host* and *port* now."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise StartupError(f"no such address: {host}", remedy="set --host to one of ours") from exc
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        # Connections of the last run may linger; the server asks for this option as well.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except PermissionError as exc:
            raise StartupError(
                f"port {port} needs more rights than we have", remedy="choose one above 1023"
            ) from exc
        except OSError as exc:
            raise StartupError(
                f"port {port} on {host} cannot be used: {exc.strerror}",
                remedy="stop what listens there, or choose another port with --port",
            ) from exc


def free_port() -> int:
    """A port of loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
