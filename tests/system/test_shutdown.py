"""SIGTERM: what is at work is finished or given back, nothing is charged, nothing is left behind."""

from __future__ import annotations

import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.nursery import Forked, Process, spawned
from tests.places import reachable
from tests.system.plane import MODULES, QUICK, System, readable_home

#: Seconds that processes get to end in good order.
GRACE = 10.0
HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: {name}}}\n"
#: Waits for the file that opens the gate.
GATED = "import os, time\nwhile not os.path.exists(gate): time.sleep(0.02)\nresult = 1"
LINE = (
    HEAD.format(name="line")
    + """
workflow:
- {step: start, tool: {kind: noop, result: 1}, next: {arcs: [{step: middle}]}}
- {step: middle, tool: {kind: noop, result: "{{ start + 1 }}"}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop, result: "{{ middle + 1 }}"}}
"""
)
#: One step at work, others waiting behind it.
QUEUE = (
    HEAD.format(name="queue")
    + f"""
workload: {{gate: ""}}
workflow:
- step: start
  tool: {{kind: noop}}
  next: {{spec: {{mode: inclusive}}, arcs: [{{step: gated}}, {{step: quick}}]}}
- {{step: gated, tool: {{kind: python, input: {{gate: "{{{{ gate }}}}"}}, code: {GATED!r}}}}}
- step: quick
  loop: {{in: [1, 2, 3, 4], iterator: i, spec: {{mode: parallel}}}}
  tool: {{kind: python, code: "result = 1"}}
""".replace("'", '"')
)
#: Hangs the first time, as a folder can be made once.
STUBBORN = (
    HEAD.format(name="stubborn")
    + r"""
workload: {mark: ""}
workflow:
- step: start
  tool:
    kind: python
    input: {mark: "{{ mark }}"}
    code: |
      import os, subprocess, time
      try:
          os.mkdir(mark)
      except FileExistsError:
          result = "second"
      else:
          subprocess.Popen(["sleep", "300"])
          time.sleep(300)
"""
)


@pytest.fixture(scope="module")
def plane() -> Iterator[System]:
    settings = {**QUICK, "CALLBOARD_GRACE": str(GRACE), "CALLBOARD_LEASE": "30"}
    settings["CALLBOARD_EAGER"] = "off"  # so that orchestrators have something to finish
    with (
        tempfile.TemporaryDirectory(prefix="cb-") as home,
        System(readable_home(Path(home)), settings=settings, launch=spawned) as running,
    ):
        running.launch = Forked  # further ones
        yield running


@pytest.fixture(autouse=True)
def whole(plane: System) -> Iterator[None]:
    """Afterwards every process runs again, as it was."""
    yield
    for module in MODULES:
        if plane.processes[module].poll() is not None:
            plane.start(module)
    plane.until(lambda: plane.client.health()["status"] == "ready", "the API to be ready")


def replace(plane: System, module: str, **variables: str) -> None:
    """End the process in good order and start it with *variables*."""
    assert plane.terminate(module) == 0
    plane.start(module, **variables)
    plane.until(lambda: plane.client.health()["status"] == "ready", "the API to be ready")


def lingers(plane: System, module: str, hits: int) -> None:
    """Wait until the armed process is in the middle of it."""
    plane.until(lambda: hits_of(plane, module) > hits, f"{module} to linger")


def hits_of(plane: System, module: str) -> int:
    return sum(line["event"] == "failpoint.hit" for line in plane.log(module))


def types_of(plane: System, execution_id: str) -> Counter[str]:
    return Counter(event["type"] for event in plane.client.events(execution_id, page_size=500))


def started(plane: System, execution_id: str, step: str) -> bool:
    events = plane.client.events(execution_id, page_size=500)
    return any(event["type"] == "step.started" and event["step"] == step for event in events)


def has_begun(plane: System, module: str) -> bool:
    """Whether it has begun to start, and is far from ready: the web holds its port by then."""
    if module == "server":
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", plane.port)) == 0
    return handles_the_signal(plane.processes[module])


