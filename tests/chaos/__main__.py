"""``python -m tests.chaos [outage|soak] …``"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

import structlog

from tests.chaos import scenario
from tests.chaos.scenario import QUICK, Options


def main() -> int:
    """Run what the command line asks for; 1 where it found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--home", type=Path, help="where everything is kept (default: a new folder)")
    parser.add_argument("--json", type=Path, default=Path("chaos.json"), help="the report as JSON")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--executions", type=int, default=1000)
    parser.add_argument("--faults", type=int, default=110)
    parser.add_argument("--seconds", type=float, default=330.0, help="over which both are spread")
    parser.add_argument("--quick", action="store_true", help="short leases, for a smoke run")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    options = Options(
        seed=arguments.seed,
        executions=arguments.executions,
        faults=arguments.faults,
        seconds=arguments.seconds,
        settings=QUICK if arguments.quick else {},
    )
    home = arguments.home or Path(tempfile.mkdtemp(prefix="chaos-"))
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)  # unprivileged programs look for the witness below it
    print(f"seed {options.seed}, logs in {home}/stage/logs", flush=True)
    report = scenario.run(options, home)
    report.write(arguments.json)
    print(report.table())
    if report.ok:
        shutil.rmtree(home)
        return 0
    print(f"\n{report.complaints()}\nlogs and witness: {home}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
