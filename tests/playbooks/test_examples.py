"""Every example does what it says, in one process and through the servers, with the same result.

``run_local`` and ``run_served`` (see conftest) run a playbook to its end and give
``{"status": …, "result": …}``, the result being that of the step that ended last.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
EXPECTED = Path(__file__).parent / "expected"

Run = Callable[[Path, dict[str, Any]], dict[str, Any]]


def cases() -> list[Any]:
    """One per payload of every expectations file, named after its playbook."""
    return [
        pytest.param(
            PLAYBOOKS / f"{file.stem}.yaml",
            {"data": str(PLAYBOOKS / "data"), **case["payload"]},
            case["result"],
            id="-".join([file.stem, *(str(value) for value in case["payload"].values())]),
        )
        for file in sorted(EXPECTED.glob("*.json"))
        for case in json.loads(file.read_text())
    ]


@pytest.mark.parametrize(("path", "payload", "expected"), cases())
def test_it_gives_the_expected_result_in_one_process(
    path: Path, payload: dict[str, Any], expected: Any, run_local: Run
) -> None:
    ended = run_local(path, payload)
    assert (ended["status"], ended["result"]) == ("COMPLETED", expected)


@pytest.mark.parametrize(("path", "payload", "expected"), cases())
def test_it_gives_the_same_result_through_the_servers(
    path: Path, payload: dict[str, Any], expected: Any, run_served: Run
) -> None:
    ended = run_served(path, payload)
    assert (ended["status"], ended["result"]) == ("COMPLETED", expected)


@pytest.mark.parametrize("name", ["demo", "etl"])
def test_loading_a_second_time_changes_nothing(name: str, run_local: Run) -> None:
    payload = {"data": str(PLAYBOOKS / "data")}
    first = run_local(PLAYBOOKS / f"{name}.yaml", payload)
    second = run_local(PLAYBOOKS / f"{name}.yaml", payload)
    assert first == second
