"""Which credentials a playbook names: every whole text in it may be the name of one.

So may a text within a template: `{{ workload.db | default('warehouse') }}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from app.engine.playbook import Playbook
from app.engine.templates.scope import Scope
from app.engine.templates.template import has_template, render
from app.errors import TemplateError

#: Where tools and keychain entries name credentials.
_KEYS = ("auth", "credential", "credentials", "ref", "gcs_credential", "catalog_connection")
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


def computed_names(playbook: Playbook, step: str, workload: Mapping[str, Any]) -> set[str]:
    """What the credentials' keys of *step* and of the keychain come to with nothing but *workload*.

    Who starts an execution may name any credential in its workload anyway; results of steps are
    data from outside, and name none.
    """
    found = playbook.steps.get(step)
    parts = list(_credential_keys([found.raw if found else {}, *playbook.keychain]))
    scope = Scope(workload)
    names: set[str] = set()
    for text in filter(has_template, texts_in(parts)):
        try:
            names.add(str(render(text, scope)))
        except TemplateError:
            continue  # it names what only the step knows
    return names


def _credential_keys(data: Any) -> Iterator[Any]:
    """What stands under the keys that name credentials, at any depth."""
    waiting = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            yield from (value[key] for key in _KEYS if key in value)
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
