"""Large values: where they are kept, that they come back exactly, and what is read without them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from app.actors.steps import Runner
from app.blobs.directory import DirectoryBlobs
from app.blobs.memory import MemoryBlobs
from app.engine.encoding import dumps
from app.engine.events import StepDone, StepFailed
from app.engine.ports import BlobStore, Pointer
from app.engine.references import REF, Place, is_reference, place_of, reference, whole
from app.errors import BadRequestError, ForbiddenError, UnavailableError
from app.services.control import Ports, control
from app.services.desk import Desk
from app.services.large import key_of
from app.services.reading import MissingValueError
from app.settings import load
from app.store.catalog import PostgresCatalog
from app.store.database import Database
from app.store.events import PostgresLog
from app.store.ids import Snowflake
from app.store.memory import MemoryCatalog, MemoryLog, MemoryRuntime
from app.store.runtime import PostgresRuntime
from app.wire import ValueRequest
from app.wiring import ToolKinds, memory_custody
from tests.services.conftest import Bench, Recorder

TWO = """
workflow:
- {step: a, tool: {kind: noop}, next: {arcs: [{step: b}]}}
- {step: b, tool: {kind: python, code: 'result = 1', input: {v: '{{ a }}'}}}
"""
INLINE, KV = 65_536, 1_048_576

Making = Callable[..., Bench]


class CountedBlobs(MemoryBlobs):
    """Counts what is read, and may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.read: Counter[str] = Counter()
        self.down = False

    def put(self, key: str, data: bytes) -> None:
        if self.down:
            raise UnavailableError("the blob store is away")
        super().put(key, data)

    def get(self, key: str) -> bytes | None:
        self.read[key] += 1
        return super().get(key)


@pytest.fixture(params=["memory", "postgres"])
def making(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Making]:
    """Control planes on one twin after the other; keyword arguments are settings."""
    pool: Database | None = None
    if request.param == "postgres":
        pool = Database(request.getfixturevalue("database"), pool_size=4)

    def make(*, blobs: BlobStore | None = None, **settings: Any) -> Bench:
        now = [1_800_000_000.0]
        clock = lambda: now[0]  # noqa: E731 (one clock for everything)
        runtime = MemoryRuntime(clock=clock)
        dispatcher = Recorder()
        ports = Ports(
            events=MemoryLog(runtime, clock=clock) if pool is None else PostgresLog(pool),
            catalog=MemoryCatalog(clock=clock) if pool is None else PostgresCatalog(pool),
            runtime=runtime if pool is None else PostgresRuntime(pool),
            dispatcher=dispatcher,
            kinds=ToolKinds(),
            clock=clock,
            new_id=Snowflake(),
            custody=memory_custody(),
            blobs=blobs if blobs is not None else DirectoryBlobs(tmp_path / "blobs"),
        )
        chosen = load({}, home=tmp_path, eager=False, **settings).settings
        return Bench(control(ports, chosen), ports, dispatcher, now)

    yield make
    if pool is not None:
        pool.close()


@pytest.fixture
def small(tmp_path: Path) -> tuple[Making, CountedBlobs]:
    """Planes in memory whose limits are small, and their blob store."""
    blobs = CountedBlobs()

    def make(**settings: Any) -> Bench:
        now = [1_800_000_000.0]
        clock = lambda: now[0]  # noqa: E731 (one clock for everything)
        runtime = MemoryRuntime(clock=clock)
        dispatcher = Recorder()
        ports = Ports(
            events=MemoryLog(runtime, clock=clock),
            catalog=MemoryCatalog(clock=clock),
            runtime=runtime,
            dispatcher=dispatcher,
            kinds=ToolKinds(),
            clock=clock,
            new_id=Snowflake(),
            custody=memory_custody(),
            blobs=blobs,
        )
        limits = {"inline_bytes": 100, "blob_bytes": 1000, **settings}
        chosen = load({}, home=tmp_path, eager=False, **limits).settings
        return Bench(control(ports, chosen), ports, dispatcher, now)

    return make, blobs


