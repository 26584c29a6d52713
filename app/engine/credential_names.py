"""Which credentials a playbook names: every whole text in it may be the name of one.

So may a text within a template: `{{ workload.db | default('warehouse') }}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from app.engine.playbook import Playbook
from app.engine.templates.template import has_template

_QUOTED = re.compile(r"'([^'\\]*)'|\"([^\"\\]*)\"")


def names_in(playbook: Playbook) -> frozenset[str]:
    """All that *playbook* may mean by name: in steps, keychain and workload, or as required."""
    parts: Iterator[Any] = chain(
        (step.raw for step in playbook.steps.values()), playbook.keychain, [playbook.workload]
    )
    texts = frozenset(texts_in(list(parts)))
    return texts.union(playbook.executor.credentials, *map(_quoted_in, texts))


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


def _quoted_in(text: str) -> Iterator[str]:
    """The texts that stand in the template parts of *text*."""
    if not has_template(text):
        return
    for opening, closing in (("{{", "}}"), ("{%", "%}")):
        for part in text.split(opening)[1:]:
            for one, other in _QUOTED.findall(part.partition(closing)[0]):
                yield one or other
