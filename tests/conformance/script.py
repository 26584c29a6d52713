"""What tools give where none is run: the ``outcomes`` of a case.

Keys are ``step``, ``step[iteration]``, ``step(claim 0)`` or ``step#visit…``, with ``.task`` behind in
a sequence. Values are ``{result: …}``, ``{error: text | {message, kind, …}}`` or ``{late: seconds}``
(nothing comes back for so long), or a list of those for one call after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import RootModel

from app.engine.events import StepKey
from app.errors import ToolError
from app.tools import Context, Tool, load_tool

#: Tools that reach nothing outside: they are run.
REAL = {"noop", "playbook"}


class Config(RootModel[dict[str, Any]]):
    """The config of a tool that is not run."""


class Late(Exception):  # noqa: N818 (the outcome of a call, not an error)
    """Nothing comes back for ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"late by {seconds:g} s")
        self.seconds = seconds


@dataclass
class Script:
    """The outcomes, handed out in turn."""

    outcomes: Mapping[str, Any]
    calls: Counter[str] = field(default_factory=Counter)
    used: set[str] = field(default_factory=set)

    def find(self, key: StepKey, task: str) -> str | None:
        """The name under which the case speaks of that call."""
        units = (str(key), str(StepKey(key.step, 1, key.iteration)), key.step)
        names = [name for unit in units for name in (f"{unit}.{task}", unit)]
        return next((name for name in names if name in self.outcomes), None)

    def take(self, key: StepKey, task: str) -> Any:
        """The result of that call. Raises ``ToolError`` or ``Late`` where it has none."""
        name = self.find(key, task)
        assert name is not None, f"outcomes say nothing of {key}.{task}"
        self.used.add(name)
        outcome = self.outcomes[name]
        if isinstance(outcome, list):
            call = f"{key}.{task}"  # each unit of work goes through the list by itself
            assert self.calls[call] < len(outcome), f"{call} was called too often"
            outcome = outcome[self.calls[call]]
            self.calls[call] += 1
        if "late" in outcome:
            raise Late(outcome["late"])
        if "error" not in outcome:
            return outcome["result"]
        error = outcome["error"]
        raise ToolError(**({"message": error} if isinstance(error, str) else error))

    def load_tool(self, kind: str) -> Tool:
        """The real tool, or one of its kind that does what the case says."""
        real = load_tool(kind)
        if kind in REAL:
            return real

        def call(_: Config, context: Context) -> Any:
            key = StepKey(context.step, context.visit, context.iteration)
            return self.take(key, context.variables["_task"])

        return Tool(kind, input=Config, run=call, verbatim=real.verbatim, text=real.text)

    def unused(self) -> list[str]:
        """What the case says and nothing asked for."""
        return sorted(set(self.outcomes) - self.used)
