"""The part of a transaction that goes by what is assumed, in both stores: it reads nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.engine.ahead import NotAsAssumedError
from app.engine.entry import Entry
from app.engine.events import StepKey
from app.engine.ports import AttemptState


class Unread:
    """Refuses what takes a look at the log, or a statement of its own; see ``LogTransaction``."""

    def read(self, execution_id: int, *, after: int = 0) -> list[Entry]:
        raise NotAsAssumedError(f"events of execution {execution_id} after {after} are to be read")

    def attempts(
        self, keys: Iterable[tuple[int, StepKey]]
    ) -> dict[tuple[int, StepKey], AttemptState]:
        raise NotAsAssumedError(f"the attempts of {list(keys)} are to be read")

    def under(self, execution_id: int, idempotency_key: str) -> Entry | None:
        raise NotAsAssumedError(f"what {execution_id} has under {idempotency_key} is to be read")

    def store_value(self, execution_id: int, name: str, value: Any, *, source_step: str) -> None:  # noqa: ARG002 (see ``LogTransaction``)
        raise NotAsAssumedError(f"a value of execution {execution_id} is to be stored")
