"""Ports on loopback that stay the same from one start to the next."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

from app.errors import StartupError

#: Below the range from which systems take ports for outgoing connections, so that none of those is
#: in our way at the next start.
FIRST, LAST = 14_000, 31_999


def kept_port(note: Path) -> int:
    """The port noted in *note* while nobody else listens on it; else a new one, noted there."""
    if note.exists() and is_free(port := int(note.read_text() or 0)):
        return port
    port = _free_port()
    note.write_text(f"{port}\n")
    return port


def is_free(port: int) -> bool:
    """Whether a server could listen on *port* of loopback now."""
    with socket.socket() as probe:
        # Connections of the last run may linger; servers ask for this option as well.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    for _ in range(200):
        if is_free(port := FIRST + secrets.randbelow(LAST - FIRST + 1)):
            return port
    raise StartupError(f"no free port found on 127.0.0.1 between {FIRST} and {LAST}")
