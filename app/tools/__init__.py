"""Tools: one file per kind, each ending in ``tool = Tool(...)``, found by entry point ``callboard.tools``.

A tool knows no log, broker or route. It gets its validated input and a ``Context`` and returns
plain JSON data, or raises ``ToolError``.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from app.engine.children import Call
from app.errors import Complaint, ToolError
from app.settings import Settings
from app.tools.complaints import complaints
from app.tools.schemas import schema


class Parked(Exception):  # noqa: N818 (not an error: the step goes on later)
    """Raised by a tool that waits for a sub-playbook: the worker lets go of the step until then."""

    def __init__(self, call: Call) -> None:
        super().__init__(f"waits for {call.name}")
        self.call = call


class Cancelled(threading.Event):
    """Set when the attempt must stop: cancelled, fenced off or out of time."""


def _no_secret(name: str) -> str:
    raise ToolError(f"no secret named {name!r} is configured", kind="auth")


def _discard(_stream: str, _text: str) -> None:
    """Where nobody asked for the output."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a tool may know about the attempt it works for.

    ``variables`` are the values its templates name (JSON data). ``timeout`` is the time left in
    seconds. ``workspace`` is a private folder of this execution on this worker, made on first use
    by whoever needs it. ``secret(name)`` gives the text of a secret or raises ``ToolError``
    (kind auth). ``idempotency_key`` is the same for every attempt of the step.
    """

    execution_id: int
    step: str
    visit: int
    iteration: int
    attempt: int
    settings: Settings
    timeout: float
    workspace: Path
    variables: Mapping[str, Any] = field(default_factory=dict)
    cancelled: threading.Event = field(default_factory=threading.Event)
    secret: Callable[[str], str] = _no_secret
    #: ``log(stream, text)`` with stream stdout or stderr: what the user's code printed.
    log: Callable[[str, str], None] = _discard

    @property
    def idempotency_key(self) -> str:
        return f"{self.execution_id}:{self.step}:{self.visit}:{self.iteration}"


@dataclass(frozen=True, slots=True)
class Tool:
    """A kind of step: its input model and the function that does the work.

    ``queue`` is ``io`` or ``cpu``. Templates in the input keys of ``verbatim`` are left alone;
    those of ``text`` render to text without being read back as JSON (SQL, shell programs). Of each
    group of keys in ``needs`` one must be given.
    """

    kind: str
    input: type[BaseModel]
    run: Callable[[Any, Context], Any]
    queue: str = "io"
    verbatim: frozenset[str] = frozenset()
    text: frozenset[str] = frozenset()
    needs: tuple[tuple[str, ...], ...] = ()

    def complaints(self, config: Mapping[str, Any]) -> list[Complaint]:
        """What is wrong with *config* as written; what holds a template is taken to be right."""
        return complaints(self.input, config, needs=self.needs, kind=self.kind)

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its keys, with templates allowed."""
        about = inspect.cleandoc(self.input.__doc__ or "").replace("``", "`")
        return schema(self.input, self.needs, about)


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="callboard.tools")}


def kinds() -> list[str]:
    """The names of all installed tools, sorted."""
    return sorted(_points())


@cache
def load_tool(kind: str) -> Tool:
    """The tool of that kind. Raises ``KeyError`` where none is installed."""
    tool = _points()[kind].load()
    assert isinstance(tool, Tool)
    return tool
