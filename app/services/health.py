"""What is asked of everything that the control plane depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that work depends on; ``remedy`` says what to do where it is not ok.

    What is not ok with the severity ``warning`` does not keep this process from serving.
    """

    name: str
    ok: bool
    message: str = ""
    remedy: str | None = None
    severity: Severity = "error"

    @property
    def is_fatal(self) -> bool:
        return not self.ok and self.severity == "error"


class Health(Protocol):
    """What readiness asks; given by ``wiring``."""

    def checks(self) -> Sequence[Check]:
        """Look now. Never raises: what cannot be reached is a check that is not ok."""


class Doctor(Protocol):
    """What is asked about the whole installation; given by ``wiring``."""

    def examine(self) -> Sequence[Check]:
        """Look at all of it now. Never raises."""
