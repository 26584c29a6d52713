"""What a decision has added so far, folded at once, so that its later parts see it."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.engine.encoding import dumps
from app.engine.events import Event
from app.engine.names import Names
from app.engine.playbook import Playbook, Step
from app.engine.state import Execution, evolve
from app.engine.templates.template import render
from app.engine.values import Values
from app.errors import BadRequestError, TemplateError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep a playbook from running away; each is a setting."""

    max_visits: int = 10_000
    max_attempts: int = 5
    max_depth: int = 50
    loop_window: int = 1_000
    value_bytes: int = 104_857_600
    pool: str = "default"


class Ledger:
    """One decision: the state as it changes, and the events that changed it."""

    def __init__(
        self,
        execution_id: int,
        playbook: Playbook,
        state: Execution,
        values: Values,
        limits: Limits,
    ) -> None:
        self.execution_id = execution_id
        self.playbook = playbook
        self.state = state
        # New events are readable by their future seq, without touching what the caller keeps.
        self.values = replace(values, events=ChainMap({}, values.events))
        self.limits = limits
        self.events: list[Event] = []

    @property
    def names(self) -> Names:
        return Names(self.execution_id, self.state, self.values)

    def add(self, event: Event) -> None:
        seq = self.state.version + 1
        self.values.events[seq] = event
        self.state = evolve(self.state, event, seq)
        self.events.append(event)

    def step(self, name: str) -> Step:
        return self.playbook.steps[name]

    def check_storable(self, value: Any, where: str) -> None:
        """Raise ``TemplateError`` for a value that the log could not keep."""
        try:
            size = len(dumps(value))
        except BadRequestError as exc:
            raise TemplateError(f"'{where}' gave a value that cannot be kept: {exc}") from exc
        if size > self.limits.value_bytes:
            limit = f"{size} bytes are above {self.limits.value_bytes}"
            raise TemplateError(f"'{where}': {limit} (setting CALLBOARD_RESULT_BYTES)")

    def rendered(self, data: Mapping[str, Any], scope: Mapping[str, Any], where: str) -> Any:
        """*data* rendered, and fit to be kept. Raises ``TemplateError``."""
        value = render(data, scope)
        self.check_storable(value, where)
        return value
