"""Who follows the log misses nothing, not even when Postgres forgets what was on no disk yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from app.embedded.postgres import EmbeddedPostgres
from app.engine.events import CtxUpdated, Event, ExecutionStarted
from app.engine.ports import Draft
from app.store.database import Database
from app.store.events import PostgresLog
from app.store.migrations import upgrade
from tests.chaos import tail as module
from tests.chaos.tail import Seen, Tail

#: What does not wait for the disk reaches it after 10 s, or with what waits.
LAZY = "wal_writer_delay = 10s\nwal_writer_flush_after = 1GB\nautovacuum = off\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path / "postgres") as own:
        upgrade(own.url)
        own.stop()
        (own.folder / "data" / "custom.conf").write_text(LAZY)
        own.start()
        yield own


def test_an_event_that_gets_the_number_of_a_lost_one_comes(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, there = followed_through_a_crash(server, 1)
    assert (len(there), seen) == (7, there)
    monkeypatch.setattr(module, "SETTLE", "SELECT 1")
    seen, there = followed_through_a_crash(server, 2)
    assert len(there) < 7, "Postgres lost nothing, so this test shows nothing"
    assert not set(there) <= set(seen), "the follower need not settle"


def followed_through_a_crash(server: EmbeddedPostgres, execution: int) -> tuple[list[Seen], ...]:
    """What came to a follower of the log, and what is in it."""
    pool = Database(server.url, pool_size=1)
    log, tail = PostgresLog(pool), Tail(server.url)
    append(log, execution, ExecutionStarted(7, "examples/demo", 3, {}), durable=True)
    for number in range(5):
        append(log, execution, CtxUpdated("a", number, {}), durable=False)
    look(tail, server)
    server.kill()
    server.start()
    append(log, execution, CtxUpdated("b", 1, {}), durable=True)
    look(tail, server)
    there = [
        Seen(execution, entry.seq, entry.event_id, entry.event.type)
        for entry in log.read(execution)
    ]
    pool.close()
    return [each for each in tail.seen if each.execution_id == execution], there


def append(log: PostgresLog, execution: int, event: Event, *, durable: bool) -> None:
    with log.transaction([execution], durable=durable) as tx:
        tx.append(execution, [Draft(event)])


def look(tail: Tail, server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        while tail.poll(connection):
            pass
