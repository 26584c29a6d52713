"""Measures W1 to W10, each next to its floor, and the tools beside bare calls.

With ``--peers``, other systems take turns with us at W1 to W4. See docs/benchmarks.md.

python -m bench [--quick] [--only W2 …] [--profile] [--peers [PEER …]] [--rounds N] [--long] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from bench import concurrency, figures, scaling, tools
from bench.crowded import crowded
from bench.figures import Figure
from bench.idle import idle
from bench.measure import Measured, measure
from bench.peers.catalogue import named
from bench.peers.crew import crew
from bench.peers.report import table as peers_table
from bench.profile import profile
from bench.report import RESULTS, report, table
from bench.sides import Engine, Floor
from bench.sizes import SIZES, Sizes
from bench.stack import Sides, stack
from bench.startup import startup
from bench.workloads import Plan

#: What is no plan, by the word that chooses it.
OTHERS = ("CHAINS", "W8", "W9", "W10", "TOOLS")


class Run:
    """One run of the benchmarks: what it measures, and the JSON it adds to after each part."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.sizes = SIZES[options.size]
        self.options = options
        self.only = {word.upper() for word in options.only or ()}
        self.plans = list(self._plans())
        self.peers = [] if options.peers is None else named(options.peers)
        self.data: dict[str, Any] = report()
        options.out.mkdir(parents=True, exist_ok=True)
        self.path: Path = options.out / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"

    def everything(self) -> None:
        """Measure all that was asked for. What has been measured is kept where the rest fails."""
        grown: dict[str, Any] = {}
        if self.plans or self.wants("CHAINS") or self.wants("LONG"):
            self._on_the_stack(grown)
        for figure in self._figures():
            self._add_figures(figure())
        if self.wants("TOOLS"):
            # After the stack is gone: it would take its share of the machine.
            self._keep("tools", tools.overheads(self.sizes.calls), tools.table)
        if self.wants("LONG"):
            grown["in_execution"] = scaling.in_execution(*self.sizes.completions)
            self._keep("growth", grown, scaling.table)

    def wants(self, word: str) -> bool:
        if word == "LONG":
            return bool(self.options.long)
        return word in self.only if self.only else not self.options.long

    def _plans(self) -> Iterable[Plan]:
        known = {plan.workload.name.upper() for plan in self.sizes.plans}.union(OTHERS)
        if self.only - known:
            unknown = ", ".join(sorted(self.only - known))
            raise SystemExit(f"no workload {unknown}; there are {', '.join(sorted(known))}")
        for plan in self.sizes.plans:
            if self.wants(plan.workload.name.upper()):
                yield replace(plan, rounds=self.options.rounds or plan.rounds)

    def _on_the_stack(self, grown: dict[str, Any]) -> None:
        with (
            stack(self.options.home, guests=bool(self.peers)) as sides,
            closing(Engine(sides.engine)) as engine,
            closing(Floor(sides.floor)) as floor,
        ):
            results = self._in_turns(engine, floor, sides) if self.plans else []
            if self.options.profile:
                for measured in results:
                    ids = [n for done in measured.engine.rounds for n in done.executions]
                    print(f"\n{measured.plan.workload.name}: {profile(engine.rows, ids)}")
            if self.wants("CHAINS"):
                chains = concurrency.concurrency(self.sizes.chains, engine, floor, say)
                self._keep("concurrency", chains, concurrency.table)
            if self.wants("LONG"):
                # Last: afterwards the log is no longer an empty one.
                grown["in_log"] = scaling.in_log(self.sizes.events, engine, floor, say)

    def _in_turns(self, engine: Engine, floor: Floor, sides: Sides) -> list[Measured]:
        """The plans, with the peers; who of them is missing or failed is kept, too."""
        with crew(self.peers, sides.postgres, sides.folder, say) as found:
            peers = {peer.spec.name: peer for peer in found.peers}
            results = measure(self.plans, engine, floor, say, peers)
            account = found.account()
        self._keep("workloads", report(results)["workloads"], _workload_table)
        if self.peers:
            self.data |= account
            print(f"\n{peers_table(self.data, self.peers)}")
            self._write()
        return results

    def _figures(self) -> Iterable[Callable[[], list[Figure]]]:
        sizes: Sizes = self.sizes
        if self.wants("W8"):
            yield partial(crowded, *sizes.log, say)
        if self.wants("W9"):
            yield partial(startup, sizes.startups, say)
        if self.wants("W10"):
            yield partial(idle, *sizes.rest, say)

    def _add_figures(self, found: Sequence[Figure]) -> None:
        rows = [figure.data() for figure in found]
        print(f"\n{figures.table(rows)}")
        self.data.setdefault("figures", []).extend(rows)
        self._write()

    def _keep(self, key: str, found: Any, form: Callable[[Any], str]) -> None:
        print(f"\n{form(found)}")
        self.data[key] = found
        self._write()

    def _write(self) -> None:
        self.path.write_text(json.dumps(self.data, indent=1) + "\n")


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def _workload_table(rows: list[dict[str, Any]]) -> str:
    return table({"workloads": rows})


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write the JSON; its path is the last line."""
    # What fills the log runs an execution in this process, which need not tell of it.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    began = time.monotonic()
    run = Run(_options(arguments))
    run.everything()
    say(f"took {(time.monotonic() - began) / 60:.1f} minutes")
    print(f"\n{run.path}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick",
        action="store_const",
        dest="size",
        const="quick",
        default="full",
        help="fewer and smaller rounds",
    )
    size.add_argument(
        "--tiny", action="store_const", dest="size", const="tiny", help="only to see that it works"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="W2",
        help="this workload only; may be repeated. Also CHAINS (W4 against concurrency) and TOOLS",
    )
    parser.add_argument(
        "--peers", nargs="*", metavar="PEER", help="also these peers, or all, in the same rounds"
    )
    parser.add_argument("--rounds", type=int, help="rounds of each workload, W1 to W7")
    parser.add_argument("--profile", action="store_true", help="also say where the time goes")
    parser.add_argument(
        "--long",
        action="store_true",
        help="the cost of a step against the length of its execution and the size of the log:"
        " half an hour; the rest only where it is named with --only",
    )
    parser.add_argument("--home", type=Path, help="keep data and logs of W1 to W7 in this folder")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