def begun(bench: Bench, workflow: str = TWO) -> tuple[int, Pointer]:
    execution_id = bench.start(workflow)
    (pointer,) = bench.advance(execution_id)
    return execution_id, pointer


def kept(bench: Bench, result: Any, **extra: Any) -> tuple[int, Pointer, Any]:
    """The execution, its second step, and what the event of the first one carries."""
    execution_id, pointer = begun(bench)
    assert bench.claim(pointer).granted
    assert bench.report(pointer, result, **extra).accepted
    event = bench.log(execution_id)[3].event
    assert isinstance(event, StepDone), event
    (second,) = bench.advance(execution_id)
    return execution_id, second, event.result


def sized(size: int) -> str:
    """A text that has *size* bytes as JSON."""
    return "x" * (size - 2)


def nested(depth: int) -> Any:
    value: Any = 1
    for number in range(depth):
        value = {"k": value} if number % 2 else [value]
    return value


VALUES = {
    "empty text": "",
    "empty mapping": {},
    "nothing": None,
    "false": False,
    "inline": sized(INLINE),
    "above inline": sized(INLINE + 1),
    "kv": sized(KV),
    "above kv": sized(KV + 1),
    "rows": [{"id": n, "name": f"row {n}", "price": n / 7} for n in range(100_000)],
    "a mapping of rows": {"rows": [{"id": n} for n in range(100_000)], "status": "ok"},
    "deep": {"deep": nested(200), "pad": sized(KV)},
    "unicode": {
        "\u00e4\U0001f600\u2028": "\u0628\u202e\x7f\x01" * 30_000,
        "cjk": "\u6f22" * 30_000,
    },
    "numbers": [2**63 - 1, -(2**63), 2**64 - 1, 0.1, 1e-300, 1.7e308, -0.0, 1e16, 1e17] * 10_000,
    "numbers in kv": [2**63, 6.073751732245395e16, 5e-324, 123456789.123456789] * 3_000,
}


@pytest.mark.parametrize("name", VALUES)
def test_a_result_comes_back_exactly_whatever_its_size(making: Making, name: str) -> None:
    bench, value = making(), VALUES[name]
    execution_id, second, carried = kept(bench, value)
    size = len(dumps(value))
    store = "disk" if size > KV else "kv" if size > INLINE else None
    assert (carried["_store"] if store else None) == store
    variables = bench.claim(second).variables
    assert variables is not None
    read = bench.read(second, variables.results["a"])
    assert exact(whole(read)) == exact(value)
    assert exact(bench.control.executions.result(execution_id, "a")) == exact(value)
    assert len(bench.control.results.text(execution_id, "a")) >= size


def exact(value: Any) -> str:
    """As text: 1 and 1.0 and True are equal to Python. Fields have no order, as in Postgres."""
    return json.dumps(value, sort_keys=True)


LOOKALIKES = [
    {REF: {"kind": "result_ref", "ref": "noetl://execution/1/result/a/1/-1/0"}}
    | {"_store": "kv", "_size_bytes": 1, "_preview": None, "own": 1},
    reference(Place(7, "result/x/1/-1/0"), "disk", 9, {"a": 1}),
]


@pytest.mark.parametrize("value", LOOKALIKES)
def test_data_that_looks_like_a_reference_is_data(making: Making, value: dict[str, Any]) -> None:
    bench = making()
    execution_id, second, carried = kept(bench, value)
    assert carried[REF]["ref"].startswith(f"noetl://execution/{execution_id}/result/a/")
    variables = bench.claim(second).variables
    assert variables is not None
    assert whole(bench.read(second, variables.results["a"])) == value


@pytest.mark.parametrize("value", LOOKALIKES)
def test_a_failed_step_cannot_set_a_reference(making: Making, value: dict[str, Any]) -> None:
    bench = making()
    execution_id, pointer = begun(bench)
    bench.claim(pointer)
    bench.report(pointer, outcome="failed", error={"message": "x"}, ctx={"c": value})
    event = bench.log(execution_id)[3].event
    assert isinstance(event, StepFailed)
    assert event.ctx is not None
    assert place_of(event.ctx["c"][REF]).execution_id == execution_id


