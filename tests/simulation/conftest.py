"""Services that log nothing: what they warn of here is meant to happen."""

from __future__ import annotations

import pytest

from app.simulation.cli import quieten


@pytest.fixture(autouse=True)
def quiet_logs(plain_logs: None) -> None:
    """After ``plain_logs``, which puts everything back at the end."""
    quieten()
