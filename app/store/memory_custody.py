"""The memory twins of what is kept in confidence."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from itertools import count

from app.engine.custody import CredentialDraft, CredentialRow


class MemoryCredentials:
    """Credentials of this process; see ``CredentialStore``."""

    def __init__(self) -> None:
        self._rows: dict[str, CredentialRow] = {}
        self._ids = count(1)
        self._lock = threading.Lock()

    def put(self, draft: CredentialDraft) -> CredentialRow:
        now = datetime.now(UTC)
        with self._lock:
            old = self._rows.get(draft.name)
            row = CredentialRow(
                id=old.id if old else next(self._ids),
                name=draft.name,
                type=draft.type,
                sealed=draft.sealed,
                meta=draft.meta,
                tags=list(draft.tags),
                description=draft.description,
                scope=draft.scope,
                created_at=old.created_at if old else now,
                updated_at=now,
            )
            self._rows[draft.name] = row
            return row

    def named(self, name: str) -> CredentialRow | None:
        return self._rows.get(name)

    def numbered(self, id: int) -> CredentialRow | None:  # noqa: A002 (the port's)
        return next((row for row in list(self._rows.values()) if row.id == id), None)

    def rows(
        self,
        *,
        type: str | None = None,  # noqa: A002 (the port's)
        q: str | None = None,
    ) -> list[CredentialRow]:
        rows = sorted(self._rows.values(), key=lambda row: row.name)
        return [row for row in rows if type in {None, row.type} and _matches(row, q)]

    def delete(self, id: int) -> bool:  # noqa: A002 (the port's)
        with self._lock:
            found = self.numbered(id)
            return found is not None and self._rows.pop(found.name, None) is not None


def _matches(row: CredentialRow, q: str | None) -> bool:
    if not q:
        return True
    texts = [row.name, row.description or "", *row.tags]
    return any(q.lower() in text.lower() for text in texts)
