"""The server with keys that do not open what is stored: a real process, real servers."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

from app.engine.custody import CredentialDraft, for_credential
from app.keychain.keyring import Keyring
from app.settings import process_environment
from app.store.credentials import PostgresCredentials
from app.store.database import Database

OLD = bytes(range(32))


@pytest.mark.parametrize("keys", ["", f"new={base64.b64encode(bytes(32)).decode()}"])
def test_it_does_not_start_and_names_the_key(
    keys: str, database: str, nats: str, tmp_path: Path
) -> None:
    pool = Database(database, pool_size=1)
    sealed = Keyring({"key-of-2025": OLD}).seal(b"{}", for_credential("pg"))
    PostgresCredentials(pool).put(CredentialDraft("pg", "generic", sealed))
    pool.close()
    environment = process_environment() | {
        "DATABASE_URL": database,
        "NATS_URL": nats,
        "CALLBOARD_HOME": str(tmp_path),
        "CALLBOARD_ENCRYPTION_KEYS": keys,
        "PORT": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "app.server"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "keys that are not configured: 'key-of-2025' (1 rows)" in done.stdout + done.stderr
    assert "CALLBOARD_ENCRYPTION_KEYS" in done.stdout + done.stderr
