"""Old executions go whole, from the whole control plane on Postgres, and nothing else does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.blobs.directory import DirectoryBlobs
from app.blobs.workspaces import Workspaces
from app.engine.events import ExecutionStarted
from app.engine.ports import Pointer
from app.engine.references import Place
from app.engine.retention import Expiry
from app.engine.tokens import TokenPlace, TokenRow
from app.errors import NotFoundError, StartupError, UnavailableError
from app.services.control import Ports, control
from app.services.kinship import Kinship
from app.services.large import key_of
from app.services.variables import About
from app.settings import load
from app.store.catalog import PostgresCatalog
from app.store.database import Database
from app.store.events import PostgresLog
from app.store.ids import Snowflake
from app.store.retention import PostgresRetention
from app.store.runtime import PostgresRuntime
from app.store.tables import metadata
from app.wire import ArtifactRequest, LogChunk
from app.wiring import ToolKinds, custody
from tests.services.conftest import Bench, Recorder

ONE = "workflow: [{step: a, tool: {kind: noop}}]"
TWO = """
workflow:
- {step: a, tool: {kind: noop}, next: {arcs: [{step: b}]}}
- {step: b, tool: {kind: noop}}
"""
PARENT = """
workflow:
- step: start
  tool: {kind: playbook, path: child, return_step: a}
"""
#: Everything that has ended may go: the tests' clock is ahead of the database's.
ALL = Expiry(datetime.now(UTC) + timedelta(days=1))
#: Results above this size are stored beside the log, and above the other in the blob store.
INLINE, BLOB = 100, 1_000


class Blobs(DirectoryBlobs):
    """A folder that may be away when it shall delete what is of some executions."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.down: set[int] = set()

    def delete_all(self, execution_id: int) -> None:
        if execution_id in self.down:
            raise UnavailableError("the blob store is away")
        super().delete_all(execution_id)


Making = Callable[..., Bench]


@pytest.fixture
def pool(database: str) -> Iterator[Database]:
    opened = Database(database, pool_size=4)
    yield opened
    opened.close()


@pytest.fixture
def making(pool: Database, tmp_path: Path) -> Making:
    """Control planes on one Postgres; keyword arguments are settings."""

    def make(**settings: Any) -> Bench:
        chosen = load(
            {},
            home=tmp_path,
            eager=False,
            inline_bytes=INLINE,
            blob_bytes=BLOB,
            encryption_keys="k=" + "A" * 43 + "=",
            **settings,
        ).settings
        now = [datetime.now(UTC).timestamp() + 60]
        clock = lambda: now[0]  # noqa: E731 (one clock for everything)
        dispatcher = Recorder()
        ports = Ports(
            events=PostgresLog(pool),
            catalog=PostgresCatalog(pool),
            runtime=PostgresRuntime(pool),
            dispatcher=dispatcher,
            kinds=ToolKinds(),
            clock=clock,
            new_id=Snowflake(),
            custody=custody(chosen, pool),
            blobs=Blobs(tmp_path / "blobs"),
            retention=PostgresRetention(pool),
            workspaces=Workspaces(tmp_path / "work").forget,
        )
        return Bench(control(ports, chosen), ports, dispatcher, now)

    return make


@pytest.fixture
def plane(making: Making) -> Bench:
    return making()


def blobs_of(plane: Bench) -> Blobs:
    blobs = plane.ports.blobs
    assert isinstance(blobs, Blobs)
    return blobs


def traces(pool: Database, home: Path, execution_id: int) -> dict[str, int]:
    """Where something of the execution is, and how much: rows by table, and files."""
    found = {}
    with pool.raw() as connection:
        for table in metadata.sorted_tables:
            if "execution_id" in table.c:
                sql = f"SELECT count(*) FROM {table.fullname} WHERE execution_id = %s"
                row = connection.execute(sql.encode(), [execution_id]).fetchone()
                assert row is not None
                found[table.name] = row[0]
    files = (path for path in home.rglob("*") if path.is_file())
    found["files"] = sum(str(execution_id) in str(path) for path in files)
    return {name: count for name, count in found.items() if count}


