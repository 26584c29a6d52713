"""``callboard status`` on executions that wait, skip, and do not know how far they have to go."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from app.api.app import create_app
from app.engine.children import Call as PlaybookCall
from app.engine.events import (
    AttemptFailed,
    ChildStarted,
    Event,
    StepDone,
    StepParked,
    claim_iteration,
)
from app.engine.ports import Draft
from app.services.control import Control, Ports, control
from app.settings import Settings
from app.store.ids import Snowflake
from app.store.memory import MemoryCatalog, MemoryLog, MemoryRuntime
from app.wiring import ToolKinds, memory_custody
from tests.api.plane import Probe, Recorder, served
from tests.cli.fakes import Call
from tests.cli.test_run import HEAD

CHILD = f"{HEAD.replace('test/t', 'test/child')}workflow: [{{step: start, tool: {{kind: noop}}}}]\n"
PARENT = f"""{HEAD}workflow:
  - step: start
    tool: {{kind: noop}}
    next:
      spec: {{mode: inclusive}}
      arcs:
        - {{step: never, when: "{{{{ 1 == 2 }}}}"}}
        - {{step: denied}}
        - {{step: sub}}
        - {{step: each}}
        - {{step: forget}}
        - {{step: flaky}}
        - {{step: slow}}
        - {{step: both}}
        - {{step: rows}}
  - {{step: never, tool: {{kind: noop}}}}
  - step: denied
    spec: {{policy: {{admit: {{rules: [{{else: {{then: {{allow: false}}}}}}]}}}}}}
    tool: {{kind: noop}}
  - {{step: sub, tool: {{kind: playbook, path: test/child, return_step: start}}}}
  - step: each
    loop: {{in: [1, 2, 3], iterator: n, spec: {{mode: parallel, max_in_flight: 2}}}}
    tool: {{kind: playbook, path: test/child, return_step: start}}
  - {{step: forget, tool: {{kind: playbook, path: test/child}}}}
  - {{step: flaky, tool: {{kind: noop}}}}
  - {{step: slow, tool: {{kind: noop}}}}
  - step: both
    tool: [{{name: tell, kind: playbook, path: test/child}}, {{name: rest, kind: noop}}]
  - step: rows
    loop:
      cursor: {{kind: postgres, auth: warehouse, claim: "UPDATE t SET a = 1 RETURNING id"}}
      iterator: row
      spec: {{mode: cursor, max_in_flight: 2}}
    tool: {{kind: noop}}
