"""Every sealed text in the database, by the key that it was sealed with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Table, func, select, update

from app.engine.custody import SealedRow, for_credential, for_token
from app.store.database import Database
from app.store.tables import credential, keychain

#: Of each table: its key, and what tells the purpose of a row from its name.
_KEYS: Mapping[str, tuple[Table, Column[Any]]] = {
    "credential": (credential, credential.c.name),
    "keychain": (keychain, keychain.c.cache_key),
}
_PURPOSES = {"credential": for_credential, "keychain": for_token}


class PostgresSealed:
    """See ``engine.custody.SealedRows``."""

    tables: Sequence[str] = tuple(_KEYS)

    def __init__(self, database: Database) -> None:
        self._database = database

    def key_ids(self) -> Mapping[str, int]:
        found: Counter[str] = Counter()
        with self._database.connect() as connection:
            for table, _ in _KEYS.values():
                key_id = _key_id(table)
                query = select(key_id, func.count()).group_by(key_id)
                if table is keychain:
                    query = query.where(keychain.c.expires_at > func.now())
                for name, count in connection.execute(query):
                    found[name] += count
        return found

    def under_other_keys(
        self, table: str, key_id: str, *, after: int | str | None, limit: int
    ) -> Sequence[SealedRow]:
        where, key = _KEYS[table]
        query = select(key, where.c.data_encrypted).where(_key_id(where) != key_id)
        if after is not None:
            query = query.where(key > after)
        with self._database.connect() as connection:
            rows = connection.execute(query.order_by(key).limit(limit)).all()
        about = _PURPOSES[table]
        return [SealedRow(table, name, about(name), sealed) for name, sealed in rows]

    def replace(self, changes: Sequence[tuple[SealedRow, str]]) -> int:
        done = 0
        with self._database.begin() as connection:
            for row, sealed in changes:
                table, key = _KEYS[row.table]
                statement = (
                    update(table)
                    .where(key == row.key, table.c.data_encrypted == row.sealed)
                    .values(data_encrypted=sealed)
                )
                done += connection.execute(statement).rowcount
        return done


def _key_id(table: Table) -> Any:
    """The second part of ``cb1.<key id>.…``; see ``keychain.envelope``."""
    return func.split_part(table.c.data_encrypted, ".", 2)