def ran(plane: Bench, workflow: str = ONE, result: Any = None, **how: Any) -> int:
    """An execution that has ended."""
    execution_id = plane.start(workflow, **how)
    plane.settle(execution_id, result)
    assert plane.control.executions.get(execution_id).status == "COMPLETED"
    return execution_id


def furnished(plane: Bench, home: Path) -> int:
    """An execution that left something in every place there is."""
    entry = plane.register(TWO)
    execution_id = plane.control.executions.start(
        catalog_id=entry.catalog_id, key=f"key-{len(plane.dispatcher.wakes)}"
    ).execution_id
    (first,) = plane.advance(execution_id)
    assert plane.claim(first).granted
    keep_artifact(plane, first)
    printed = LogChunk(**first._asdict(), index=0, stream="stdout", text="hello\n", at=1.0)
    plane.control.output.append([printed])
    plane.control.variables.put(execution_id, {"note": {"n": 1}}, About())
    now = datetime.now(UTC)
    place = TokenPlace("api", entry.catalog_id, "local", execution_id)
    plane.ports.custody.tokens.put(TokenRow(place, "cb1.a.b.c", now + timedelta(1), now))
    assert plane.report(first, {"text": "x" * 5 * BLOB}).accepted
    (second,) = plane.advance(execution_id)
    plane.work(second, {"text": "y" * 5 * INLINE})
    plane.advance(execution_id)
    work = home / "work" / str(execution_id)
    work.mkdir(parents=True)
    (work / "file").write_text("x")
    return execution_id


def keep_artifact(plane: Bench, pointer: Pointer) -> None:
    content = b"\0\xff" * 100
    plane.control.artifacts.put(
        ArtifactRequest(
            **pointer._asdict(),
            worker="w1",
            name="plot.png",
            content_type="image/png",
            size=len(content),
            digest=sha256(content).hexdigest(),
        ),
        [content],
    )


# ---------------------------------------------------------------------- all of it, and no more
def test_everything_of_an_execution_goes_and_nothing_of_another(
    plane: Bench, pool: Database, tmp_path: Path
) -> None:
    gone = furnished(plane, tmp_path)
    places = {"event", "execution", "transient", "step_log", "keychain", "files"}
    assert set(traces(pool, tmp_path, gone)) == places
    plane.now[0] += 100
    stays = furnished(plane, tmp_path)
    before = traces(pool, tmp_path, stays)
    assert set(before) == places
    events = plane.control.executions.count_events(gone)
    assert plane.control.retention.remove({gone: events}, ended_before=ALL.ended_before) == [gone]
    assert traces(pool, tmp_path, gone) == {}
    assert traces(pool, tmp_path, stays) == before
    assert plane.control.inspection.verify(stays).findings == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda c, i: c.executions.get(i),
        lambda c, i: c.executions.status(i),
        lambda c, i: c.results.text(i),
        lambda c, i: c.variables.rows(i),
        lambda c, i: c.inspection.verify(i),
        lambda c, i: c.intervention.retry(i),
        lambda c, i: c.intervention.rerun(i),
        lambda c, i: c.executions.cancel(i),
        lambda c, i: c.archives.line(i),
    ],
)
def test_an_id_that_is_gone_is_one_that_never_was(
    plane: Bench, ask: Callable[[Any, int], Any]
) -> None:
    gone = ran(plane)
    ask_before = plane.control.executions.status(gone)
    assert ask_before.summary.execution_id == gone
    assert len(plane.control.retention.prune(ALL, batch=9).removed) == 1
    with pytest.raises(NotFoundError, match=f"no execution {gone}"):
        ask(plane.control, gone)