@pytest.mark.parametrize(
    ("value", "says"),
    [
        pytest.param([1.0, math.nan] * 40_000, "not a finite number", id="NaN"),
        pytest.param({"n": 2**64, "pad": sized(KV)}, "Integer", id="above 64 bits"),
        pytest.param(sized(2_000_001), "CALLBOARD_RESULT_BYTES", id="above the limit"),
        pytest.param("\0" * 70_000, "NUL", id="NUL"),
    ],
)
def test_what_cannot_be_kept_fails_the_step_and_says_why(
    making: Making, value: Any, says: str
) -> None:
    bench = making(result_bytes=2_000_000)
    execution_id, pointer = begun(bench)
    bench.claim(pointer)
    bench.report(pointer, value)
    event = bench.log(execution_id)[3].event
    assert isinstance(event, StepFailed)
    assert says in event.error["message"]


# ---------------------------------------------------------------------- read without the value
LARGE = {"rows": list(range(1000)), "status": "fine", "n": 7, "deep": {"n": [1, 2]}, "none": None}
SELECTED = {"picked": 3, "n2": [1, 2]}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        pytest.param("{{ a.picked }}", 3, id="selected"),
        pytest.param("{{ a.n2[1] }}", 2, id="selected part"),
        pytest.param("{{ a._ref is defined }}", True, id="_ref"),
        pytest.param("{{ a._store }}", "memory", id="_store"),
        pytest.param("{{ a._size_bytes > 1000 }}", True, id="_size_bytes"),
        pytest.param("{{ a._preview.n }}", 7, id="_preview"),
        pytest.param("{{ a.status }} {{ a.n + 1 }}", "fine 8", id="small fields"),
        pytest.param("{{ a.none is none }}", True, id="null"),
        pytest.param("{{ a.missing is defined }}", False, id="missing field"),
        pytest.param("{{ a.missing.x | default(4) }}", 4, id="below a missing field"),
        pytest.param("{{ a.data.status }}", "fine", id="below data"),
        pytest.param("{{ 'yes' if a else 'no' }}", "yes", id="truth"),
        pytest.param("{{ steps.a.n }}", 7, id="in a namespace"),
    ],
)
def test_what_the_reference_tells_is_read_without_fetching(
    small: tuple[Making, CountedBlobs], template: str, expected: Any
) -> None:
    assert through_both(small, template) == [expected, expected]
    assert not small[1].read


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        pytest.param("{{ a.rows | length }}", 1000, id="another field"),
        pytest.param("{{ a.rows[2] + a.deep.n[1] }}", 4, id="fields"),
        pytest.param("{{ a['rows'][:2] }}", [0, 1], id="by index"),
        pytest.param("{{ a }}", LARGE, id="whole"),
        pytest.param("{{ a.data }}", LARGE, id="data"),
        pytest.param("{% for k in a %}{{ k }} {% endfor %}", "rows status n deep none ", id="loop"),
        pytest.param("{{ a | length }}", 5, id="length"),
        pytest.param("{{ a.items() | list | length }}", 5, id="a method"),
        pytest.param("{{ (a | tojson | fromjson).n }}", 7, id="tojson"),
        pytest.param("{{ a.get('n') + a.get('m', 1) }}", 8, id="get"),
    ],
)
def test_anything_else_is_fetched_and_the_same(
    small: tuple[Making, CountedBlobs], template: str, expected: Any
) -> None:
    assert through_both(small, template) == [expected, expected]


def through_both(small: tuple[Making, CountedBlobs], template: str) -> list[Any]:
    """*template* as the orchestrator renders it in ``set``, and as a worker does in ``input``."""
    workflow = f"""
workflow:
- {{step: a, next: {{arcs: [{{step: b, set: {{ctx.got: "{template}"}}}}]}}}}
- {{step: b, tool: {{kind: noop, result: "{template}"}}}}
"""
    make, _ = small
    bench = make(blob_bytes=100)
    execution_id, pointer = begun(bench, workflow)
    bench.claim(pointer)
    bench.report(pointer, LARGE, selected=SELECTED)
    (second,) = bench.advance(execution_id)
    variables = bench.control.executions.variables(execution_id)
    return [_whole(bench, variables["got"]), _whole(bench, worked(bench, second))]


