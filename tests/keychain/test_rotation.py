"""From one key to the next: all of it, whenever it is interrupted; and what a backup shows."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.engine.custody import CredentialDraft, SealedRow, for_credential, for_token
from app.errors import StartupError
from app.keychain.keyring import Keyring
from app.services.rotation import Rotation, check_keys, rotated
from app.settings import process_environment
from app.store.catalog import PostgresCatalog
from app.store.credentials import PostgresCredentials
from app.store.database import Database
from app.store.sealed import PostgresSealed
from app.store.tables import metadata

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
BEFORE, AFTER = Keyring({"old": OLD}), Keyring({"new": NEW, "old": OLD})
ONLY_NEW = Keyring({"new": NEW})
TOKEN = (
    "INSERT INTO noetl.keychain (cache_key, keychain_name, catalog_id, cache_type, scope_type, "
    "data_encrypted, expires_at) VALUES (%s, 'k', %s, 'token', 'global', %s, "
    "now() + %s * interval '1 hour')"
)


@pytest.fixture
def pool(database: str) -> Iterator[Database]:
    opened = Database(database, pool_size=2)
    yield opened
    opened.close()


def secret(number: int) -> bytes:
    return b'{"password": "canary-%06d"}' % number


def fill(pool: Database, count: int) -> PostgresCredentials:
    """So many credentials under the old key."""
    store = PostgresCredentials(pool)
    for number in range(count):
        name = f"c{number}"
        sealed = BEFORE.seal(secret(number), for_credential(name))
        store.put(CredentialDraft(name, "generic", sealed))
    return store


def add_token(pool: Database, key: str, sealed: str, *, hours: int = 1) -> None:
    entry = PostgresCatalog(pool).add("p", "Playbook", "x", meta={})
    with pool.raw() as connection:
        connection.execute(TOKEN, (key, entry.catalog_id, sealed, hours))


def readable(store: PostgresCredentials, ring: Keyring) -> int:
    """How many come back as what they were."""
    rows = store.rows()
    for row in rows:
        assert ring.open(row.sealed, for_credential(row.name)) == secret(int(row.name[1:]))
    return len(rows)


def told(_renewed: int) -> None:
    """Nobody listens."""


def test_everything_goes_over_to_the_first_key(pool: Database) -> None:
    store = fill(pool, 205)
    add_token(pool, "k:1:global", BEFORE.seal(b"tok", for_token("k:1:global")))
    rows, heard = PostgresSealed(pool), list[int]()
    assert rows.key_ids() == {"old": 206}
    assert rotated(rows, AFTER, heard.append) == Rotation("new", 206, 0)
    assert heard == [100, 200, 205, 206]
    assert rows.key_ids() == {"new": 206}
    assert readable(store, ONLY_NEW) == 205
    with pool.raw() as connection:
        (token,) = connection.execute("SELECT data_encrypted FROM noetl.keychain").fetchall()
    assert ONLY_NEW.open(token[0], for_token("k:1:global")) == b"tok"
    assert rotated(rows, AFTER, told) == Rotation("new", 0, 0)


def test_what_changes_meanwhile_is_not_overwritten(pool: Database) -> None:
    store = fill(pool, 3)

    class Busy(PostgresSealed):
        """A server puts a credential between our reading and our writing."""

        def replace(self, changes: Any) -> int:
            if any(row.key == "c1" for row, _ in changes) and not put:
                put.append(1)
                sealed = BEFORE.seal(secret(7), for_credential("c1"))
                store.put(CredentialDraft("c1", "generic", sealed))
            return super().replace(changes)

    put: list[int] = []
    assert rotated(Busy(pool), AFTER, told) == Rotation("new", 3, 0)
    changed = store.named("c1")
    assert changed is not None
    assert ONLY_NEW.open(changed.sealed, for_credential("c1")) == secret(7)


def test_servers_that_go_on_with_the_old_key_are_noticed(pool: Database) -> None:
    store = fill(pool, 1)

    class Stubborn(PostgresSealed):
        def replace(self, changes: Any) -> int:
            sealed = BEFORE.seal(secret(0), for_credential("c0"))
            store.put(CredentialDraft("c0", "generic", sealed))
            return super().replace(changes)

    assert rotated(Stubborn(pool), AFTER, told) == Rotation("new", 0, 1)
    assert readable(store, BEFORE) == 1


def test_a_damaged_row_is_named_and_keeps_no_other_back(pool: Database) -> None:
    store = fill(pool, 3)
    damaged, other = store.named("c1"), store.named("c2")
    assert damaged is not None
    assert other is not None
    store.put(CredentialDraft("c1", "generic", other.sealed))
    done = rotated(PostgresSealed(pool), AFTER, told)
    assert (done.renewed, done.left) == (2, 1)
    (why,) = done.damaged
    assert "credential:c1 fails authentication" in why
    assert PostgresSealed(pool).key_ids() == {"old": 1, "new": 2}


def test_a_row_is_put_only_where_it_is_what_was_read(pool: Database) -> None:
    fill(pool, 1)
    rows = PostgresSealed(pool)
    (row,) = rows.under_other_keys("credential", "new", after=None, limit=5)
    stale = SealedRow(row.table, row.key, row.about, "cb1.old.x.y")
    assert rows.replace([(stale, "cb1.new.a.b")]) == 0
    assert rows.replace([(row, "cb1.new.a.b")]) == 1


# ---------------------------------------------------------------------- the start
def test_a_server_that_lacks_a_key_says_which(pool: Database) -> None:
    fill(pool, 2)
    rows = PostgresSealed(pool)
    check_keys(rows, AFTER)
    with pytest.raises(StartupError, match=r"not configured: 'old' \(2 rows\)"):
        check_keys(rows, ONLY_NEW)
    with pytest.raises(StartupError, match="'old'"):
        check_keys(rows, Keyring({}))


def test_what_has_expired_keeps_no_server_from_starting(pool: Database) -> None:
    add_token(pool, "gone", BEFORE.seal(b"x", for_token("gone")), hours=-1)
    check_keys(PostgresSealed(pool), ONLY_NEW)
    add_token(pool, "valid", BEFORE.seal(b"x", for_token("valid")))
    with pytest.raises(StartupError, match=r"'old' \(1 rows\)"):
        check_keys(PostgresSealed(pool), ONLY_NEW)


# ---------------------------------------------------------------------- a real process
@pytest.fixture
def rotate(database: str, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start ``callboard credential rotate``; killed after the test."""
    started: list[subprocess.Popen[str]] = []
    keys = ",".join(
        f"{name}={base64.b64encode(key).decode()}" for name, key in (("new", NEW), ("old", OLD))
    )
    environment = process_environment() | {
        "DATABASE_URL": database,
        "CALLBOARD_HOME": str(tmp_path),
        "CALLBOARD_ENCRYPTION_KEYS": keys,
    }

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "app.cli", "credential", "rotate"]
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_killed_midway_all_of_1000_are_readable_and_the_next_one_finishes(
    pool: Database, rotate: Callable[[], subprocess.Popen[str]]
) -> None:
    store, rows = fill(pool, 1000), PostgresSealed(pool)
    with pool.begin() as connection:
        # It cannot get past this row, however long we take to kill it.
        connection.exec_driver_sql("SELECT FROM noetl.credential WHERE name = 'c500' FOR UPDATE")
        first = rotate()
        assert first.stderr is not None
        assert first.stderr.readline() == "100 sealed again\n"
        os.kill(first.pid, signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
    between = rows.key_ids()
    assert between["old"] + between["new"] == 1000
    assert between["old"] > 0
    assert between["new"] >= 100
    assert readable(store, AFTER) == 1000

    out, err = rotate().communicate(timeout=60)
    assert out == f"{between['old']} sealed again with key new, 0 left\n", err
    assert rows.key_ids() == {"new": 1000}
    assert readable(store, ONLY_NEW) == 1000


def test_a_backup_holds_no_plaintext(pool: Database) -> None:
    fill(pool, 3)
    add_token(pool, "k", BEFORE.seal(b"canary-token", for_token("k")))
    dump = ""
    with pool.raw() as connection:
        for table in metadata.sorted_tables:
            rows = connection.execute(f"SELECT to_jsonb(t)::text FROM {table.fullname} t")
            dump += "".join(row[0] for row in rows)
    assert dump.count("cb1.old.") == 4
    decoded = [
        base64.urlsafe_b64decode(part + "==")
        for text in _texts(dump)
        for part in text.split(".")[2:]
    ]
    assert len(decoded) == 8
    assert all(b"canary" not in part for part in [*decoded, dump.encode()])


def _texts(dump: str) -> list[str]:
    return [text for text in json.dumps(dump).replace("\\", "").split('"') if text[:4] == "cb1."]
