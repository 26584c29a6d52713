from __future__ import annotations

from bench.transfer import measure


def test_transfers_are_measured() -> None:
    runs = list(measure(20_000, ["append", "replace"]))
    assert [(run.name.rpartition(" ")[2], run.rows) for run in runs] == [
        ("append", 20_000),
        ("replace", 20_000),
    ]
    assert all(run.seconds > 0 and run.after >= run.before > 0 for run in runs)