def _whole(bench: Bench, value: Any) -> Any:
    reader = bench.control.results._reader
    own = place_of(value[REF]).execution_id if is_reference(value) else 0
    return reader.resolved(own, value)


def worked(bench: Bench, pointer: Pointer) -> Any:
    """The result in the log after a real worker did the step."""
    settings = load({}).settings
    runner = Runner(Desk(bench.control), settings, ToolKinds(), {}, name="w1")
    runner.run(pointer)
    events = [entry.event for entry in bench.log(pointer.execution_id)]
    event = next(e for e in reversed(events) if getattr(e, "step", None) == pointer.step)
    # Its message alone: pytest would shorten the event.
    assert not isinstance(event, StepFailed), event.error["message"]
    assert isinstance(event, StepDone)
    return event.result


def key_at(pointer: Pointer) -> str:
    """The key under which that worker claims: with the same one a claim is granted again."""
    return f"w1:{blake2b(':'.join(map(str, pointer)).encode(), digest_size=16).hexdigest()}"


@pytest.mark.parametrize(
    ("size", "store"), [(100, None), (101, "kv"), (1000, "kv"), (1001, "memory")]
)
def test_the_limits_are_exact(
    small: tuple[Making, CountedBlobs], size: int, store: str | None
) -> None:
    make, blobs = small
    _, _, carried = kept(make(), sized(size))
    assert (None if isinstance(carried, str) else carried["_store"]) == store
    assert len(blobs._blobs) == (store == "memory")


@pytest.mark.parametrize(
    "value", [sized(5000), list(range(2000)), 10**15], ids=["text", "list", "n"]
)
def test_lists_and_texts_tell_their_reference_too(
    small: tuple[Making, CountedBlobs], value: Any
) -> None:
    workflow = """
workflow:
- {step: a, next: {arcs: [{step: b, when: "{{ a._ref is defined }}"}, {step: c}]}}
- {step: b}
- {step: c}
"""
    bench = small[0]()
    execution_id, pointer = begun(bench, workflow)
    bench.work(pointer, value)
    taken = [item.step for item in bench.advance(execution_id)]
    assert taken == (["c"] if isinstance(value, int) else ["b"])


def test_a_preview_is_small_whatever_the_value(small: tuple[Making, CountedBlobs]) -> None:
    bench = small[0]()
    for value in (
        {f"key {n}": "\u6f22" * 150 for n in range(100)},
        {"k" * 2000: 1, "x": sized(3000)},
        [["\U0001f600" * 30] * 9 for _ in range(90)],
        "\U0001f600" * 3000,
        [sized(5000)],
        {f"\x01{n}": "\x01" * 100 for n in range(90)},
        ["\x01" * 20] * 90,
        "\x01" * 3000,
    ):
        _, _, carried = kept(bench, value)
        assert len(dumps(carried["_preview"])) <= 1024
        assert len(dumps(carried)) < 4096


def test_the_parts_that_a_step_selects_stand_in_its_reference(
    small: tuple[Making, CountedBlobs],
) -> None:
    workflow = """
workflow:
- step: a
  tool: {kind: noop, result: {rows: "{{ range(2000) | list }}", deep: {m: {n: [4, 5]}}}}
  output: {output_select: [data.deep.m.n, rows.3, missing.x]}
  next: {arcs: [{step: b}]}
- {step: b, tool: {kind: noop, result: "{{ a.n[1] }}"}}
"""
    make, blobs = small
    bench = make()
    _, pointer = begun(bench, workflow)
    carried = worked(bench, pointer)
    assert {key: part for key, part in carried.items() if key[0] != "_"} == {"n": [4, 5], "3": 3}
    (second,) = bench.advance(pointer.execution_id)
    assert worked(bench, second) == 5
    assert not blobs.read


