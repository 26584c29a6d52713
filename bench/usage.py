"""What a round used: CPU seconds by process, transactions and WAL of the database server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
import psycopg


@dataclass(frozen=True, slots=True)
class Usage:
    """Totals since the start. ``cpu`` is seconds by process, its children included.

    ``commits`` counts transactions that wrote (it is the next transaction id), ``wal`` bytes.
    ``own`` is the measuring process' CPU, ``busy`` that of the whole machine, ``capacity`` what the
    machine could have given, all in seconds.
    """

    cpu: Mapping[str, float]
    commits: int
    wal: int
    own: float
    busy: float
    capacity: float

    @property
    def others(self) -> float:
        """The share of the machine that went to processes outside of the measurement."""
        rest = self.busy - self.own - sum(self.cpu.values())
        return max(0.0, rest / self.capacity)

    def since(self, before: Usage) -> Usage:
        """What was used between *before* and this."""
        cpu = {name: self.cpu[name] - before.cpu.get(name, 0.0) for name in self.cpu}
        return Usage(
            cpu,
            self.commits - before.commits,
            self.wal - before.wal,
            self.own - before.own,
            self.busy - before.busy,
            self.capacity - before.capacity,
        )


def usage(pids: Mapping[str, int], connection: psycopg.Connection) -> Usage:
    """The totals now."""
    row = connection.execute(
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint,"
        " pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
    ).fetchone()
    assert row is not None
    times = psutil.cpu_times()
    busy = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
    capacity = time.monotonic() * (psutil.cpu_count() or 1)
    by_name = {name: _cpu(pid) for name, pid in pids.items()}
    return Usage(by_name, row[0], row[1], time.process_time(), busy, capacity)


def _cpu(pid: int) -> float:
    """CPU seconds of a process, of its descendants, and of those that have ended."""
    total = 0.0
    root = psutil.Process(pid)
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total
