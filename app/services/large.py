"""Keeps large values out of the log: the event carries a reference, `transient` the value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.engine.encoding import dumps
from app.engine.events import CtxUpdated, Event, LoopStarted, StepDone
from app.engine.ports import LogTransaction
from app.engine.values import FIELDS, is_reference, reference
from app.errors import BadRequestError


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the limits are: above *inline* bytes by reference, above *most* refused."""

    inline: int = 65_536
    most: int = 104_857_600

    def lighten(self, log: LogTransaction, execution_id: int, event: Event) -> Event:
        """*event* with each large value replaced by a reference, the value stored along with it."""
        match event:
            case StepDone():
                name = f"result/{event.step}/{event.visit}/{event.iteration}"
                result = self._light(log, execution_id, name, event.step, event.result)
                prefix = f"ctx/{event.step}/{event.visit}/{event.iteration}"
                ctx = self._light_each(log, execution_id, event.step, prefix, event.ctx)
                return replace(event, result=result, ctx=ctx)
            case LoopStarted():
                name = f"items/{event.step}/{event.visit}"
                return replace(
                    event, items=self._light(log, execution_id, name, event.step, event.items)
                )
            case CtxUpdated():
                prefix = f"set/{event.step}/{event.visit}"
                values = self._light_each(log, execution_id, event.step, prefix, event.values)
                return replace(event, values=values or {})
            case _:
                return event

    def _light_each(
        self,
        log: LogTransaction,
        execution_id: int,
        step: str,
        prefix: str,
        values: Mapping[str, Any] | None,
    ) -> dict[str, Any] | None:
        if not values:
            return None
        return {
            key: self._light(log, execution_id, f"{prefix}/{key}", step, value)
            for key, value in values.items()
        }

    def _light(
        self, log: LogTransaction, execution_id: int, name: str, step: str, value: Any
    ) -> Any:
        if value is None:
            return None
        if is_reference(value):
            # Only we make references: this is one that we handed out, or looks like one, and data now.
            value = {key: item for key, item in value.items() if key not in FIELDS}
        size = size_of(value)
        if size <= self.inline:
            return value
        if size > self.most:
            raise BadRequestError(
                f"a value of {size} bytes is above the limit of {self.most} (setting CALLBOARD_RESULT_BYTES)"
            )
        log.store_value(execution_id, name, value, source_step=step)
        return reference(execution_id, name, size, value)


def size_of(value: Any) -> int:
    """Bytes of *value* as JSON. Raises ``BadRequestError`` for what the store cannot keep."""
    return len(dumps(value))