def test_a_report_that_comes_after_its_execution_is_gone_leaves_nothing(
    plane: Bench, pool: Database, tmp_path: Path
) -> None:
    execution_id = plane.start(ONE)
    (pointer,) = plane.advance(execution_id)
    assert plane.claim(pointer).granted
    plane.control.executions.cancel(execution_id)
    assert plane.control.retention.prune(ALL, batch=9).removed
    assert not plane.report(pointer, {"text": "x" * 5 * BLOB}).accepted
    assert traces(pool, tmp_path, execution_id) == {}


# ---------------------------------------------------------------------- which
def test_a_family_goes_together_and_only_when_all_of_it_has_ended(plane: Bench) -> None:
    plane.register(ONE, "child")
    parent = plane.start(PARENT)
    (child,) = _children(plane, parent)
    plane.control.executions.cancel(parent, cascade=False)
    assert plane.control.retention.prune(ALL, batch=9).removed == []
    plane.control.executions.cancel(child)
    removed = plane.control.retention.prune(ALL, batch=9).removed
    assert [member.execution_id for member in removed] == [child, parent]


def _children(plane: Bench, parent: int) -> list[int]:
    plane.advance(parent)
    for child in plane.children(parent):
        plane.advance(child)
    return plane.children(parent)


def test_a_child_that_ended_stays_with_its_parent(plane: Bench) -> None:
    plane.register(ONE, "child")
    parent = plane.start(PARENT)
    (child,) = _children(plane, parent)
    plane.control.executions.cancel(child)
    assert plane.control.executions.get(parent).status == "RUNNING"
    assert plane.control.retention.prune(ALL, batch=9).removed == []


def test_a_family_that_is_larger_than_a_batch_goes_in_several(plane: Bench) -> None:
    top = ran(plane)
    below = []
    entry = plane.register(ONE, "below")
    for _ in range(5):
        started = plane.control.executions.start(
            catalog_id=entry.catalog_id, parent_execution_id=top
        )
        plane.settle(started.execution_id)
        below.append(started.execution_id)
    other = ran(plane)
    turns, after = [], 0
    while True:
        turn = plane.control.retention.prune(ALL, after=after, batch=2)
        turns.append([member.execution_id for member in turn.removed])
        if turn.behind is None:
            break
        after = turn.behind
    assert turns == [below[:2], below[2:4], [below[4], top], [other]]


def test_the_newest_of_each_path_may_stay(plane: Bench) -> None:
    old, new = ran(plane), ran(plane)
    other = plane.control.executions.start(
        catalog_id=plane.register(ONE, "other").catalog_id
    ).execution_id
    plane.settle(other)
    expiry = Expiry(ALL.ended_before, keep=1)
    removed = plane.control.retention.prune(expiry, batch=9).removed
    assert [member.execution_id for member in removed] == [old]
    assert plane.control.executions.get(new).execution_id == new
    assert plane.control.executions.get(other).execution_id == other


def test_path_and_status_narrow_it_down(plane: Bench) -> None:
    completed, cancelled = ran(plane), plane.start(ONE)
    plane.control.executions.cancel(cancelled)
    found = plane.control.retention.expired
    before = ALL.ended_before
    failed = found(Expiry(before, statuses=("FAILED", "CANCELLED")))
    assert [member.execution_id for member in failed.members] == [cancelled]
    assert found(Expiry(before, path="elsewhere")).members == []
    both = found(Expiry(before, path="t")).members
    assert [member.execution_id for member in both] == [completed, cancelled]
    assert found(Expiry(before - timedelta(days=2))).members == []


