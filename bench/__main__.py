"""Measures W1 to W4 on the embedded stack, each next to its floor, and the tools beside bare calls.

With ``--peers``, other systems take turns with us. See docs/benchmarks.md.

python -m bench [--quick] [--only W2 …] [--profile] [--peers [PEER …]] [--rounds N] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import tools
from bench.measure import Measured, measure
from bench.peers.catalogue import Spec, named
from bench.peers.crew import crew
from bench.peers.report import table as peers_table
from bench.profile import profile
from bench.report import report, table
from bench.sides import Engine, Floor
from bench.stack import Sides, stack
from bench.workloads import FULL, QUICK, TINY, Plan

RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON; its path is the last line."""
    options = _options(arguments)
    plans = _plans(options)
    chosen = [] if options.peers is None else named(options.peers)
    with (
        stack(options.home, guests=bool(chosen)) as sides,
        closing(Engine(sides.engine)) as engine,
        closing(Floor(sides.floor)) as floor,
    ):
        results, account = _measure(plans, engine, floor, sides, chosen)
        data = report(results)
        print(table(data))
        if chosen:
            data |= account
            print(f"\n{peers_table(data, chosen)}")
        calls = 0 if options.only else 20 if options.tiny else 300
        if options.profile:
            for measured in results:
                ids = [number for done in measured.engine for number in done.executions]
                print(f"\n{measured.plan.workload.name}: {profile(engine.rows, ids)}")
    if calls:
        # After the stack is gone: it would take its share of the machine.
        data["tools"] = tools.overheads(calls)
        print(f"\n{tools.table(data['tools'])}")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(data, indent=1) + "\n")
    print(f"\n{path}")
    return 0


def _measure(
    plans: list[Plan], engine: Engine, floor: Floor, sides: Sides, chosen: list[Spec]
) -> tuple[list[Measured], dict[str, Any]]:
    """The rounds of all, and which peers are missing or failed."""

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    with ExitStack() as exits:
        found = exits.enter_context(crew(chosen, sides.postgres, sides.folder, say))
        peers = {peer.spec.name: peer for peer in found.peers}
        results = measure(plans, engine, floor, say, peers)
        return results, found.account()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="fewer and smaller rounds")
    size.add_argument("--tiny", action="store_true", help="only to see that it works")
    parser.add_argument(
        "--only", action="append", metavar="W2", help="this workload only; may be repeated"
    )
    parser.add_argument(
        "--peers", nargs="*", metavar="PEER", help="also these peers, or all, in the same rounds"
    )
    parser.add_argument("--rounds", type=int, help="rounds of each workload")
    parser.add_argument("--profile", action="store_true", help="also say where the time goes")
    parser.add_argument("--home", type=Path, help="keep data and logs of all in this folder")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON results")
    return parser.parse_args(arguments)


def _plans(options: argparse.Namespace) -> list[Plan]:
    plans = QUICK if options.quick else TINY if options.tiny else FULL
    names = {name.upper() for name in options.only or ()}
    known = {plan.workload.name for plan in plans}
    if names - known:
        unknown = ", ".join(sorted(names - known))
        raise SystemExit(f"no workload {unknown}; there are {', '.join(sorted(known))}")
    chosen = [plan for plan in plans if not names or plan.workload.name in names]
    return [replace(plan, rounds=options.rounds or plan.rounds) for plan in chosen]


if __name__ == "__main__":
    sys.exit(main())
