"""``python -m tests.chaos [chaos|outage|soak] …``"""

from __future__ import annotations

import argparse
import logging
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from tests.chaos import outage, scenario, soak
from tests.chaos.report import Report, complaints
from tests.chaos.scenario import QUICK, Options
from tests.chaos.soak import Soaked


def main() -> int:
    """Run what the command line asks for; 1 where something does not hold."""
    arguments = _arguments()
    # Whoever ends us early ends what we started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.disable(logging.INFO)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    home = arguments.home or Path(tempfile.mkdtemp(prefix="chaos-"))
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)  # programs of other users look for the witness below it
    print(f"seed {arguments.seed}, logs in {home}/stage/logs", flush=True)
    result = SCENARIOS[arguments.scenario](arguments, home)
    result.write(arguments.json)
    print(result.table())
    if not result.ok:
        print(f"\n{complaints(result.violations, arguments.seed)}")
    if result.ok and not arguments.keep:
        shutil.rmtree(home)
    else:
        print(f"logs, witness and data: {home}")
    return 0 if result.ok else 1


def _chaos(arguments: argparse.Namespace, home: Path) -> Report:
    return scenario.run(_options(arguments, seconds=arguments.seconds), home)


def _outage(arguments: argparse.Namespace, home: Path) -> Report:
    seconds = arguments.minutes * 60 + 2 * outage.MARGIN
    return outage.run(_options(arguments, seconds=seconds, rate=1.0, slow=0.2), home,
                      minutes=arguments.minutes)  # fmt: skip


def _soak(arguments: argparse.Namespace, home: Path) -> Soaked:
    seconds = arguments.minutes * 60
    return soak.run(_options(arguments, seconds=seconds, rate=1.5, slow=0.2), home)


SCENARIOS: dict[str, Callable[[argparse.Namespace, Path], Report | Soaked]] = {
    "chaos": _chaos,
    "outage": _outage,
    "soak": _soak,
}


def _options(
    arguments: argparse.Namespace, *, seconds: float, rate: float = 0.0, slow: float = 1.5
) -> Options:
    """What the command line says; with a *rate* (per second) the number of executions follows from it."""
    return Options(
        seed=arguments.seed,
        executions=int(rate * seconds) if rate else arguments.executions,
        faults=arguments.faults,
        seconds=seconds,
        slow=slow,
        settings=QUICK if arguments.quick else {},
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("scenario", nargs="?", choices=sorted(SCENARIOS), default="chaos")
    parser.add_argument(
        "--home", type=Path, help="where everything is kept (default: a new folder)"
    )
    parser.add_argument("--keep", action="store_true", help="keep that folder in any case")
    parser.add_argument("--json", type=Path, default=Path("chaos.json"), help="the report as JSON")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--quick", action="store_true", help="short leases, for a smoke run")
    parser.add_argument("--executions", type=int, default=1000, help="of chaos")
    parser.add_argument("--faults", type=int, default=110, help="of chaos")
    parser.add_argument("--seconds", type=float, default=330.0, help="over which both are spread")
    parser.add_argument("--minutes", type=float, default=5.0, help="of outage and soak")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
