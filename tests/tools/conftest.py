"""A context and a way to call each tool as the worker does: config in, data or ToolError out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from app.engine.credentials import Credential, parsed
from app.errors import ToolError
from app.settings import load
from app.tools import Context, NoSecrets, load_tool
from app.tools.bus.connections import connections as nats_connections
from app.tools.child.launcher import launcher
from app.tools.duck.databases import databases
from app.tools.pg.connections import connections
from app.tools.web.transport import close as close_http
from tests.places import reachable

Call = Callable[..., Any]


@dataclass(slots=True)
class Known(NoSecrets):
    """Secrets by name, as a worker's environment holds them; what was concealed is kept."""

    values: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    concealed: list[str] = field(default_factory=list)

    def credential(self, name: str) -> Credential:
        return Credential(name, self.types.get(name, ""), parsed(self.variable(name)))

    def variable(self, name: str) -> str:
        if name not in self.values:
            raise ToolError(f"no secret named {name!r} is configured", kind="auth")
        return self.values[name]

    def conceal(self, *values: str) -> None:
        self.concealed += values


@dataclass(slots=True)
class Output:
    """What a step printed, as its context's log got it."""

    pieces: list[tuple[str, str]] = field(default_factory=list)

    def log(self, stream: str, text: str) -> None:
        self.pieces.append((stream, text))

    def text(self, stream: str) -> str:
        return "".join(text for name, text in self.pieces if name == stream)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In place of pytest's own, which steps do not reach."""
    with reachable() as folder:
        yield folder


@pytest.fixture
def output() -> Output:
    return Output()


@pytest.fixture
def context(tmp_path: Path, output: Output) -> Context:
    return Context(
        execution_id=7,
        step="probe",
        visit=1,
        iteration=-1,
        attempt=1,
        settings=load({}).settings,
        timeout=60.0,
        workspace=tmp_path / "workspace",
        log=output.log,
    )


@pytest.fixture
def call(context: Context) -> Call:
    """``call(kind, config, **changes of the context)``."""

    def run(kind: str, config: dict[str, Any], **changes: Any) -> Any:
        tool = load_tool(kind)
        return tool.run(tool.input.model_validate(config), replace(context, **changes))

    return run


@pytest.fixture
def fail(call: Call) -> Callable[..., ToolError]:
    """As ``call``, for calls that must fail: the error."""

    def run(kind: str, config: dict[str, Any], **changes: Any) -> ToolError:
        with pytest.raises(ToolError) as caught:
            call(kind, config, **changes)
        return caught.value

    return run


@pytest.fixture(scope="session", autouse=True)
def _tidy() -> Iterator[None]:
    """Everything that the tools keep open for the next step, closed after the last one."""
    yield
    launcher.close()
    connections.close()
    databases.close()
    nats_connections.close()
    close_http()
