"""What earlier versions wrote is folded, shown and verified as it was then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.engine.decide import Limits, decide
from app.engine.entry import event_from
from app.engine.events import TYPES, StepDone, StepFailed, StepKey
from app.engine.ports import ExecutionFilter
from app.engine.state import replay
from app.engine.values import Values
from app.services.reading import Reader
from app.store.shelf import Stored
from tests.golden.__main__ import write
from tests.golden.files import FOLDER, Recording, folder, recorded
from tests.golden.recording import FIRST_ID, new_bench, outcome, shelves
from tests.golden.scenarios import SCENARIOS, fall_silent
from tests.services.conftest import Bench

LOGS = recorded()
every_log = pytest.mark.parametrize(
    "path", LOGS, ids=lambda path: str(path.relative_to(FOLDER).with_suffix(""))
)


def restored(path: Path, home: Path) -> tuple[Bench, Recording]:
    """A control plane of this version over a log of that one."""
    bench, recording = new_bench(home), Recording.read(path)
    recording.shelve(*shelves(bench))
    return bench, recording


def rows_of(recording: Recording) -> list[Stored]:
    return [stored for rows in recording.events.values() for stored in rows]


@every_log
def test_it_is_folded_and_shown_as_it_was_at_every_event(path: Path, tmp_path: Path) -> None:
    expected = orjson.loads(path.with_suffix(".json").read_bytes())
    assert orjson.loads(orjson.dumps(outcome(Recording.read(path), tmp_path))) == expected


@every_log
def test_verify_finds_nothing_and_nothing_follows(path: Path, tmp_path: Path) -> None:
    bench, recording = restored(path, tmp_path)
    for execution_id in recording.events:
        assert bench.control.inspection.verify(execution_id).findings == []
        state = replay(bench.log(execution_id))
        playbook = bench.control.catalog.playbook(state.catalog_id)
        assert decide(execution_id, playbook, state, Values(), Limits()) == []
        assert bench.control.advance.advance(execution_id) == 0


@every_log
def test_fields_at_their_defaults_may_be_left_out_and_unknown_ones_ignored(path: Path) -> None:
    """As a version writes that does not know a field yet, and one that has a field more."""
    for stored in rows_of(Recording.read(path)):
        row, payload = stored.row, orjson.loads(stored.row.payload)
        event = event_from(row.type, row._asdict(), payload)
        defaults = {name: item.default for name, item in type(event).__dataclass_fields__.items()}
        fewer = {name: v for name, v in payload.items() if defaults.get(name, event) != v}
        more = {**payload, "of_a_later_version": {"any": ["thing"]}}
        for other in (fewer, more):
            assert event_from(row.type, row._asdict(), other) == event


@every_log
def test_an_execution_of_it_that_was_interrupted_anywhere_ends(path: Path, tmp_path: Path) -> None:
    """The upgrade comes after any event: this version goes on from there, to an end."""
    source, whole = restored(path, tmp_path)
    ends = dict(ends_of(source, whole))
    for length in range(1, len(rows_of(whole))):
        bench = new_bench(tmp_path, first_id=FIRST_ID + 1_000)
        upto(whole, length).shelve(*shelves(bench))
        go_on(bench, ends)
        for row in bench.control.executions.find(ExecutionFilter()):
            found = bench.control.inspection.verify(row.execution_id).findings
            assert (row.status != "RUNNING", found) == (True, []), f"after {length} events"


def ends_of(bench: Bench, whole: Recording) -> Iterator[tuple[tuple[int, StepKey], dict[str, Any]]]:
    """How each unit of work ended, with what its values refer to."""
    reader = Reader(bench.ports.events, bench.ports.blobs)
    for execution_id in whole.events:
        for entry in bench.log(execution_id):
            event = entry.event
            if isinstance(event, StepDone | StepFailed):
                ctx = {k: reader.resolved(execution_id, v) for k, v in (event.ctx or {}).items()}
                said = {"outcome": "failed", "error": getattr(event, "error", None), "ctx": ctx}
                if isinstance(event, StepDone):
                    result = reader.resolved(execution_id, event.result)
                    said = {"outcome": "done", "result": result, "ctx": ctx}
                yield (execution_id, event.key), said


def upto(whole: Recording, length: int) -> Recording:
    """The first *length* events of all executions, in the order in which they were written."""
    last = sorted(stored.event_id for stored in rows_of(whole))[length - 1]
    events = {
        execution_id: [stored for stored in rows if stored.event_id <= last]
        for execution_id, rows in whole.events.items()
    }
    known = {execution_id: rows for execution_id, rows in events.items() if rows}
    return Recording(whole.header, whole.catalog, known, whole.values, whole.blobs)


def go_on(bench: Bench, ends: Mapping[tuple[int, StepKey], dict[str, Any]]) -> None:
    """Resume, advance, work, let time pass and sweep until nothing is open; the work ends as it did."""
    for _ in range(60):
        running = bench.ports.events.open_executions()
        if not running:
            return
        for execution_id in running:
            bench.control.intervention.resume(execution_id)
            bench.control.advance.advance(execution_id)
        for pointer, _, _ in bench.ports.events.unclaimed(older_than=0):
            assert bench.claim(pointer, worker="w9").granted
            said = ends.get((pointer.execution_id, pointer.key), {})
            assert bench.report(pointer, worker="w9", **said).accepted
        fall_silent(bench)
    raise AssertionError(f"open: {bench.ports.events.open_executions()}")


# ---------------------------------------------------------------------- the files
def test_every_scenario_was_recorded_by_this_version() -> None:
    known = {path.stem for path in LOGS if path.parent == folder()}
    assert SCENARIOS.keys() - known == set(), "run: python -m tests.golden"


def test_every_type_of_event_is_in_some_log() -> None:
    seen = {stored.row.type for path in LOGS for stored in rows_of(Recording.read(path))}
    assert TYPES.keys() - seen == set(), "add a scenario, then run: python -m tests.golden"


def test_what_was_written_is_not_written_again(tmp_path: Path) -> None:
    (tmp_path / "chain.jsonl").write_text("of an earlier day")
    write({name: SCENARIOS[name] for name in ("chain", "empty_loop")}, tmp_path)
    assert (tmp_path / "chain.jsonl").read_text() == "of an earlier day"
    assert Recording.read(tmp_path / "empty_loop.jsonl").header["scenario"] == "empty_loop"
