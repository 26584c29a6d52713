"""What readiness asks of everything the control plane depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that work depends on; ``remedy`` says what to do where it is not ok."""

    name: str
    ok: bool
    message: str = ""
    remedy: str | None = None


class Health(Protocol):
    """What readiness asks; given by ``wiring``."""

    def checks(self) -> Sequence[Check]:
        """Look now. Never raises: what cannot be reached is a check that is not ok."""
