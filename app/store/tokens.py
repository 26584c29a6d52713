"""Values of keychains in ``noetl.keychain``, each sealed, and the leases of those who renew them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from app.engine.tokens import TokenPlace, TokenRow
from app.store.database import Database
from app.store.tables import keychain as k
from app.store.tables import keychain_lease as lease

_NOW = func.clock_timestamp()
_COLUMNS = (
    k.c.keychain_name,
    k.c.catalog_id,
    k.c.scope_type,
    k.c.execution_id,
    k.c.cache_key,
    k.c.data_encrypted,
    k.c.expires_at,
    k.c.created_at,
    k.c.credential_type,
    k.c.cache_type,
    k.c.auto_renew,
    k.c.parent_execution_id,
    k.c.accessed_at,
    k.c.access_count,
)


class PostgresTokens:
    """See ``engine.tokens.TokenStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, cache_key: str) -> TokenRow | None:
        statement = (
            update(k)
            .where(k.c.cache_key == cache_key)
            .values(accessed_at=_NOW, access_count=k.c.access_count + 1)
            .returning(*_COLUMNS)
        )
        with self._database.connect() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else _row(row)

    def put(self, row: TokenRow) -> None:
        with self._database.begin() as connection:
            connection.execute(_upsert(row))

    def rows(self, catalog_id: int, name: str | None = None) -> Sequence[TokenRow]:
        query = select(*_COLUMNS).where(k.c.catalog_id == catalog_id)
        if name is not None:
            query = query.where(k.c.keychain_name == name)
        with self._database.connect() as connection:
            found = connection.execute(query.order_by(k.c.created_at.desc(), k.c.cache_key))
            return [_row(row) for row in found]

    def delete(self, cache_key: str) -> bool:
        with self._database.begin() as connection:
            return connection.execute(delete(k).where(k.c.cache_key == cache_key)).rowcount == 1

    def lease(self, cache_key: str, holder: str, *, seconds: float) -> bool:
        until = _NOW + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
        taken = {"holder": holder, "until": until}
        statement = insert(lease).values(cache_key=cache_key, **taken)
        # One statement decides between two who ask at once: the second waits for the first's row.
        statement = statement.on_conflict_do_update(
            index_elements=[lease.c.cache_key],
            set_=taken,
            where=(lease.c.until < _NOW) | (lease.c.holder == holder),
        )
        with self._database.connect() as connection:
            return connection.execute(statement.returning(lease.c.holder)).one_or_none() is not None

    def settle(self, row: TokenRow, holder: str) -> bool:
        with self._database.begin() as connection:
            if connection.execute(_returned(row.cache_key, holder)).rowcount == 0:
                return False
            connection.execute(_upsert(row))
        return True

    def release(self, cache_key: str, holder: str) -> None:
        with self._database.begin() as connection:
            connection.execute(_returned(cache_key, holder))

    def prune(self, *, older_than: float) -> int:
        before = _NOW - func.make_interval(0, 0, 0, 0, 0, 0, older_than)
        with self._database.begin() as connection:
            connection.execute(delete(lease).where(lease.c.until < before))
            return connection.execute(delete(k).where(k.c.expires_at < before)).rowcount

    def forget(self, execution_ids: Iterable[int]) -> None:
        own = k.c.execution_id.in_(list(execution_ids))
        with self._database.begin() as connection:
            keys = connection.execute(delete(k).where(own).returning(k.c.cache_key)).scalars().all()
            connection.execute(delete(lease).where(lease.c.cache_key.in_(keys)))


def _returned(cache_key: str, holder: str) -> Any:
    return delete(lease).where(lease.c.cache_key == cache_key, lease.c.holder == holder)


def _upsert(row: TokenRow) -> Any:
    values = {
        "credential_type": row.credential_type,
        "cache_type": row.cache_type,
        "scope_type": row.place.scope,
        "execution_id": row.place.execution_id,
        "parent_execution_id": row.parent_execution_id,
        "data_encrypted": row.sealed,
        "expires_at": row.expires_at,
        "created_at": row.created_at,
        "auto_renew": row.auto_renew,
    }
    statement = insert(k).values(
        cache_key=row.cache_key,
        keychain_name=row.place.name,
        catalog_id=row.place.catalog_id,
        **values,
    )
    return statement.on_conflict_do_update(index_elements=[k.c.cache_key], set_=values)


def _row(row: Any) -> TokenRow:
    name, catalog_id, scope, execution_id, cache_key, sealed, *rest = row
    plain = TokenPlace(name, catalog_id, scope, execution_id)
    variant = cache_key.removeprefix(plain.cache_key).removeprefix(":")
    expires_at, created_at, type_, cache_type, auto_renew, parent, accessed_at, count = rest
    return TokenRow(
        place=TokenPlace(name, catalog_id, scope, execution_id, variant),
        sealed=sealed,
        expires_at=expires_at,
        created_at=created_at,
        credential_type=type_,
        cache_type=cache_type,
        auto_renew=auto_renew,
        parent_execution_id=parent,
        accessed_at=accessed_at,
        access_count=count,
    )
