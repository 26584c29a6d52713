"""Waiting until database and disk have nothing left to do from the round before, whoever's it was."""

from __future__ import annotations

import os
import time

import psycopg

from bench.sides import FailedRunError

#: Statements of others that take longer than a poll or a heartbeat does.
_AT_WORK = """
SELECT count(*) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
  AND state = 'active' AND clock_timestamp() - query_start > interval '5 ms'
"""
#: Looks in a row that must find nothing, and seconds between two.
LOOKS, PAUSE = 25, 0.02
#: Seconds after which nobody waits any longer.
PATIENCE = 120.0


class RestlessError(FailedRunError):
    """Somebody keeps the database at work, so no round can be measured."""


def until_idle(connection: psycopg.Connection) -> None:
    """Return when no statement is left of the round before, and nothing of it to be written: a
    commit waits for the disk. Raises ``RestlessError``.
    """
    deadline = time.monotonic() + PATIENCE
    quiet = 0
    while quiet < LOOKS:
        row = connection.execute(_AT_WORK).fetchone()
        assert row is not None
        quiet = 0 if row[0] else quiet + 1
        if time.monotonic() > deadline:
            raise RestlessError(f"{row[0]} statements still run after {PATIENCE:g} s")
        time.sleep(PAUSE)
    os.sync()
