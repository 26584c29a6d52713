"""Steps with the http tool: what its errors mean for their rules, and what templates see of auth."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.actors.sequence import Outcome, TaskSequence
from app.engine.language.parse import parse_step
from app.engine.templates.scope import Scope
from app.settings import load
from app.tools import Context
from app.tools.web.transport import close
from app.wiring import ToolKinds
from tests.tools.conftest import Known
from tests.tools.server import running

KINDS = ToolKinds()
PATIENT = """
spec: {policy: {rules: [{when: "output.error.retryable", then: {do: retry, attempts: 3}}]}}
"""


@pytest.fixture
def server() -> Iterator[Any]:
    with running() as served:
        yield served
    close()


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(
        execution_id=7,
        step="s",
        visit=1,
        iteration=-1,
        attempt=1,
        settings=load({}).settings,
        timeout=60.0,
        workspace=tmp_path,
    )


def run(tool: Mapping[str, Any], context: Context, **layers: Mapping[str, Any]) -> Outcome:
    step = parse_step({"step": "s", "tool": {"kind": "http", **tool}}, KINDS)
    return TaskSequence(step, Scope(**layers), context, time.monotonic() + 60).run()


# ---------------------------------------------------------------------- Retry-After
def test_a_short_wait_that_a_server_asks_for_is_waited_for(context: Context, server: Any) -> None:
    began = time.monotonic()
    outcome = run({"url": f"{server.url}/flaky/1", **yaml.safe_load(PATIENT)}, context)
    assert time.monotonic() - began >= 1.0
    assert outcome.error is None
    assert outcome.result["data"]["path"] == "/flaky/1"
    assert len(server.asked) == 2


@pytest.mark.parametrize(("path", "least"), [("flaky/120", 120.0), ("later/120", 110.0)])
def test_a_long_one_goes_through_the_log(
    context: Context, server: Any, path: str, least: float
) -> None:
    outcome = run({"url": f"{server.url}/{path}", **yaml.safe_load(PATIENT)}, context)
    assert outcome.retry_in is not None
    assert least <= outcome.retry_in <= 120.0
    assert len(server.asked) == 1


def test_rules_read_how_long_to_wait(context: Context, server: Any) -> None:
    rule = {
        "when": "output.error.kind == 'rate_limit'",
        "then": {"do": "continue", "set": {"ctx.wait": "{{ output.error.retry_after }}"}},
    }
    spec = {"policy": {"rules": [rule]}}
    outcome = run({"url": f"{server.url}/status/429", "spec": spec}, context)
    assert outcome.ctx == {"wait": 7}


# ---------------------------------------------------------------------- auth in templates
@pytest.mark.parametrize(
    ("auth", "header"),
    [
        pytest.param("api", "Token {{ auth.token }}", id="a credential by name"),
        pytest.param("{{ workload.name }}", "Token {{ auth.token }}", id="its name in a template"),
        pytest.param({"token": "s3cret"}, "Token {{ auth.token }}", id="its fields"),
        pytest.param(
            {"one": {"type": "bearer", "credential": "api"}},
            "Token {{ auth.one.token }}",
            id="under an alias",
        ),
        pytest.param(
            {"one": {"token": "other"}, "two": {"type": "bearer", "credential": "api"}},
            "Token {{ auth.two.token }}",
            id="under one of two aliases",
        ),
    ],
)
def test_templates_read_the_fields_of_their_own_auth(
    context: Context, server: Any, auth: Any, header: str
) -> None:
    known = Known({"api": '{"token": "s3cret"}'})
    tool = {"url": server.url, "auth": auth, "headers": {"X-Own": header}}
    outcome = run(tool, replace(context, secrets=known), workload={"name": "api"})
    assert outcome.error is None, outcome.error
    assert outcome.result["data"]["headers"]["x-own"] == "Token s3cret"


def test_a_credential_that_is_not_there_fails_the_step(context: Context, server: Any) -> None:
    tool = {"url": server.url, "auth": "gone", "headers": {"X-Own": "{{ auth.token }}"}}
    outcome = run(tool, replace(context, secrets=Known()))
    assert outcome.error is not None
    assert outcome.error["kind"] == "auth"
    assert server.asked == []
