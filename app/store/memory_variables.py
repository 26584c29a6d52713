"""The memory twin of variables."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from app.engine import encoding
from app.engine.ports import Clock
from app.engine.variables import Variable, VariableDraft


class MemoryVariables:
    """Variables of this process, by *clock*; see ``VariableStore``."""

    def __init__(self, *, clock: Clock = time.time) -> None:
        self._clock = clock
        self._kept: dict[tuple[int, str], Variable] = {}
        self._lock = threading.Lock()

    def put(self, execution_id: int, drafts: Sequence[VariableDraft]) -> None:
        # Nobody may reach into what is kept through an object of his own.
        values = [encoding.loads(encoding.dumps(draft.value)) for draft in drafts]
        with self._lock:
            for draft, value in zip(drafts, values, strict=True):
                known = self._kept.get((execution_id, draft.name))
                self._kept[execution_id, draft.name] = Variable(
                    name=draft.name,
                    value=value,
                    type=draft.type,
                    source_step=draft.source_step,
                    created_at=known.created_at if known else self._now(),
                    accessed_at=known.accessed_at if known else None,
                    access_count=known.access_count if known else 0,
                    expires_at=draft.expires_at,
                )

    def rows(self, execution_id: int) -> list[Variable]:
        with self._lock:
            there = self._there(execution_id)
        return sorted(there, key=lambda variable: variable.name)

    def read(self, execution_id: int, name: str) -> Variable | None:
        with self._lock:
            found = next((v for v in self._there(execution_id) if v.name == name), None)
            if found is None:
                return None
            read = replace(found, accessed_at=self._now(), access_count=found.access_count + 1)
            self._kept[execution_id, name] = read
            return read

    def delete(self, execution_id: int, name: str | None = None) -> int:
        with self._lock:
            there = [v.name for v in self._there(execution_id) if name in {None, v.name}]
            for each in there:
                del self._kept[execution_id, each]
            return len(there)

    def _there(self, execution_id: int) -> list[Variable]:
        now = self._now()
        return [
            variable
            for (owner, _), variable in self._kept.items()
            if owner == execution_id and (variable.expires_at is None or variable.expires_at > now)
        ]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)
