"""Waiting for conditions, where a test would otherwise sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T | None], *, seconds: float = 60.0, pause: float = 0.005) -> T:
    """What *condition* gives, once that is true; fails after *seconds*."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(pause)
    return found
