"""How tools read their ``timeout``."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app.tools import kinds, load_tool

LEAST: dict[str, dict[str, Any]] = {
    "agent": {"entrypoint": "module:attribute"},
    "artifact": {"result_ref": None},
    "credential": {"auth": "warehouse"},
    "duckdb": {"query": "select 1"},
    "http": {"url": "http://localhost"},
    "mcp": {"endpoint": "http://localhost", "tool": "add"},
    "nats": {"operation": "kv_get"},
    "playbook": {"path": "some/where"},
    "postgres": {"query": "select 1", "auth": "warehouse"},
    "python": {"code": "return 1"},
    "script": {"script": {"uri": "program.sh"}},
    "shell": {"cmd": "true"},
    "transfer": {
        "source": {"type": "file", "path": "a.csv"},
        "target": {"type": "file", "path": "b.csv"},
    },
}


def test_every_tool_with_a_timeout_is_in_the_table() -> None:
    timed = {kind for kind in kinds() if "timeout" in load_tool(kind).input.model_fields}
    assert timed == set(LEAST)


@pytest.mark.parametrize("kind", LEAST)
@pytest.mark.parametrize(
    ("written", "seconds"),
    [(30, 30), (0.5, 0.5), ("30", 30), ("30s", 30), ("5m", 300), ("250ms", 0.25), ("1.5 h", 5400)],
)
def test_a_timeout_is_seconds_or_text(kind: str, written: Any, seconds: float) -> None:
    tool = load_tool(kind)
    config = LEAST[kind] | {"timeout": written}
    assert getattr(tool.input.model_validate(config), "timeout") == seconds  # noqa: B009 (which model it is differs)
    assert tool.complaints(config) == []
    assert Draft202012Validator(tool.schema()).is_valid(config)


@pytest.mark.parametrize("kind", LEAST)
@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("5 parsecs", "a number of seconds, or text such as '30s' or '5m', not this text"),
        (0, "more than 0, not this number"),
        ("0s", "more than 0, not this text"),
        (-1, "more than 0, not this number"),
        ([30], "a number, not this list"),
    ],
)
def test_what_is_no_time_is_told(kind: str, written: Any, told: str) -> None:
    tool = load_tool(kind)
    (complaint,) = tool.complaints(LEAST[kind] | {"timeout": written})
    assert complaint.path == ("timeout",)
    assert complaint.message == f"'timeout' must be {told}."
    schema = Draft202012Validator(tool.schema())
    assert written == "0s" or not schema.is_valid(LEAST[kind] | {"timeout": written})


@pytest.mark.parametrize("kind", LEAST)
def test_a_template_may_become_a_time(kind: str) -> None:
    tool = load_tool(kind)
    config = LEAST[kind] | {"timeout": "{{ workload.patience }}"}
    assert tool.complaints(config) == []
    assert Draft202012Validator(tool.schema()).is_valid(config)
