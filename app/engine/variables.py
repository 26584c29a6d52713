"""Variables that programs outside keep with an execution; the playbook's own names are others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

#: What a variable may be called a type of.
TYPES = ("user_defined", "step_result", "computed", "iterator_state")
#: Kept results have a name with this in it, so no variable may.
RESERVED = "/"


@dataclass(frozen=True, slots=True)
class VariableDraft:
    """A variable to be kept; ``value`` is JSON data, ``expires_at`` None for one that stays."""

    name: str
    value: Any
    type: str = "user_defined"
    source_step: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable as it is kept. ``access_count`` is how often it was read by its name."""

    name: str
    value: Any
    type: str
    source_step: str | None
    created_at: datetime
    accessed_at: datetime | None
    access_count: int
    expires_at: datetime | None


class VariableStore(Protocol):
    """Variables by execution and name. An expired one is as good as gone.

    Kept results, which are in the same table, are neither seen nor touched by any of these.
    Every method raises ``UnavailableError`` where the database is away.
    """

    def put(self, execution_id: int, drafts: Sequence[VariableDraft]) -> None:
        """Keep all of them, or none; one of the same name is replaced and keeps its age and counts."""

    def rows(self, execution_id: int) -> list[Variable]:
        """All by name; that does not count as reading them."""

    def read(self, execution_id: int, name: str) -> Variable | None:
        """That one, this reading counted."""

    def delete(self, execution_id: int, name: str | None = None) -> int:
        """Forget that one, or all; how many were there."""
