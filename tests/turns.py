"""In which order two test processes take the files, and which of them stay together.

Starting all of Callboard takes seconds of both cores, so whatever uses the one shared ``system``
goes to one process. The long ones come first, so that neither process is left with one at the end.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadFileScheduling

#: Files and folders on the shared ``system``.
TOGETHER = (
    "tests/system/test_executions.py",
    "tests/system/test_family.py",
    "tests/system/test_hostile.py",
    "tests/system/test_logs.py",
    "tests/system/test_recovery.py",
    "tests/system/test_upgrade.py",
    "tests/conformance/test_served.py",
    "tests/playbooks/test_examples.py",
)
#: Files that take longest for their few tests; more tests come first among the others.
LONG = (
    "tests/chaos/test_smoke.py",
    "tests/system/test_shutdown.py",
    "tests/system/test_cancel.py",
    "tests/system/test_schedulers.py",
    "tests/trouble/test_processes.py",
    "tests/cli/test_up.py",
    "tests/system/test_toolbox.py",
    "tests/bench/test_smoke.py",
    "tests/embedded/test_postgres.py",
    "tests/cli/test_supervisor.py",
    "tests/api/test_results.py",
    "tests/embedded/test_guard.py",
)


class Turns(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """A file in one piece, and those that share something in one piece together."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "the shared system" if file in TOGETHER else file


def in_turn(items: list[pytest.Item]) -> list[pytest.Item]:
    """*items* with the long files first, then by the number of tests of their files."""
    files = [item.nodeid.split("::", 1)[0] for item in items]
    counts = {file: files.count(file) for file in dict.fromkeys(files)}
    ranks = {file: rank for rank, file in enumerate((*TOGETHER, *LONG))}

    def rank(place: int) -> tuple[int, int, str]:
        file = files[place]
        return ranks.get(file, len(ranks)), -counts[file], file

    return [items[place] for place in sorted(range(len(items)), key=rank)]
