"""Secrets that earlier steps looked up: their results say which one, and whoever reads them asks again.

What stands in the log is masked, with the question under ``_secret``. Only results of tasks of kind
``secrets`` are asked for again: any other tool's data may hold such a key, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.engine.masking import MASK
from app.engine.templates.scope import Lazy
from app.errors import ToolError

#: The kind of tool whose results these are.
SECRETS = "secrets"
#: Under which its result says how to get the value again.
QUESTION = "_secret"

Ask = Callable[[Mapping[str, Any]], Any]


def revealed(
    results: Mapping[str, Any], tasks: Mapping[str, Sequence[str]], ask: Ask
) -> Mapping[str, Any]:
    """*results* by step with the secrets in them asked for, each when it is read.

    *tasks* names those of kind ``secrets`` in each of these steps; none: the result is one itself.
    """
    if not tasks:
        return results

    def load(name: str) -> Any:
        value = results[name]
        return value if name not in tasks else _of_step(value, tasks[name], ask)

    return Lazy(results, load)


def answered(result: Any, ask: Ask) -> Any:
    """The result of a task of kind ``secrets`` with its value."""
    if not isinstance(result, Mapping) or not isinstance(result.get(QUESTION), Mapping):
        return result
    question = result[QUESTION]
    if MASK in str(question):
        raise ToolError(
            f"the secret {result.get('name')!r} of an earlier step cannot be asked for again: its "
            "'auth' holds a secret itself. Name a credential there",
            kind="auth",
        )
    return {**result, "value": ask(question)}


def _of_step(value: Any, tasks: Sequence[str], ask: Ask) -> Any:
    if not isinstance(value, Mapping):
        return value
    if not tasks:
        loop = value.get("results")
        if QUESTION not in value and isinstance(loop, list):
            items = [answered(item, ask) for item in loop]
            return {**value, "results": items, "data": items}
        return answered(value, ask)
    found = dict(value)
    for task in tasks:
        told = value.get(task)
        if not isinstance(told, Mapping) or QUESTION not in told:
            continue
        found[task] = answered(told, ask)
        # The fields of all tasks stand beside each other, too, the last one's on top.
        if all(value.get(key) == told.get(key) for key in (QUESTION, "value")):
            found["value"] = found[task]["value"]
    return found