@pytest.mark.parametrize(
    ("code", "fetches"),
    [
        pytest.param("result = 1", 0, id="not named"),
        pytest.param("result = len(variables['a']['rows'])", 1, id="as a variable"),
        pytest.param("def main(a):\n  return len(a['rows'])", 1, id="as a parameter"),
        pytest.param("def main(**every):\n  return 1", 1, id="perhaps"),
    ],
)
def test_a_program_gets_the_large_values_that_it_may_read(
    small: tuple[Making, CountedBlobs], code: str, fetches: int
) -> None:
    make, blobs = small
    bench = make()
    text = code.replace("\n", "\n      ")
    workflow = f"""
workflow:
- {{step: a, tool: {{kind: noop}}, next: {{arcs: [{{step: b}}]}}}}
- step: b
  tool:
    kind: python
    input: {{n: "{{{{ a.n }}}}"}}
    code: |
      {text}
"""
    execution_id, pointer = begun(bench, workflow)
    bench.work(pointer, LARGE)
    (second,) = bench.advance(execution_id)
    assert worked(bench, second) in {1, 1000}
    assert sum(blobs.read.values()) == fetches


def test_a_selection_that_is_large_itself_is_refused(small: tuple[Making, CountedBlobs]) -> None:
    bench = small[0]()
    execution_id, pointer = begun(bench)
    bench.claim(pointer)
    bench.report(pointer, LARGE, selected={"rows": LARGE["rows"]})
    event = bench.log(execution_id)[3].event
    assert isinstance(event, StepFailed)
    assert "output_select" in event.error["message"]
    assert "CALLBOARD_INLINE_BYTES" in event.error["message"]


# ---------------------------------------------------------------------- what may go wrong
def test_a_blob_is_written_before_the_event_that_needs_it(
    small: tuple[Making, CountedBlobs],
) -> None:
    make, blobs = small
    bench = make()
    execution_id, pointer = begun(bench)
    bench.claim(pointer)
    blobs.down = True
    with pytest.raises(UnavailableError):
        bench.report(pointer, sized(5000))
    assert bench.types(execution_id)[-1] == "step.started"
    blobs.down = False
    assert bench.report(pointer, sized(5000)).accepted
    assert bench.report(pointer, sized(5000)).duplicate
    assert len(blobs._blobs) == 1


@pytest.mark.parametrize(("damage", "says"), [(None, "is gone"), (b'"y"', "is damaged")])
def test_a_lost_or_damaged_blob_fails_who_reads_it_and_says_so(
    small: tuple[Making, CountedBlobs], damage: bytes | None, says: str
) -> None:
    make, blobs = small
    bench = make()
    execution_id, second, carried = kept(bench, {"v": sized(5000)})
    key = key_of(place_of(carried[REF]))
    if damage is None:
        blobs.delete(key)
    else:
        blobs.put(key, damage)
    with pytest.raises(MissingValueError, match=says):
        bench.control.results.text(execution_id, "a")
    with pytest.raises(AssertionError, match=says):
        worked(bench, second)
    bench.advance(execution_id)
    assert bench.control.executions.get(execution_id).status == "FAILED"


def test_a_decision_that_needs_a_lost_blob_ends_the_execution(
    small: tuple[Making, CountedBlobs],
) -> None:
    make, blobs = small
    bench = make()
    workflow = """
workflow:
- {step: a, next: {arcs: [{step: b, when: "{{ a.v == 'x' }}"}]}}
- {step: b}
"""
    execution_id, pointer = begun(bench, workflow)
    bench.work(pointer, {"v": sized(5000)})
    blobs._blobs.clear()
    bench.advance(execution_id)
    summary = bench.control.executions.get(execution_id)
    assert summary.status == "FAILED"
    assert "is gone" in str(summary.error)


