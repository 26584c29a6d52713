"""Follows all events of all executions, as a live view or an exporter would."""

from __future__ import annotations

import threading
from typing import NamedTuple, Self

import psycopg

#: What is below the oldest running transaction can get no neighbour any more.
NEXT = """
SELECT e.xid::text, e.event_id, e.execution_id, e.seq, e.type FROM noetl.event e
WHERE (e.xid, e.event_id) > (%s::xid8, %s) AND e.xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY e.xid, e.event_id LIMIT 2000
"""
#: A claim commits before it is on disk, and can be read from then on. A Postgres that crashes may
#: lose it, and give its number to another transaction, below our place: that one would never come.
#: A commit of ours that waits for the disk makes everything durable that was read before.
SETTLE = "SELECT pg_logical_emit_message(true, 'callboard', '')"
PAUSE = 0.25


class Seen(NamedTuple):
    """One event that came."""

    execution_id: int
    seq: int
    event_id: int
    type: str


class Tail:
    """A context manager; ``seen`` has every event that came, in order."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._place = ("0", 0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tail", daemon=True)
        self.seen: list[Seen] = []
        self.interruptions = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Read to the end, which is reached when nothing runs any more, and stop."""
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        while True:
            try:
                with psycopg.connect(self._url, autocommit=True) as connection:
                    self._read(connection)
                    return
            except psycopg.OperationalError:
                # Postgres was killed; the place in the log is ours to remember.
                self.interruptions += 1
                self._over.wait(PAUSE)

    def _read(self, connection: psycopg.Connection) -> None:
        while True:
            last = self._over.is_set()
            came = self.poll(connection)
            if not came and last:
                return
            if not came:
                self._over.wait(PAUSE)

    def poll(self, connection: psycopg.Connection) -> bool:
        """Whether there was more to see."""
        rows = connection.execute(NEXT, self._place).fetchall()
        if rows:
            connection.execute(SETTLE)
        for xid, event_id, execution_id, seq, name in rows:
            self._place = (xid, event_id)
            self.seen.append(Seen(execution_id, seq, event_id, name))
        return bool(rows)