def test_what_a_running_retry_reads_hides_nothing_behind_it(plane: Bench) -> None:
    before = plane.start(TWO)
    plane.control.executions.cancel(before)
    retried = plane.control.intervention.retry(before)
    assert retried.started is not None
    behind = ran(plane)
    removed, after = [], 0
    while True:
        turn = plane.control.retention.prune(ALL, after=after, batch=1)
        removed += [member.execution_id for member in turn.removed]
        if turn.behind is None:
            break
        after = turn.behind
    assert removed == [behind]
    retry = retried.started.execution_id
    plane.settle(retry)
    gone = plane.control.retention.prune(ALL, batch=9).removed
    assert {member.execution_id for member in gone} == {before, retry}


def test_a_retry_is_not_begun_of_one_that_went_meanwhile(plane: Bench) -> None:
    before = ran(plane)
    started = plane.log(before)[0].event
    assert isinstance(started, ExecutionStarted)
    assert plane.control.retention.prune(ALL, batch=9).removed
    new_id = plane.ports.new_id()
    with pytest.raises(NotFoundError, match="any more"):
        plane.control.executions.accept(new_id, replace(started, retry_of=before))
    assert plane.control.executions.count_events(new_id) == 0


# ---------------------------------------------------------------------- crashes, and the sweeper
def test_a_crash_before_the_blobs_are_deleted_is_made_up_for(
    plane: Bench, pool: Database, tmp_path: Path
) -> None:
    gone = furnished(plane, tmp_path)
    blobs_of(plane).down.add(gone)
    assert plane.control.retention.prune(ALL, batch=9).removed
    left = traces(pool, tmp_path, gone)
    assert set(left) == {"step_log", "keychain", "files", "pruned"}
    with pytest.raises(NotFoundError):
        plane.control.executions.get(gone)
    blobs_of(plane).down.clear()
    assert plane.control.retention.prune(ALL, batch=9).removed == []
    assert traces(pool, tmp_path, gone) == {}