def handles_the_signal(process: Process) -> bool:
    """Whether SIGTERM reaches code of ours; by default it would just end the process."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def family(process: Process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert [left for left in alive if left.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("module", MODULES)
def test_a_process_with_nothing_to_do_ends_at_once_and_signs_off(
    plane: System, module: str
) -> None:
    family_of_it = family(plane.processes[module])
    begun = time.monotonic()
    assert plane.terminate(module) == 0
    assert time.monotonic() - begun < GRACE
    assert_gone(family_of_it)
    assert plane.log(module)[-1]["event"] == f"{module}.stopped"


@pytest.mark.parametrize("module", MODULES)
def test_a_process_told_to_stop_while_it_starts_ends_in_good_order(
    plane: System, module: str
) -> None:
    plane.terminate(module)
    plane.launch = spawned  # one that is forked has no start to speak of
    plane.start(module)
    plane.launch = Forked
    plane.until(lambda: has_begun(plane, module), f"{module} to begin")
    assert plane.terminate(module) == 0
    assert plane.log(module)[-1]["event"] == f"{module}.stopped"


def test_the_web_finishes_the_request_it_has(plane: System) -> None:
    hits = hits_of(plane, "server")
    replace(plane, "server", CALLBOARD_FAILPOINT="start.commit:delay=1500")
    plane.client.register(LINE)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(plane.client.execute, "line")
        lingers(plane, "server", hits)
        assert plane.terminate("server") == 0
        execution_id = asked.result().execution_id
    plane.start("server")
    assert plane.wait(execution_id)["status"] == "COMPLETED"
    assert plane.client.result(execution_id) == 3


@pytest.mark.parametrize("point", ["advance.decide", "advance.commit", "advance.publish"])
def test_the_orchestrator_finishes_what_it_decides(plane: System, point: str) -> None:
    hits = hits_of(plane, "orchestrator")
    replace(plane, "orchestrator", CALLBOARD_FAILPOINT=f"{point}:delay=1500")
    execution_id = plane.begin(LINE)
    lingers(plane, "orchestrator", hits)
    assert plane.terminate("orchestrator") == 0
    # Nobody decides now, and yet what it had begun is done: the step was scheduled, and was sent.
    plane.until(lambda: types_of(plane, execution_id)["step.done"] == 1, "the first step to end")
    plane.start("orchestrator")
    assert plane.wait(execution_id)["status"] == "COMPLETED"
    types = types_of(plane, execution_id)
    assert (types["step.scheduled"], types["step.done"]) == (3, 3)


def test_the_scheduler_finishes_its_sweep(plane: System) -> None:
    hits = hits_of(plane, "scheduler")
    assert plane.terminate("orchestrator") == 0
    execution_id = plane.begin(LINE)
    replace(plane, "scheduler", CALLBOARD_FAILPOINT="sweep.wake:delay=1500")
    lingers(plane, "scheduler", hits)
    assert plane.terminate("scheduler") == 0
    assert plane.log("scheduler")[-1]["event"] == "scheduler.stopped"
    plane.start("orchestrator")
    assert plane.wait(execution_id)["status"] == "COMPLETED"


@pytest.fixture
def shared() -> Iterator[Path]:
    with reachable() as folder:
        yield folder


def test_a_step_longer_than_the_grace_period_is_given_back_and_not_counted(
    plane: System, shared: Path
) -> None:
    replace(plane, "worker", CALLBOARD_GRACE="0.5")
    execution_id = plane.begin(STUBBORN, {"mark": str(shared / "mark")})
    plane.until((shared / "mark").exists, "the step to run")
    everything = family(plane.processes["worker"])
    assert plane.terminate("worker") == 0
    assert_gone(everything)
    types = types_of(plane, execution_id)
    assert (types["attempt.interrupted"], types["attempt.expired"]) == (1, 0)
    plane.start("worker")
    assert plane.wait(execution_id)["status"] == "COMPLETED"
    assert plane.client.result(execution_id) == "second"
    types = types_of(plane, execution_id)
    assert (types["attempt.interrupted"], types["attempt.failed"], types["step.done"]) == (1, 0, 1)


def test_a_worker_gives_back_at_once_what_it_has_not_begun(plane: System, shared: Path) -> None:
    gate = shared / "gate"
    replace(plane, "worker", CALLBOARD_WORKER_THREADS="1", CALLBOARD_GRACE="60")
    execution_id = plane.begin(QUEUE, {"gate": str(gate)})
    plane.until(lambda: started(plane, execution_id, "gated"), "the gated step to start")
    leaving = plane.processes["worker"]
    leaving.terminate()
    plane.start("worker")

    def others_are_done() -> bool:
        events = plane.client.events(execution_id, page_size=500)
        done = [e for e in events if e["type"] == "step.done" and e["step"] == "quick"]
        return len(done) == 4

    plane.until(others_are_done, "another worker to do the rest")
    assert leaving.poll() is None
    gate.touch()
    assert leaving.wait(60) == 0
    assert plane.wait(execution_id)["status"] == "COMPLETED"
    types = types_of(plane, execution_id)
    assert (types["attempt.interrupted"], types["attempt.expired"]) == (0, 0)
    assert types["step.started"] == types["step.scheduled"]
