"""One system for the tests that leave it as they found it, and one for each that does not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.plane import System, readable_home


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    with (
        tempfile.TemporaryDirectory(prefix="cb-") as home,
        System(readable_home(Path(home))) as running,
    ):
        yield running
