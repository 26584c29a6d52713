"""Variables of executions, for programs outside: ``/api/vars``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from app.engine.ports import Clock, EventLog
from app.engine.variables import RESERVED, Variable, VariableDraft, VariableStore
from app.errors import BadRequestError, NotFoundError
from app.services.large import size_of

#: Characters of a variable's name.
LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class About:
    """What all variables of one call share."""

    type: str = "user_defined"
    source_step: str | None = None
    ttl: float | None = None


class VariablesService:
    """Each method raises ``NotFoundError`` where there is no such execution."""

    def __init__(self, events: EventLog, store: VariableStore, *, most: int, clock: Clock) -> None:
        self._log = events
        self._store = store
        self._most = most
        self._clock = clock

    def put(self, execution_id: int, values: Mapping[str, Any], about: About) -> Sequence[str]:
        """Keep *values*, all or none; their names. Raises ``BadRequestError``."""
        self._check_execution(execution_id)
        for name, value in values.items():
            self._check(name, value)
        expires = None
        if about.ttl is not None:
            expires = datetime.fromtimestamp(self._clock(), UTC) + timedelta(seconds=about.ttl)
        self._store.put(
            execution_id,
            [
                VariableDraft(name, value, about.type, about.source_step, expires)
                for name, value in values.items()
            ],
        )
        return list(values)

    def rows(self, execution_id: int) -> list[Variable]:
        """All by name."""
        self._check_execution(execution_id)
        return self._store.rows(execution_id)

    def read(self, execution_id: int, name: str) -> Variable:
        """That one, this reading counted. Raises ``NotFoundError``."""
        self._check_execution(execution_id)
        found = self._store.read(execution_id, name)
        if found is None:
            raise _missing(execution_id, name)
        return found

    def delete(self, execution_id: int, name: str) -> None:
        """Forget it. Raises ``NotFoundError``."""
        self._check_execution(execution_id)
        if not self._store.delete(execution_id, name):
            raise _missing(execution_id, name)

    def clear(self, execution_id: int) -> int:
        """Forget all; how many there were."""
        self._check_execution(execution_id)
        return self._store.delete(execution_id)

    def _check(self, name: str, value: Any) -> None:
        if not name or len(name) > LONGEST_NAME or RESERVED in name or not name.isprintable():
            raise BadRequestError(
                f"{name[:LONGEST_NAME]!r} cannot be the name of a variable",
                remedy=f"use 1 to {LONGEST_NAME} printable characters, and no {RESERVED!r}",
            )
        size = size_of(value)
        if size > self._most:
            raise BadRequestError(
                f"the variable {name!r} of {size} bytes is above the limit of {self._most} "
                "(setting CALLBOARD_BLOB_BYTES)",
                remedy="keep large data as the result of a step, or as an artifact",
            )

    def _check_execution(self, execution_id: int) -> None:
        if self._log.summary(execution_id) is None:
            raise NotFoundError(
                f"there is no execution {execution_id}", remedy="see 'callboard executions'"
            )


def _missing(execution_id: int, name: str) -> NotFoundError:
    return NotFoundError(
        f"execution {execution_id} has no variable {name!r}",
        remedy=f"GET /api/vars/{execution_id} lists those there are",
    )
