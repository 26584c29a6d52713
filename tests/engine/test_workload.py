"""The workload of an execution: defaults, what is given over them, and their templates."""

from __future__ import annotations

from typing import Any

import pytest

from app.engine.workload import merged

NAMES = {"execution_id": "12", "job": {"uuid": "12"}}


@pytest.mark.parametrize(
    ("defaults", "given", "expected"),
    [
        pytest.param({"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}, id="merged"),
        pytest.param({"id": "{{ job.uuid }}"}, {}, {"id": "12"}, id="names of the execution"),
        pytest.param({"y": "{{ now().year }}"}, {}, {"y": 2026}, id="the time"),
        pytest.param(
            {
                "base": "x",
                "url": "{{ workload.base }}/y",
                "all": ["{{ url }}", {"k": "{{ base }}"}],
            },
            {},
            {"base": "x", "url": "x/y", "all": ["x/y", {"k": "x"}]},
            id="keys before it, at any depth",
        ),
        pytest.param(
            {"base": "x", "url": "{{ base }}/y"},
            {"base": "z"},
            {"base": "z", "url": "z/y"},
            id="what was given",
        ),
        pytest.param(
            {"a": 1}, {"a": "{{ job.uuid }}"}, {"a": "{{ job.uuid }}"}, id="given text stays text"
        ),
        pytest.param(
            {"copy": "{{ text }}"},
            {"text": "{{ job.uuid }}"},
            {"copy": "{{ job.uuid }}", "text": "{{ job.uuid }}"},
            id="and is not rendered where it is copied",
        ),
        *(
            pytest.param({"a": text}, {}, {"a": text}, id=text)
            for text in (
                "Dear {{ customer.name }}",
                "{{ keychain.api.token }}",
                "{{ workload.later }}",
                "{{ workload }}",
                "{{ 1 / 0 }}",
                "{{ not a template",
            )
        ),
    ],
)
def test_merged(defaults: dict[str, Any], given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert merged(defaults, given, NAMES, now=1_767_225_600.0) == expected
