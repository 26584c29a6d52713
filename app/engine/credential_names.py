"""Which credentials a playbook names: every whole text in it may be the name of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from app.engine.playbook import Playbook


def names_in(playbook: Playbook) -> frozenset[str]:
    """All that *playbook* may mean by name: in steps, keychain and workload, or as required."""
    parts: Iterator[Any] = chain(
        (step.raw for step in playbook.steps.values()), playbook.keychain, [playbook.workload]
    )
    return frozenset(chain(playbook.executor.credentials, texts_in(list(parts))))


def texts_in(data: Any) -> Iterator[str]:
    """Every text that is a value somewhere in JSON data."""
    waiting = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