"""


@dataclass(frozen=True)
class Asleep:
    """A control plane whose messages nobody takes: what happens is written by the test."""

    control: Control
    log: MemoryLog
    execution: int

    def tell(self, *events: Event) -> None:
        """Write *events*, and let the engine go on from there."""
        with self.log.transaction([self.execution]) as tx:
            tx.append(self.execution, [Draft(event) for event in events])
        self.control.advance.advance(self.execution)


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asleep]:
    """An execution of PARENT, whose first step has just ended; the command line finds its API."""
    runtime = MemoryRuntime()
    log = MemoryLog(runtime)
    settings = Settings()
    ports = Ports(
        events=log,
        catalog=MemoryCatalog(),
        runtime=runtime,
        dispatcher=Recorder(),
        kinds=ToolKinds(),
        clock=time.time,
        new_id=Snowflake(),
        custody=memory_custody(),
    )
    plane = control(ports, settings)
    for text in (CHILD, PARENT):
        plane.catalog.register(text)
    execution = plane.executions.start("test/t").execution_id
    plane.advance.advance(execution)
    with served(create_app(plane, settings, health=Probe())) as url:
        monkeypatch.setenv("NOETL_SERVER_URL", url)
        found = Asleep(plane, log, execution)
        found.tell(StepDone("start", 1, -1, 1))
        yield found


def _rows(call: Call, execution: int) -> dict[str, str]:
    """The lines of the table of ``status`` by step, with single spaces."""
    answer = call("status", str(execution))
    assert answer.exit_code == 0, answer.output
    table = answer.stdout.partition("\n\n")[2].splitlines()[2:]
    return {line.split()[0]: " ".join(line.split()) for line in table}


def test_the_reason_of_a_skip_is_told(call: Call, asleep: Asleep) -> None:
    rows = _rows(call, asleep.execution)
    assert rows["never"] == "never skipped 1 no arc led here"
    assert rows["denied"] == "denied skipped 1 not admitted"


def test_a_step_that_waits_for_a_playbook_names_its_execution(call: Call, asleep: Asleep) -> None:
    rows = _rows(call, asleep.execution)
    child = re.fullmatch(r"sub running 1 waits for execution (\d+) \(test/child\)", rows["sub"])
    assert child is not None, rows["sub"]
    assert call("status", child[1]).stdout.startswith(f"Execution: {child[1]}\n")
    assert re.fullmatch(
        r"each running 1 0/3 waits for execution \d+ \(test/child\) and 1 more", rows["each"]
    )
    assert rows["forget"] == "forget done 1"


def test_a_playbook_that_nobody_waits_for_is_not_waited_for(call: Call, asleep: Asleep) -> None:
    called = PlaybookCall(path="test/child").to_dict()
    asleep.tell(StepParked("both", 1, -1, 1, {}, call=called))
    children = [entry.event for entry in asleep.log.read(asleep.execution, types=["child.started"])]
    assert "both" in {event.step for event in children if isinstance(event, ChildStarted)}
    assert _rows(call, asleep.execution)["both"] == "both running 1"


def test_children_that_have_ended_are_not_waited_for(call: Call, asleep: Asleep) -> None:
    started = [entry.event for entry in asleep.log.read(asleep.execution, types=["child.started"])]
    first, second = (
        event.child_execution_id
        for event in started
        if isinstance(event, ChildStarted) and event.step == "each"
    )
    assert (
        f"waits for execution {first} (test/child) and 1 more"
        in _rows(call, asleep.execution)["each"]
    )
    asleep.control.executions.cancel(first)
    assert f"waits for execution {second} (test/child)" in _rows(call, asleep.execution)["each"]


def test_a_step_between_two_attempts_says_when_and_why(call: Call, asleep: Asleep) -> None:
    at = time.time() + 600
    error = {"kind": "exception", "message": "no luck", "retryable": True}
    asleep.tell(AttemptFailed("flaky", 1, -1, 1, error, retry_at=at))
    asleep.tell(StepParked("slow", 1, -1, 1, {}, resume_at=at))
    clock = time.strftime("%H:%M:%S", time.gmtime(at))
    rows = _rows(call, asleep.execution)
    assert rows["flaky"] == f"flaky running 1 attempt 1 failed: no luck; waits until {clock} UTC"
    assert rows["slow"] == f"slow running 1 waits until {clock} UTC"


def test_a_time_that_is_over_is_not_waited_for(call: Call, asleep: Asleep) -> None:
    asleep.tell(StepParked("slow", 1, -1, 1, {}, resume_at=time.time() - 1))
    assert _rows(call, asleep.execution)["slow"] == "slow running 1"


def test_a_cursor_loop_shows_no_total_until_it_has_ended(call: Call, asleep: Asleep) -> None:
    claimed = {"rows": [{"id": 1}, {"id": 2}]}
    asleep.tell(StepDone("rows", 1, claim_iteration(0), 1, claimed))
    assert _rows(call, asleep.execution)["rows"] == "rows running 1 0 so far"
    asleep.tell(StepDone("rows", 1, 0, 1))
    assert _rows(call, asleep.execution)["rows"] == "rows running 1 1 so far"
    asleep.tell(StepDone("rows", 1, 1, 1))
    asleep.tell(StepDone("rows", 1, claim_iteration(1), 1, {"rows": []}))
    assert _rows(call, asleep.execution)["rows"] == "rows done 1 2/2"


def test_the_reason_of_a_cancellation_is_told(call: Call, asleep: Asleep) -> None:
    execution = str(asleep.execution)
    assert "Reason:" not in call("status", execution).stdout
    assert call("cancel", execution, "--reason", "wrong input").exit_code == 0
    assert "Status:    CANCELLED\n" in call("status", execution).stdout
    assert "Reason:    wrong input\n" in call("status", execution).stdout
    assert "waits" not in call("status", execution).stdout


def test_replay_tells_the_same(call: Call, asleep: Asleep) -> None:
    asleep.tell(StepDone("rows", 1, claim_iteration(0), 1, {"rows": [{"id": 1}, {"id": 2}]}))
    text = call("replay", str(asleep.execution)).stdout
    waits = next(line for line in text.splitlines() if line.startswith("waits:"))
    assert re.search(r"\bsub → execution \d+ \(test/child\)", waits)
    assert re.search(r"\beach\[1\] → execution \d+ \(test/child\)", waits)
    assert re.search(r"^rows +running +1 +0 so far", text, re.MULTILINE)


def test_events_tell_what_their_type_has_to_tell(call: Call, asleep: Asleep) -> None:
    lines = [
        " ".join(line.split()[2:])
        for line in call("events", str(asleep.execution)).stdout.splitlines()
    ]
    assert lines[0] == "execution.started test/t version 1"
    assert "step.skipped denied not admitted" in lines
    assert "step.scheduled rows (claim 0)" in lines
    assert any(re.fullmatch(r"child\.started sub test/child \(\d+\)", line) for line in lines)
    assert "loop.started each 3 items" in lines


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("step.don", "there is no event of the type 'step.don'; did you mean 'step.done'?"),
        ("call.eror", "there is no event of the type 'call.eror'; did you mean 'call.error'?"),
        ("xyz", "there is no event of the type 'xyz'; there are attempt.expired, "),
    ],
)
def test_an_unknown_type_of_event_is_an_error(call: Call, word: str, told: str) -> None:
    answer = call("events", "1", "--type", word)
    assert answer.exit_code == 2
    assert told in answer.stderr


def test_no_event_of_a_known_type_is_said(call: Call, asleep: Asleep) -> None:
    execution = str(asleep.execution)
    answer = call("events", execution, "--type", "step.failed")
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert answer.stderr == f"execution {execution} has no event of the type step.failed\n"
    assert call("events", execution, "--since", "999").stderr == (
        f"execution {execution} has no event after 999\n"
    )
