"""The agent tool's contract: whatever happens to the agent, the step gets one envelope."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from app.errors import ToolError
from app.local import run_playbook
from app.settings import load
from app.tools import Parked, load_tool

AGENTS = """
import os, sys

def double(n, extra=0): return n * 2 + extra
async def later(n): return n * 2
def whole(payload): return sorted(payload)
def everything(**given): return given
def broken(n): raise ValueError(f"no {n}")
def leaves(): os._exit(3)
def exits(): sys.exit(4)
def sleeps():
    print("sleeping", flush=True)
    while True: pass
def pieces(n): yield from range(n)
async def flow(n):
    for i in range(n): yield i
def bad_result(): return float("nan")
def environment(): return sorted(name for name in os.environ if name.startswith("AWS"))
def made(): return Runs()
plain = 5

class Runs:
    def run(self, payload, mode="fast"): return [payload, mode]
class Invokes:
    async def ainvoke(self, given, config=None): return [given, config]
class Calls:
    def __call__(self, n): return n + 1
class Chain:
    def invoke(self, given, config=None, **more): return [given, config, more]
class Runner:
    async def run_async(self, *, user_id, session_id, new_message):
        yield {"user": user_id, "text": new_message}
        yield {"session": session_id}
runner, calls = Runner(), Calls()
class Nested:
    inner = Runs()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "crew.py").write_text(AGENTS)
    (tmp_path / "wants.py").write_text("import no_such_library")
    for name in ("langchain_core", "google/adk"):
        # Stand in for the libraries; the adapters know no more of them than their methods' names.
        (tmp_path / "libraries" / name).mkdir(parents=True)
        (tmp_path / "libraries" / name / "__init__.py").touch()
    return tmp_path


def config(place: Path, attribute: str, payload: Any = None, **more: Any) -> dict[str, Any]:
    return {"entrypoint": f"crew:{attribute}", "payload": payload, "cwd": str(place), **more}


@pytest.mark.parametrize(
    ("attribute", "payload", "more", "expected"),
    [
        ("double", {"n": 2}, {}, 4),
        ("double", {"n": 2}, {"invoke_kwargs": {"extra": 1}}, 5),
        ("later", {"n": 2}, {}, 4),
        ("whole", {"b": 1, "a": 2}, {}, ["a", "b"]),
        ("everything", {"b": 1}, {"invoke_kwargs": {"c": 2}}, {"b": 1, "c": 2}),
        ("pieces", {"n": 2}, {}, [0, 1]),
        ("flow", {"n": 2}, {}, [0, 1]),
        ("Runs", {"a": 1}, {}, [{"a": 1}, "fast"]),
        ("Runs", {"a": 1}, {"invoke_kwargs": {"mode": "slow"}}, [{"a": 1}, "slow"]),
        ("Runs", {"a": 1}, {"entrypoint_mode": "class"}, [{"a": 1}, "fast"]),
        ("made", {"a": 1}, {"entrypoint_mode": "factory"}, [{"a": 1}, "fast"]),
        ("Nested.inner", {"a": 1}, {}, [{"a": 1}, "fast"]),
        ("Invokes", {"a": 1}, {}, [{"a": 1}, None]),
        ("calls", {"n": 1}, {}, 2),
        ("calls", {"n": 1}, {"entrypoint_mode": "call"}, 2),
        ("double", None, {"input": {"n": 3}}, 6),
        ("environment", None, {"auth": {"access_key_id": "a", "secret_access_key": "b"}},
         ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]),
    ],
)  # fmt: skip
def test_data(
    call: Any, place: Path, *, attribute: str, payload: Any, more: dict[str, Any], expected: Any
) -> None:
    envelope = call("agent", config(place, attribute, payload, **more))
    assert envelope.pop("duration") > 0
    assert envelope == {
        "status": "ok",
        "framework": "custom",
        "entrypoint": f"crew:{attribute}",
        "data": expected,
        "execution_id": "7",
        "error": None,
    }