def test_folders_that_cannot_be_deleted_keep_nothing_waiting(
    plane: Bench, pool: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.retention.NOTES", 2)
    stuck = [ran(plane) for _ in range(5)]
    blobs_of(plane).down.update(stuck)
    assert len(plane.control.retention.prune(ALL, batch=9).removed) == 5
    gone = furnished(plane, tmp_path)
    blobs_of(plane).down.add(gone)
    assert len(plane.control.retention.prune(ALL, batch=9).removed) == 1
    blobs_of(plane).down.remove(gone)
    while traces(pool, tmp_path, gone):
        plane.control.retention.finish()
    assert plane.ports.retention is not None
    assert plane.ports.retention.removed(9) == stuck
    blobs_of(plane).down.clear()
    while plane.ports.retention.removed(9):
        plane.control.retention.finish()


def test_a_batch_has_not_more_events_than_it_may_unless_one_has(
    plane: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [ran(plane) for _ in range(3)]
    each = plane.control.executions.count_events(ids[0])
    for most, turns in ((2 * each, [ids[:2], ids[2:]]), (1, [[one] for one in ids])):
        monkeypatch.setattr("app.services.retention.EVENTS", most)
        found, after = [], 0
        while (told := plane.control.retention.expired(ALL, after=after, limit=9)).members:
            found.append([member.execution_id for member in told.members])
            after = found[-1][-1]
        assert found == turns


def test_a_child_is_not_begun_of_one_that_went_meanwhile(
    plane: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = ran(plane)
    entry = plane.register(ONE, "below")
    transaction = plane.ports.events.transaction

    def late(ids: Any, **how: Any) -> Any:
        monkeypatch.undo()
        assert plane.control.retention.prune(ALL, batch=9).removed
        return transaction(ids, **how)

    monkeypatch.setattr(plane.ports.events, "transaction", late)
    start = plane.control.executions.start
    with pytest.raises(NotFoundError, match=f"no execution {parent} any more"):
        start(catalog_id=entry.catalog_id, parent_execution_id=parent)
    # One that nobody knows is taken as it is said.
    assert start(catalog_id=entry.catalog_id, parent_execution_id=parent).execution_id


def test_an_execution_that_goes_between_two_looks_is_one_that_never_was(
    plane: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = ran(plane)
    summary = plane.control.executions.get(gone)
    assert plane.control.retention.prune(ALL, batch=9).removed
    monkeypatch.setattr(plane.ports.events, "summary", lambda _: summary)
    with pytest.raises(NotFoundError, match="any more"):
        plane.control.intervention.rerun(gone)
    assert Kinship(plane.ports.events).root(gone) == gone


def test_the_sweeper_removes_a_batch_at_a_time_where_it_is_told_to(
    making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.retention.SWEPT", 2)
    never, daily = making(), making(retention_days=1.0)
    ids = [ran(daily) for _ in range(3)]
    daily.control.sweeper.sweep()
    never.now[0] += 10**7
    never.control.sweeper.sweep()
    assert [daily.control.executions.get(each).execution_id for each in ids] == ids
    daily.now[0] += 2 * 86_400
    running = daily.start(ONE)
    daily.control.sweeper.sweep()
    assert daily.control.executions.count_by_status() == {"COMPLETED": 1, "RUNNING": 1}
    daily.control.sweeper.sweep()
    daily.control.sweeper.sweep()
    assert daily.control.executions.count_by_status() == {"RUNNING": 1}
    assert daily.control.executions.get(running).status == "RUNNING"


@pytest.mark.parametrize("days", [0.0, -1.0, float("nan"), float("inf"), 40_000.0])
def test_days_that_are_no_time_remove_nothing(making: Making, days: float) -> None:
    with pytest.raises(StartupError, match="CALLBOARD_RETENTION_DAYS"):
        making(retention_days=days)


# ---------------------------------------------------------------------- the archive's line
def test_the_line_of_an_archive_holds_all_of_it(plane: Bench, tmp_path: Path) -> None:
    execution_id = furnished(plane, tmp_path)
    line = b"".join(plane.control.archives.line(execution_id))
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    found = json.loads(line)
    assert found["format"] == 1
    assert found["execution"]["execution_id"] == execution_id
    assert found["execution"]["status"] == "COMPLETED"
    log = plane.log(execution_id)
    assert [event["seq"] for event in found["events"]] == [entry.seq for entry in log]
    assert [event["type"] for event in found["events"]] == plane.types(execution_id)
    (stored,) = [v for name, v in found["values"].items() if name.startswith("result/")]
    assert stored == {"text": "y" * 5 * INLINE}
    assert found["variables"] == {"note": {"n": 1}}
    assert [piece["text"] for piece in found["output"]] == ["hello\n"]
    kinds = sorted(blob["ref"].split("/")[4] for blob in found["blobs"])
    assert kinds == ["artifact", "result"]
    assert "cb1" not in line.decode(), "tokens of keychains are not written out"


def test_a_line_names_what_nothing_refers_to_any_more(plane: Bench) -> None:
    execution_id = ran(plane)
    place = Place(execution_id, "artifact/image/png/plot.png/0123")
    blobs_of(plane).put(key_of(place), b"older")
    found = json.loads(b"".join(plane.control.archives.line(execution_id)))
    assert found["blobs"] == [{"ref": place.ref, "store": "disk", "size": 5}]


def test_a_line_breaks_off_where_its_execution_goes_meanwhile(plane: Bench) -> None:
    execution_id = ran(plane)
    pieces = plane.control.archives.line(execution_id)
    came = [next(pieces)]
    assert plane.control.retention.prune(ALL, batch=9).removed
    with pytest.raises(NotFoundError, match="while it was read"):
        came += pieces
    assert not b"".join(came).endswith(b"\n")


def test_the_log_still_refuses_every_other_deletion(plane: Bench, pool: Database) -> None:
    execution_id = ran(plane)
    with pool.raw() as connection, pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute("DELETE FROM noetl.event WHERE execution_id = %s", [execution_id])
    assert plane.control.executions.count_events(execution_id) > 0
