"""The memory twin of the values of keychains."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from app.engine.ports import Clock
from app.engine.tokens import TokenRow


class MemoryTokens:
    """Values of this process, by *clock*; see ``engine.tokens.TokenStore``."""

    def __init__(self, *, clock: Clock = time.time) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._rows: dict[str, TokenRow] = {}
        self._leases: dict[str, tuple[str, float]] = {}

    def get(self, cache_key: str) -> TokenRow | None:
        now = datetime.fromtimestamp(self._clock(), UTC)
        with self._guard:
            row = self._rows.get(cache_key)
            if row is None:
                return None
            row = replace(row, accessed_at=now, access_count=row.access_count + 1)
            self._rows[cache_key] = row
            return row

    def put(self, row: TokenRow) -> None:
        with self._guard:
            self._put(row)

    def rows(self, catalog_id: int, name: str | None = None) -> Sequence[TokenRow]:
        with self._guard:
            found = [row for row in self._rows.values() if row.place.catalog_id == catalog_id]
        found = [row for row in found if name is None or row.place.name == name]
        found.sort(key=lambda row: row.cache_key)
        return sorted(found, key=lambda row: row.created_at, reverse=True)

    def delete(self, cache_key: str) -> bool:
        with self._guard:
            return self._rows.pop(cache_key, None) is not None

    def lease(self, cache_key: str, holder: str, *, seconds: float) -> bool:
        now = self._clock()
        with self._guard:
            owner, until = self._leases.get(cache_key, (holder, 0.0))
            if owner != holder and until >= now:
                return False
            self._leases[cache_key] = (holder, now + seconds)
            return True

    def settle(self, row: TokenRow, holder: str) -> bool:
        with self._guard:
            if not self._returned(row.cache_key, holder):
                return False
            self._put(row)
            return True

    def release(self, cache_key: str, holder: str) -> None:
        with self._guard:
            self._returned(cache_key, holder)

    def prune(self, *, older_than: float) -> int:
        before = self._clock() - older_than
        moment = datetime.fromtimestamp(self._clock(), UTC) - timedelta(seconds=older_than)
        with self._guard:
            self._leases = {key: each for key, each in self._leases.items() if each[1] >= before}
            gone = [key for key, row in self._rows.items() if row.expires_at < moment]
            for key in gone:
                del self._rows[key]
        return len(gone)

    def forget(self, execution_ids: Iterable[int]) -> None:
        gone = set(execution_ids)
        with self._guard:
            keys = [key for key, row in self._rows.items() if row.place.execution_id in gone]
            for key in keys:
                del self._rows[key]
                self._leases.pop(key, None)

    def _put(self, row: TokenRow) -> None:
        old = self._rows.get(row.cache_key)
        self._rows[row.cache_key] = replace(
            row,
            accessed_at=old.accessed_at if old else None,
            access_count=old.access_count if old else 0,
        )

    def _returned(self, cache_key: str, holder: str) -> bool:
        if self._leases.get(cache_key, ("", 0.0))[0] != holder:
            return False
        del self._leases[cache_key]
        return True
