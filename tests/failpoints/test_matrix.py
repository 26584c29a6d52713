"""Whatever fails at whichever comma, the execution ends as if nothing had happened.

The cases wait more than they work, so several systems play them at once; each test is one case.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import pytest

from app.embedded.postgres import EmbeddedPostgres
from app.failpoints import POINTS
from tests.failpoints.cases import CASES, Case
from tests.failpoints.lane import Lane
from tests.failpoints.story import WITNESSED, Told
from tests.system.plane import readable_home

pytestmark = pytest.mark.slow

LANES = 4
#: What a run without faults gives; the case ``none`` is one.
RESULTS = {
    "join": {"n": 3},
    "fan": {
        "results": [10, 20, 30],
        "data": [10, 20, 30],
        "stats": {"total": 3, "success": 3, "failed": 0},
    },
    "end": {"n": 61, "join": 3},
}


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, postgres_server: EmbeddedPostgres, migrated_template: str
) -> Iterator[dict[str, Future[Told]]]:
    """The outcomes of all cases that were asked for, as they come."""
    asked = [item for item in request.session.items if item.path == request.path]
    cases = [item.callspec.params["case"] for item in asked if hasattr(item, "callspec")]
    lanes: SimpleQueue[Lane] = SimpleQueue()
    with ExitStack() as stack, ThreadPoolExecutor(LANES) as pool:
        opened: list[Lane] = []
        for number in range(min(LANES, len(cases))):
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="cb-"))
            database = postgres_server.create_database(f"lane_{number}", template=migrated_template)
            stack.callback(postgres_server.drop_database, f"lane_{number}")
            opened.append(Lane(readable_home(Path(home)), database))
            stack.push(opened[-1])
        for lane in pool.map(Lane.__enter__, opened):
            lanes.put(lane)

        def play(case: Case) -> Told:
            lane = lanes.get()
            try:
                return lane.play(case)
            finally:
                lanes.put(lane)

        yield {case.name: pool.submit(play, case) for case in cases}
        pool.shutdown(cancel_futures=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_ends_as_if_nothing_had_happened(case: Case, played: dict[str, Future[Told]]) -> None:
    story = played[case.name].result()
    assert story.findings == []
    assert story.ended_twice == []
    if case.cancels:
        assert story.status == "CANCELLED"
        ends = [event["type"] for event in story.events if event["type"].startswith("execution.")]
        assert ends.count("execution.cancelled") == 2
        return
    assert story.status == "COMPLETED"
    assert story.results == RESULTS
    assert story.witnessed == WITNESSED
    if case.once:
        assert set(story.seen.values()) == {1}
    else:
        more = {key: runs for key, runs in story.seen.items() if runs > story.started[key]}
        assert sum(more.values()) <= 2, more


def test_every_point_is_in_the_matrix() -> None:
    named = {
        fault.split(":")[0] for case in CASES for each in case.faults.values() for fault in each
    }
    assert named == set(POINTS)
