"""Postgres and NATS as victims: durable, reachable over TCP, with a disk that can be full or lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import psycopg

from app.embedded.nats import EmbeddedNats
from app.embedded.postgres import EmbeddedPostgres
from tests.chaos.proxy import Address

#: Bytes of the disk that NATS gets to itself where we may mount one.
DISK = 256 * 1024 * 1024


class Servers:
    """Both servers of one *home*."""

    def __init__(self, home: Path) -> None:
        self.postgres = EmbeddedPostgres(home / "postgres", tcp=True, durable=True)
        self.nats = EmbeddedNats(home / "nats")
        self.disk = Disk(self.nats.store)

    def __enter__(self) -> Self:
        self.nats.folder.mkdir(parents=True)
        self.disk.mount()
        self.postgres.start()
        self.nats.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.nats.stop()
        self.postgres.stop()
        self.disk.unmount()

    def addresses(self, server: str) -> list[Address]:
        """Where *server* (``postgres`` or ``nats``) listens now."""
        url = self.postgres.url if server == "postgres" else self.nats.url
        return [_address(url)]

    def url(self, server: str, port: int) -> str:
        """The URL of *server* for someone who reaches it at another *port*."""
        url = self.postgres.url if server == "postgres" else self.nats.url
        return url.replace(f":{_address(url)[1]}", f":{port}")

    def lose_store(self) -> None:
        """Delete all that NATS, which must be down, has on its disk."""
        for entry in self.nats.store.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def terminate_backends(self, share: float) -> int:
        """Have Postgres end about *share* of its sessions of our processes; how many those were."""
        with psycopg.connect(self.postgres.admin_url, autocommit=True) as connection:
            rows = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'callboard %%' AND random() < %s",
                [share],
            ).fetchall()
        return len(rows)


class Disk:
    """A small disk of its own for *folder*, where this user may mount one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.mounted = False

    def mount(self) -> None:
        """Put a file system of ``DISK`` bytes there, if that is allowed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if sys.platform == "linux" and os.geteuid() == 0:
            options = f"size={DISK},mode=0700"
            done = self._run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._folder))
            self.mounted = done == 0

    def unmount(self) -> None:
        if self.mounted:
            self._run("umount", "--lazy", str(self._folder))
            self.mounted = False

    @contextmanager
    def full(self) -> Iterator[None]:
        """Nothing more can be written to it for as long as the block lasts."""
        filler = self._folder / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 20)):
                pass
        try:
            yield
        finally:
            filler.unlink(missing_ok=True)

    @staticmethod
    def _run(*command: str) -> int:
        return subprocess.run(command, check=False, capture_output=True).returncode


def _address(url: str) -> Address:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port
