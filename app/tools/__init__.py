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
from typing import Any, Protocol

from pydantic import BaseModel

from app.engine.children import Call
from app.engine.credentials import Credential
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


class Secrets(Protocol):
    """What an attempt may be told. Whatever is handed out is masked in all that it reports."""

    def credential(self, name: str) -> Credential:
        """The credential of that name. Raises ``ToolError`` (kind auth)."""

    def variable(self, name: str) -> str:
        """The worker's ``NOETL_SECRET_<NAME>``. Raises ``ToolError`` (kind auth)."""

    def external(self, about: Mapping[str, Any]) -> Any:
        """What a provider (env, file, vault, gcp, aws, azure) keeps: text, or data by field.

        *about* names ``provider``, ``name`` and what else that one asks for. Raises ``ToolError``.
        """

    def conceal(self, *values: str) -> None:
        """Mask *values*, which the tool found out by itself, like the others."""


class NoSecrets:
    """For tools that run without any."""

    def credential(self, name: str) -> Credential:
        raise ToolError(f"no credential named {name!r} is configured", kind="auth")

    def variable(self, name: str) -> str:
        raise ToolError(f"no secret named {name!r} is configured", kind="auth")

    def external(self, about: Mapping[str, Any]) -> Any:
        raise ToolError(f"no provider {about.get('provider')!r} is configured", kind="auth")

    def conceal(self, *values: str) -> None:
        """There is nobody who would tell them on."""


class Artifacts(Protocol):
    """Data that an execution keeps by reference (``noetl://…``), beside its results."""

    def get(self, ref: str) -> Any:
        """The value that *ref* stands for. Raises ``ToolError`` (kind not_found)."""

    def put(self, name: str, data: Any) -> dict[str, Any]:
        """Keep JSON data under *name*; the reference to it."""

    def put_file(self, name: str, path: Path, content_type: str) -> dict[str, Any]:
        """Keep the bytes of a file under *name*; the reference to them."""


class NoArtifacts:
    """For tools that run without a control plane."""

    def get(self, ref: str) -> Any:
        raise ToolError(f"{ref} cannot be read here", kind="not_found")

    def put(self, name: str, data: Any) -> dict[str, Any]:  # noqa: ARG002 (the port's)
        raise ToolError(f"{name!r} cannot be kept here", kind="storage_access")

    def put_file(self, name: str, path: Path, content_type: str) -> dict[str, Any]:  # noqa: ARG002 (the same)
        raise ToolError(f"{name!r} cannot be kept here", kind="storage_access")


class Lodge(Protocol):
    """Where processes that ran a step's program wait for its next run."""

    @property
    def is_open(self) -> bool:
        """Whether this run may have one of them: not when it was told a secret."""

    def take(self, breed: Any) -> Any:
        """One that waits and is of that breed; or None."""

    def keep(self, breed: Any, spare: Any) -> None:
        """Have *spare* wait."""

    def lost(self, spare: Any) -> None:
        """*spare*, which was taken, has ended."""


def _discard(_stream: str, _text: str) -> None:
    """Where nobody asked for the output."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a tool may know about the attempt it works for.

    ``variables`` are the values its templates name (JSON data). ``timeout`` is the time left in
    seconds. ``workspace`` is a private folder of this execution on this worker, made on first use
    by whoever needs it. ``idempotency_key`` is the same for every attempt of the step.
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
    secrets: Secrets = field(default_factory=NoSecrets)
    artifacts: Artifacts = field(default_factory=NoArtifacts)
    #: ``log(stream, text)`` with stream stdout or stderr: what the user's code printed.
    log: Callable[[str, str], None] = _discard
    #: Where the step's program may find a process that it ran in before; none: it gets a fresh one.
    lodge: Lodge | None = None

    @property
    def idempotency_key(self) -> str:
        return f"{self.execution_id}:{self.step}:{self.visit}:{self.iteration}"


@dataclass(frozen=True, slots=True)
class Tool:
    """A kind of step: its input model and the function that does the work.

    ``queue`` is ``io`` or ``cpu``. Templates in the input keys of ``verbatim`` are left alone;
    those of ``text`` render to text without being read back as JSON (SQL, shell programs). Of each
    group of keys in ``needs`` one must be given. ``program`` is the key of code that reads variables
    by name: it sees the workload and the item of a loop without asking, and templates in it become
    literals. ``own_names``: what ``input`` holds are the names of another playbook, not of this call.
    ``resumed(input, result, error, seconds)`` makes the result of a call that was parked for a
    sub-playbook, of what that gave; without it that is the result.
    """

    kind: str
    input: type[BaseModel]
    run: Callable[[Any, Context], Any]
    queue: str = "io"
    verbatim: frozenset[str] = frozenset()
    text: frozenset[str] = frozenset()
    needs: tuple[tuple[str, ...], ...] = ()
    program: str | None = None
    own_names: bool = False
    resumed: Callable[[Any, Any, ToolError | None, float], Any] | None = None

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
