"""Examining playbooks takes turns, so that the rest of the API goes on."""

from __future__ import annotations

import pytest

from app.errors import UnavailableError
from app.services import catalog
from tests.services.conftest import Bench


def test_a_third_playbook_waits_and_is_then_asked_to_come_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "PATIENCE", 0.01)
    turns = bench.control.catalog._turns
    with turns, turns, pytest.raises(UnavailableError, match="busy with other playbooks"):
        bench.register("workflow: [{step: start}]")
    assert bench.register("workflow: [{step: start}]").version == 1
