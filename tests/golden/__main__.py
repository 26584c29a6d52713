"""``python -m tests.golden``: record every scenario that this version has not recorded yet.

What is there already is never written again: it is what executions of that time look like.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import orjson
import structlog

from tests.golden import attempts, families, flows, interventions, loops  # noqa: F401 (they register themselves)
from tests.golden.files import FOLDER, folder
from tests.golden.recording import outcome, record
from tests.golden.scenarios import SCENARIOS, Scenario


def main() -> None:
    """Write the missing files of this version, and name them."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for file in write(SCENARIOS, folder()):
        sys.stdout.write(f"{file.relative_to(FOLDER)}\n")


def write(scenarios: Mapping[str, Scenario], target: Path) -> list[Path]:
    """Record those of *scenarios* that are not in *target* yet; the files that were written."""
    target.mkdir(exist_ok=True)
    missing = [name for name in scenarios if not (target / f"{name}.jsonl").exists()]
    return [_write(scenarios[name], target / f"{name}.jsonl") for name in missing]


def _write(scenario: Scenario, file: Path) -> Path:
    with tempfile.TemporaryDirectory() as home:
        recording = record(scenario, Path(home))
        state = outcome(recording, Path(home))
    # First the state: a log without one would be taken for finished.
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    file.with_suffix(".json").write_bytes(orjson.dumps(state, option=options))
    with file.open("xb") as lines:
        lines.writelines(line + b"\n" for line in recording.lines())
    return file


if __name__ == "__main__":
    main()
