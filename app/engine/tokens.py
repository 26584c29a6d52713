"""What is kept of a keychain's entries between two steps: the ports.

A row is one value, sealed. The lease beside it says who fetches its successor: one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

ScopeType = Literal["local", "shared", "global"]
CacheType = Literal["secret", "token"]


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """Where a value is kept: ``execution_id`` is that of a local one, or the root of a shared one.

    ``variant`` tells apart values of one entry that differ by workload or pool.
    """

    name: str
    catalog_id: int
    scope: ScopeType = "global"
    execution_id: int | None = None
    variant: str = ""

    @property
    def cache_key(self) -> str:
        """The key of its row, as it is known to users."""
        middle = {
            "local": f"{self.execution_id}",
            "shared": f"shared:{self.execution_id}",
            "global": "global",
        }[self.scope]
        key = f"{self.name}:{self.catalog_id}:{middle}"
        return f"{key}:{self.variant}" if self.variant else key


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A value as it is kept, sealed for ``token:<cache key>``."""

    place: TokenPlace
    sealed: str = field(repr=False)
    expires_at: datetime
    created_at: datetime
    credential_type: str | None = None
    cache_type: CacheType = "token"
    auto_renew: bool = False
    parent_execution_id: int | None = None
    accessed_at: datetime | None = None
    access_count: int = 0

    @property
    def cache_key(self) -> str:
        return self.place.cache_key


class TokenStore(Protocol):
    """Rows by cache key. Every method raises ``UnavailableError`` where the database is away."""

    def get(self, cache_key: str) -> TokenRow | None:
        """The row, whether it has expired or not; the access is counted."""

    def put(self, row: TokenRow) -> None:
        """Keep it in place of one of the same key."""

    def rows(self, catalog_id: int, name: str | None = None) -> Sequence[TokenRow]:
        """Those of a playbook's version, the newest first; no access is counted."""

    def delete(self, cache_key: str) -> bool:
        """Forget it; False where there is none."""

    def lease(self, cache_key: str, holder: str, *, seconds: float) -> bool:
        """Take or keep the right to put the next value; False while somebody else has it."""

    def settle(self, row: TokenRow, holder: str) -> bool:
        """Put the value and give the lease back; False, and nothing changed, without the lease."""

    def release(self, cache_key: str, holder: str) -> None:
        """Give the lease back, if *holder* has it."""

    def prune(self, *, older_than: float) -> int:
        """Forget what expired more than *older_than* seconds ago; how many rows."""

    def forget(self, execution_ids: Iterable[int]) -> None:
        """Forget what belongs to these executions alone."""
