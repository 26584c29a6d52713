"""Measures the peers alone, W1 to W4; ``python -m bench --peers`` measures them beside us.

See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from app.embedded.postgres import EmbeddedPostgres
from bench.measure import alternate
from bench.peers.catalogue import ALL, named
from bench.peers.crew import crew
from bench.peers.report import measured, table
from bench.report import setting
from bench.stack import make_room
from bench.workloads import FULL, QUICK, TINY, Plan

RESULTS = Path(__file__).parents[1] / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON; its path is the last line."""
    options = _options(arguments)
    specs = named(options.only)
    plans = _plans(options)

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    with ExitStack() as exits:
        folder = options.home or Path(
            exits.enter_context(tempfile.TemporaryDirectory(prefix="peers-"))
        )
        postgres = exits.enter_context(EmbeddedPostgres(folder / "postgres"))
        make_room(postgres)
        found = exits.enter_context(crew(specs, postgres, folder, say))
        peers = {peer.spec.name: peer for peer in found.peers}
        items = [measured(plan.workload, alternate(plan, peers, say)) for plan in plans]
        data = {**setting(), "workloads": items, **found.account()}
    print(table(data, specs))
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"peers-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(data, indent=1) + "\n")
    print(f"\n{path}")
    return 0 if peers else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="fewer and smaller rounds")
    size.add_argument("--tiny", action="store_true", help="only to see that it works")
    parser.add_argument("--only", nargs="+", metavar="PEER", help="these peers only")
    parser.add_argument("--workloads", nargs="+", metavar="W2", help="these workloads only")
    parser.add_argument("--rounds", type=int, help="rounds of each workload")
    parser.add_argument("--home", type=Path, help="keep data and logs of all in this folder")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON results")
    return parser.parse_args(arguments)


def _plans(options: argparse.Namespace) -> list[Plan]:
    plans = QUICK if options.quick else TINY if options.tiny else FULL
    names = {name.upper() for name in options.workloads or ALL}
    if unknown := sorted(names - set(ALL)):
        raise SystemExit(f"no workload {', '.join(unknown)}; there are {', '.join(ALL)}")
    return [
        replace(plan, rounds=options.rounds or plan.rounds)
        for plan in plans
        if plan.workload.name in names
    ]


if __name__ == "__main__":
    sys.exit(main())
