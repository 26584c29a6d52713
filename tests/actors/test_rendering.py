"""What a failed task was given is told with its error: masked, bounded, and only what was rendered."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.actors.rendering import CHARACTERS, MOST, Given, shown
from app.actors.steps import Runner
from app.engine.masking import MASK, Masker
from app.services.desk import Desk
from app.settings import load
from app.wire import CredentialPut
from app.wiring import ToolKinds
from tests.services.conftest import Bench, bench, make_bench  # noqa: F401 (fixtures)

CANARY = "canary-7f3a9b2c5d8e"


def masker(*secrets: str) -> Masker:
    made = Masker()
    made.add(*secrets)
    return made


def test_only_what_templates_made_is_shown() -> None:
    written = {"url": "{{ base }}/x", "method": "GET", "headers": {"a": "{{ a }}", "b": "c"}}
    rendered = {"url": "http://h/x", "method": "GET", "headers": {"a": 1, "b": "c"}}
    told = shown(Given(written, rendered), Masker())
    assert told == {"url": "http://h/x", "headers": {"a": 1}}
    assert shown(Given(written, written), Masker()) is None


def test_lists_keep_their_places() -> None:
    written = {"args": ["ls", "{{ folder }}", "-l"]}
    told = shown(Given(written, {"args": ["ls", "/tmp", "-l"]}), Masker())
    assert told == {"args": ["(as written)", "/tmp", "(as written)"]}


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(CANARY, id="as it is"),
        pytest.param(base64.b64encode(CANARY.encode()).decode(), id="base64"),
        pytest.param(CANARY.upper(), id="upper case"),
    ],
)
def test_no_secret_is_told_wherever_it_stands(form: str) -> None:
    rendered = {"q": f"a {form} b", "deep": {form: [{"x": form}]}, "n": [form] * 100}
    written = {"q": "{{ q }}", "deep": "{{ deep }}", "n": "{{ n }}"}
    told = orjson.dumps(shown(Given(written, rendered), masker(CANARY))).decode()
    assert form not in told
    assert MASK in told


@pytest.mark.parametrize("at", range(CHARACTERS - 25, CHARACTERS + 60, 3))
def test_no_cut_leaves_a_part_of_a_secret(at: int) -> None:
    """Many maskings before the cut move what comes after it to the front."""
    text = (CANARY * 20).ljust(at, "x")[:at] + CANARY + "y" * 5000
    told = shown(Given({"q": "{{ q }}"}, {"q": text}), masker(CANARY))["q"]
    assert "canary-" not in told
    assert told.endswith(f"({len(text)} characters)")


def test_a_template_that_reads_a_secret_is_masked_whole() -> None:
    written = {"h": "{{ keychain.api.token[:6] }}", "q": "{{ workload.q }}"}
    told = shown(Given(written, {"h": "canary", "q": "x"}), masker(CANARY))
    assert told == {"h": MASK, "q": "x"}


def test_it_is_never_large() -> None:
    many = {f"key{number}": "é" * 2000 for number in range(500)}
    told = shown(Given({"q": "{{ q }}"}, {"q": many}), Masker())
    assert isinstance(told, str)
    assert len(told.encode()) <= MOST
    deep: Any = "x"
    for _ in range(50):
        deep = [deep]
    assert len(orjson.dumps(shown(Given({"q": "{{ q }}"}, {"q": deep}), Masker()))) < 200


def test_what_is_no_json_is_named_by_its_type() -> None:
    told = shown(Given({"q": "{{ q }}", "n": "{{ n }}"}, {"q": {1, 2}, "n": 3}), Masker())
    assert told == {"q": "(set)", "n": 3}
    assert shown(Given({"n": "{{ n }}"}, {"n": float("nan")}), Masker()) is None


# ---------------------------------------------------------------------- in a whole attempt
FAILS = """
workload: {n: 7, q: x}
workflow:
- step: start
  input: {n: "{{ workload.n }}"}
  tool: {kind: python, args: {q: "{{ workload.q }}"}, code: "raise ValueError('no')"}
"""
SUCCEEDS = FAILS.replace("raise ValueError('no')", "result = n")
PLAIN = """
workflow: [{step: start, tool: {kind: python, code: "raise ValueError('no')"}}]
"""
#: The path comes to hold what the credential has, and its template does not say so.
SECRET = f"""
workload: {{one: {CANARY[:11]}, two: {CANARY[11:]}}}
workflow:
- step: start
  tool:
    kind: http
    auth: api
    url: "http://127.0.0.1:1/{{{{ workload.one ~ workload.two }}}}/{{{{ 6 + 1 }}}}"
    headers: {{x-first: "{{{{ auth.password[-6:] }}}}", x-all: "{{{{ auth.password }}}}"}}
"""


def ended(bench: Bench, home: Path, workflow: str) -> tuple[Any, str]:  # noqa: F811 (the fixture's value)
    """The last event of a playbook with one step, and the whole log as text."""
    execution_id = bench.start(workflow)
    (pointer,) = bench.advance(execution_id)
    settings = load({}, home=home).settings
    Runner(Desk(bench.control), settings, ToolKinds(), {}, name="w1").run(pointer)
    return bench.log(execution_id)[-1].event, repr(bench.log(execution_id))


def test_a_failed_step_tells_what_its_task_was_given(bench: Bench, tmp_path: Path) -> None:  # noqa: F811
    event, _ = ended(bench, tmp_path, FAILS)
    assert event.error["rendered"] == {"input": {"n": 7, "q": "x"}}
    assert "no" in event.error["message"]


@pytest.mark.parametrize("workflow", [SUCCEEDS, PLAIN])
def test_nothing_is_told_of_success_or_where_nothing_was_rendered(
    bench: Bench,  # noqa: F811
    tmp_path: Path,
    workflow: str,
) -> None:
    event, log = ended(bench, tmp_path, workflow)
    assert event.type == ("step.done" if workflow == SUCCEEDS else "step.failed")
    assert "rendered" not in log


def test_no_secret_of_the_attempt_reaches_the_log(bench: Bench, tmp_path: Path) -> None:  # noqa: F811
    data = {"password": CANARY}
    bench.control.credentials.put(CredentialPut(name="api", type="generic", data=data))
    event, log = ended(bench, tmp_path, SECRET)
    assert event.type == "step.failed"
    assert event.error["rendered"] == {
        "url": f"http://127.0.0.1:1/{MASK}/7",
        "headers": {"x-first": MASK, "x-all": MASK},
    }
    assert CANARY not in log
    assert CANARY not in repr(bench.control.whys.why(only(bench)))


def only(bench: Bench) -> int:  # noqa: F811 (the fixture's value)
    """The only execution."""
    return bench.ports.events.open_executions()[0]