@pytest.mark.parametrize(
    ("attribute", "more", "kind", "words"),
    [
        pytest.param("broken", {"payload": {"n": 1}}, "exception", "ValueError: no 1", id="raises"),
        pytest.param("leaves", {}, "exit", "exited with code 3", id="os._exit"),
        pytest.param("exits", {}, "exit", "exited with code 4", id="sys.exit"),
        pytest.param("sleeps", {"timeout": 0.3}, "timeout", "0.3 seconds", id="takes too long"),
        pytest.param("bad_result", {}, "schema", "NaN", id="no JSON"),
        pytest.param("missing", {}, "not_found", "there is no 'missing'", id="no attribute"),
        pytest.param("plain", {}, "schema", "neither a function", id="nothing to call"),
        pytest.param("double", {}, "exception", "TypeError", id="no arguments"),
        pytest.param("double", {"deps": ["no-such"]}, "not_found", "no-such", id="no package"),
        pytest.param("double", {"auth": "nope"}, "auth", "'nope'", id="no credential"),
    ],
)
def test_errors_are_in_the_envelope(
    call: Any, place: Path, *, attribute: str, more: dict[str, Any], kind: str, words: str
) -> None:
    envelope = call("agent", {**config(place, attribute), **more})
    error = envelope["error"]
    assert (envelope["status"], envelope["data"], error["kind"]) == ("error", None, kind)
    assert words in error["message"]
    assert error["code"]
    assert error["diagnosis"]
    assert error["retryable"] == (kind == "timeout")


def test_the_diagnosis_shows_the_agents_own_lines(call: Any, place: Path) -> None:
    error = call("agent", config(place, "broken", {"n": 1}))["error"]
    assert error["code"] == "ValueError"
    assert f'{place}/crew.py", line 8, in broken' in error["diagnosis"]
    assert "agents.py" not in error["diagnosis"]


def test_a_module_that_is_not_there_is_another_than_one_that_it_wants(
    call: Any, place: Path
) -> None:
    missing = call("agent", {"entrypoint": "nowhere.at.all:x"})["error"]
    assert (missing["kind"], "'nowhere.at.all'" in missing["message"]) == ("not_found", True)
    wants = call("agent", {"entrypoint": "wants:x", "cwd": str(place)})["error"]
    assert "No module named 'no_such_library'" in wants["message"]


def test_what_on_failure_says_stays_with_the_error(call: Any, place: Path) -> None:
    more = {"on_failure": {"troubleshoot": {"path": "agents/doctor"}}}
    error = call("agent", config(place, "leaves", **more))["error"]
    assert error["on_failure"] == {"troubleshoot": {"path": "agents/doctor"}}
    assert call("agent", config(place, "whole", {}, **more))["error"] is None


def test_langchain_is_invoked(call: Any, place: Path) -> None:
    libraries = {"sys_path": [str(place / "libraries")]}
    more = {"framework": "langchain", "deps": libraries, "invoke_kwargs": {"config": {"tags": []}}}
    envelope = call("agent", config(place, "Chain", {"question": "?"}, **more))
    assert envelope["data"] == [{"question": "?"}, {"tags": []}, {}]
    assert envelope["framework"] == "langchain"


def test_adk_is_run_with_all_by_name(call: Any, place: Path) -> None:
    libraries = {"sys_path": [str(place / "libraries")]}
    payload = {"user_id": "u", "session_id": "s", "new_message": "hi"}
    envelope = call("agent", config(place, "runner", payload, framework="adk", deps=libraries))
    assert envelope["data"] == [{"user": "u", "text": "hi"}, {"session": "s"}]


@pytest.mark.parametrize(
    ("framework", "library"), [("langchain", "langchain"), ("adk", "google.adk")]
)
def test_a_framework_that_is_not_installed_is_named(
    call: Any, place: Path, framework: str, library: str
) -> None:
    error = call("agent", config(place, "Chain", {}, framework=framework))["error"]
    assert error["kind"] == "not_found"
    assert f"framework {framework} needs" in error["message"]
    assert library in error["message"]


