"""Lets a scenario happen, and says what its log folds to."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import orjson

from app.blobs.memory import MemoryBlobs
from app.engine.state import NEW, evolve
from app.services.reading import Reader
from app.store.memory import MemoryCatalog, MemoryLog
from app.wiring import ToolKinds
from tests.golden.files import Recording
from tests.golden.form import digest, form
from tests.golden.scenarios import Scenario
from tests.services.conftest import Bench, bench_on

#: Ids look like ids, and are the same whenever a scenario is played.
FIRST_ID = 800_000_000_000_000_000


def new_bench(home: Path, *, first_id: int = FIRST_ID, **settings: Any) -> Bench:
    """An empty control plane that knows the real tools."""
    return bench_on(
        home,
        kinds=ToolKinds(),
        blobs=MemoryBlobs(),
        new_id=itertools.count(first_id).__next__,
        **settings,
    )


def shelves(bench: Bench) -> tuple[MemoryLog, MemoryCatalog, MemoryBlobs]:
    """What the bench stands on."""
    ports = bench.ports
    assert isinstance(ports.events, MemoryLog)
    assert isinstance(ports.catalog, MemoryCatalog)
    assert isinstance(ports.blobs, MemoryBlobs)
    return ports.events, ports.catalog, ports.blobs


def record(scenario: Scenario, home: Path) -> Recording:
    """Play *scenario* and keep what it left."""
    bench = new_bench(home, **scenario.settings)
    scenario.play(bench)
    recording = Recording.of(scenario.name, scenario.says, *shelves(bench))
    assert not bench.ports.events.open_executions(), "a scenario comes to its end"
    return recording


def outcome(recording: Recording, home: Path) -> dict[str, Any]:
    """What this version makes of *recording*: by execution every prefix, the state, what is shown."""
    bench = new_bench(home)
    recording.shelve(*shelves(bench))
    return {str(execution_id): _of_one(bench, execution_id) for execution_id in recording.events}


def _of_one(bench: Bench, execution_id: int) -> dict[str, Any]:
    state, prefixes = NEW, []
    for entry in bench.log(execution_id):
        state = evolve(state, entry.event, entry.seq)
        prefixes.append(digest(state))
    return {
        "shown": orjson.loads(orjson.dumps(_shown(bench, execution_id))),
        "state": form(state),
        "prefixes": " ".join(prefixes),
    }


def _shown(bench: Bench, execution_id: int) -> dict[str, Any]:
    """What people are told of it."""
    executions = bench.control.executions
    view = executions.status(execution_id)
    reader = Reader(bench.ports.events, bench.ports.blobs)
    variables = executions.variables(execution_id)
    return {
        "status": view.summary.status,
        "error": view.summary.error,
        "final_step": view.final_step,
        "result": executions.result(execution_id) if view.final_step else None,
        "steps": {step.name: form(step) for step in view.steps},
        "variables": {
            name: reader.resolved(execution_id, value) for name, value in variables.items()
        },
    }
