"""What a source gave for an entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Found:
    """The fields of an entry, and for how many seconds they hold; None where nobody says."""

    fields: Mapping[str, Any] = field(repr=False)
    expires_in: float | None = None