def test_a_cancelled_agent_is_no_envelope(fail: Any, place: Path) -> None:
    cancelled = threading.Event()
    error = fail(
        "agent", config(place, "sleeps"), cancelled=cancelled, log=lambda *_: cancelled.set()
    )
    assert error.kind == "cancelled"


# ---------------------------------------------------------------------- playbooks as agents
CHILD = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: child, path: agents/child}
workload: {n: 0, value: null}
workflow:
  - step: start
    tool:
      kind: python
      input: {n: "{{ n }}", value: "{{ value }}"}
      code: |
        if n < 0:
            raise ValueError("below zero")
        result = value if value is not None else {"double": n * 2}
"""
MAIN = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: main, path: main}
workflow:
  - step: start
    tool: {kind: agent, %s}
"""


@pytest.fixture
def envelope(tmp_path: Path) -> Any:
    """``envelope(keys of the tool)``: the result of a playbook of one such step."""

    def run(keys: str) -> dict[str, Any]:
        (tmp_path / "child.yaml").write_text(CHILD)
        main = tmp_path / "main.yaml"
        main.write_text(MAIN % keys)
        settings = load({}, home=tmp_path / "home").settings
        ended = run_playbook(main.read_text(), settings, source=str(main))
        assert ended.status == "COMPLETED"
        result: dict[str, Any] = ended.results["start"]
        return result

    return run


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        pytest.param("{n: 4}", {"double": 8}, id="a mapping"),
        pytest.param("{value: [1, 2]}", [1, 2], id="a list"),
        pytest.param("{value: 5}", 5, id="a number"),
    ],
)
def test_a_playbook_is_an_agent(envelope: Any, payload: str, data: Any) -> None:
    found = envelope(f"framework: noetl, entrypoint: agents/child, payload: {payload}")
    assert found.pop("duration") > 0
    assert found.pop("execution_id").isdigit()
    assert found == {
        "status": "ok",
        "framework": "noetl",
        "entrypoint": "agents/child",
        "data": data,
        "error": None,
    }


def test_a_failed_playbook_is_an_error_in_the_envelope(envelope: Any) -> None:
    found = envelope("entrypoint: agents/child, payload: {n: -1}")
    assert (found["status"], found["error"]["kind"]) == ("error", "playbook")
    assert "below zero" in found["error"]["message"]
    assert found["execution_id"] in found["error"]["message"]
    assert 'File "<step start>", line 2' in found["error"]["diagnosis"]


def test_a_playbook_that_is_not_registered_is_an_error_in_the_envelope(envelope: Any) -> None:
    found = envelope("entrypoint: agents/none")
    assert (found["status"], found["error"]["kind"]) == ("error", "not_found")
    assert found["execution_id"] is None


def test_a_playbook_that_takes_too_long_is_an_error_in_the_envelope() -> None:
    tool = load_tool("agent")
    request = tool.input.model_validate({"entrypoint": "a/b", "timeout": 5})
    assert tool.resumed is not None
    told = {"status": "timeout", "execution_id": "9", "completed": False, "failed": False}
    found = tool.resumed(request, told, None, 5.0)
    assert (found["error"]["kind"], found["error"]["retryable"]) == ("timeout", True)
    assert found["duration"] == 5.0
    lost = tool.resumed(request, None, ToolError("lost", kind="playbook"), 1.0)
    assert (lost["status"], lost["error"]["message"]) == ("error", "lost")


def test_it_asks_for_the_playbook_and_waits(call: Any) -> None:
    with pytest.raises(Parked) as parked:
        call("agent", {"entrypoint": "catalog://a/b", "payload": {"x": 1}, "timeout": "5s"})
    asked = parked.value.call
    assert (asked.path, asked.payload, asked.waits, asked.timeout) == ("a/b", {"x": 1}, True, 5.0)