def test_a_pool_reads_only_what_its_running_attempt_may(making: Making) -> None:
    bench = making(inline_bytes=100)
    _, second, carried = kept(bench, sized(5000))
    other, _, foreign = kept(bench, sized(6000))
    asked = ValueRequest(**second._asdict(), ref=carried[REF]["ref"])
    work = bench.control.work
    with pytest.raises(ForbiddenError):  # not claimed yet
        work.value(asked, pool="default")
    assert bench.claim(second).granted
    assert len(work.value(asked, pool="default")) == 5000
    with pytest.raises(ForbiddenError):  # of another pool
        work.value(asked, pool="gpu")
    with pytest.raises(ForbiddenError):  # of another execution
        work.value(asked.model_copy(update={"ref": foreign[REF]["ref"]}), pool="default")
    with pytest.raises(BadRequestError):
        work.value(asked.model_copy(update={"ref": "file:///etc/passwd"}), pool="default")
    assert other


# ---------------------------------------------------------------------- loops
LOOP = """
workflow:
- step: a
  next: {arcs: [{step: l}]}
- step: l
  loop: {in: "{{ a.rows }}", iterator: row, spec: {mode: parallel}}
  tool: {kind: noop, result: "{{ iter.row }}"}
  next: {arcs: [{step: z}]}
- {step: z, tool: {kind: noop, result: "{{ l.results | length }} {{ l.results[-1].n }} {{ l.stats.total }}"}}
"""


def test_a_large_collection_is_read_once_for_all_its_iterations(
    small: tuple[Making, CountedBlobs],
) -> None:
    make, blobs = small
    bench = make()
    execution_id, pointer = begun(bench, LOOP)
    bench.work(pointer, {"rows": [{"n": n, "text": "x" * 50} for n in range(300)]})
    pointers = bench.advance(execution_id)
    assert len(pointers) == 300
    blobs.read.clear()
    for item in pointers:
        variables = bench.claim(item).variables
        assert variables is not None
        assert variables.local["row"]["n"] == item.iteration
        bench.report(item, variables.local["row"])
    assert sum(blobs.read.values()) == 1


def test_the_results_of_a_loop_come_by_reference_in_few_queries(
    making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = making(inline_bytes=100)
    execution_id, pointer = begun(bench, LOOP)
    bench.work(pointer, {"rows": list(range(120))})
    for item in bench.advance(execution_id):
        bench.work(item, {"n": item.iteration, "text": "x" * 200})
    (last,) = bench.advance(execution_id)
    variables = bench.claim(last, key=key_at(last)).variables
    assert variables is not None
    carried = variables.results["l"]
    assert carried[REF]["kind"] == "loop_ref"
    assert carried["stats"] == {"total": 120, "success": 120, "failed": 0}
    asked: list[int] = []
    values = bench.ports.events.values

    def counted(_: object, execution_id: int, names: Iterable[str]) -> dict[str, Any]:
        listed = list(names)
        asked.append(len(listed))
        return values(execution_id, listed)

    monkeypatch.setattr(type(bench.ports.events), "values", counted)
    assert worked(bench, last) == "120 119 120"
    assert asked == [120]


def test_an_item_too_large_for_an_answer_is_fetched_alone(making: Making) -> None:
    bench = making()
    execution_id, pointer = begun(bench, LOOP)
    rows = [{"n": n, "text": "x" * 200_000} for n in range(3)]
    bench.work(pointer, {"rows": rows})
    pointers = bench.advance(execution_id)
    variables = bench.claim(pointers[2], key=key_at(pointers[2])).variables
    assert variables is not None
    assert variables.local["row"] is None
    assert variables.item is not None
    assert variables.item.index == 2
    result = worked(bench, pointers[2])
    assert bench.control.results._reader.resolved(execution_id, result) == rows[2]


def test_loop_results_too_large_together_are_refused(making: Making) -> None:
    bench = making(result_bytes=100_000, inline_bytes=100)
    execution_id, pointer = begun(bench, LOOP)
    bench.work(pointer, {"rows": list(range(3))})
    for item in bench.advance(execution_id):
        bench.work(item, sized(50_000))
    (last,) = bench.advance(execution_id)
    with pytest.raises(AssertionError, match="CALLBOARD_RESULT_BYTES"):
        worked(bench, last)
