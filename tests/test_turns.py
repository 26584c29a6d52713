"""The files that share the running system are listed, and those that are listed exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.turns import LONG, TOGETHER

ROOT = Path(__file__).parents[1]


def test_whoever_uses_the_shared_system_is_listed(request: pytest.FixtureRequest) -> None:
    """Another test process would start one of its own for it."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    files = {item.nodeid.split("::")[0] for item in items if "system" in item.fixturenames}
    assert files - set(TOGETHER) == set()


@pytest.mark.parametrize("file", [*TOGETHER, *LONG])
def test_what_is_listed_exists(file: str) -> None:
    assert (ROOT / file).is_file()
