"""Runs the examples: in one process, and through the servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.local import run_playbook
from app.settings import load
from tests.playbooks.test_examples import Run
from tests.system.plane import System


@pytest.fixture
def run_local(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``callboard run``: memory log and broker; the warehouse is real."""
    assert system.stack.warehouse_url is not None
    monkeypatch.setenv("NOETL_SECRET_WAREHOUSE", system.stack.warehouse_url)

    def run(path: Path, payload: dict[str, Any]) -> dict[str, Any]:
        ended = run_playbook(
            path.read_text(), load({}, home=tmp_path).settings, payload, source=path.name
        )
        return {"status": ended.status, "result": ended.result, "error": ended.error}

    return run


@pytest.fixture
def run_served(system: System) -> Run:
    """API, JetStream, orchestrator and worker."""

    def run(path: Path, payload: dict[str, Any]) -> dict[str, Any]:
        served = {"api": system.client.url, **payload}
        status = system.run(path.read_text(), served)
        result = system.client.result(status["execution_id"]) if status["completed"] else None
        return {"status": status["status"], "result": result, "error": status.get("error")}

    return run
