"""``callboard-sim``: the story of one seed, or a verdict on many."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import click
import structlog

from app.simulation.mutants import MUTANTS, NONE
from app.simulation.run import Verdict, simulate

#: Seeds that a process takes at once.
CHUNK = 50
#: Findings that are shown of one seed, and seeds that are shown.
SHOWN, SEEDS_SHOWN = 3, 20


@dataclass(slots=True)
class Tally:
    """What many seeds showed together."""

    seeds: int = 0
    events: int = 0
    virtual: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    #: The findings of each seed that has some, as text.
    found: dict[int, list[str]] = field(default_factory=dict)

    def add(self, verdict: Verdict) -> None:
        self.seeds += 1
        self.events += verdict.events
        self.virtual += verdict.seconds
        self.faults += verdict.story.faults
        if verdict.findings:
            self.found[verdict.seed] = [str(finding) for finding in verdict.findings]

    def merge(self, other: Tally) -> None:
        self.seeds += other.seeds
        self.events += other.events
        self.virtual += other.virtual
        self.faults += other.faults
        self.found.update(other.found)


def quieten() -> None:
    """Have the services log nothing: in a simulation every warning is expected."""
    structlog.configure(
        processors=[_dropped], wrapper_class=structlog.make_filtering_bound_logger("critical")
    )


def _dropped(*_: object) -> dict[str, object]:
    raise structlog.DropEvent


def tallied(seeds: Iterable[int], mutant: str = NONE.name) -> Tally:
    """The tally of *seeds*, in a process whose logging was quietened."""
    tally = Tally()
    for seed in seeds:
        tally.add(simulate(seed, mutant=MUTANTS.get(mutant, NONE)))
    return tally


def _tallied_quietly(seeds: range, mutant: str) -> Tally:
    quieten()
    return tallied(seeds, mutant)


def parse_range(text: str) -> range:
    """``A..B``, both included. Raises ``ValueError``."""
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


class SeedRange(click.ParamType[range]):
    """``A..B`` on a command line."""

    name = "A..B"

    def convert(self, value: object, param: object, ctx: object) -> range:  # noqa: ARG002 (click's)
        try:
            return parse_range(str(value))
        except ValueError:
            raise click.BadParameter(f"{value!r} is no range such as 0..999") from None


@click.command()
@click.option("--seed", type=int, help="Tell the story of this run.")
@click.option("--seeds", type=SeedRange(), help="Run all of these, and print what they found.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--mutant", type=click.Choice(list(MUTANTS)), help="Leave out one of the guards.")
def cli(seed: int | None, seeds: range | None, jobs: int, mutant: str | None) -> None:
    """Run the real engine and services in a world that fails on purpose: one seed, one story."""
    quieten()
    name = mutant or NONE.name
    if (seed is None) == (seeds is None):
        raise click.UsageError("give either --seed N or --seeds A..B")
    good = _tell(seed, name) if seed is not None else _try(seeds or range(0), jobs, name)
    raise SystemExit(0 if good else 1)


def _tell(seed: int, mutant: str) -> bool:
    verdict = simulate(seed, mutant=MUTANTS.get(mutant, NONE), told=True)
    for line in verdict.story.lines:
        click.echo(line)
    click.echo(f"seed {seed}: {verdict.events} events, {len(verdict.findings)} findings")
    return not verdict.findings


def _try(seeds: range, jobs: int, mutant: str) -> bool:
    began = time.monotonic()
    total = Tally()
    for tally in _parts(seeds, jobs, mutant):
        total.merge(tally)
    for line in _report(total, time.monotonic() - began):
        click.echo(line)
    return not total.found


def _parts(seeds: range, jobs: int, mutant: str) -> Iterator[Tally]:
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    if jobs == 1:
        yield from (tallied(chunk, mutant) for chunk in chunks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for future in [pool.submit(_tallied_quietly, chunk, mutant) for chunk in chunks]:
            yield future.result()


def _report(total: Tally, seconds: float) -> Iterator[str]:
    for seed, found in sorted(total.found.items())[:SEEDS_SHOWN]:
        yield f"seed {seed}: " + "; ".join(found[:SHOWN])
    rate = total.seeds / max(seconds, 0.001)
    yield f"{total.seeds} seeds in {seconds:.1f} s ({rate:.0f}/s), {total.events} events"
    yield f"{total.virtual / 3600:.1f} virtual hours, {total.faults.total()} faults and disturbances:"
    for fault, times in total.faults.most_common():
        yield f"  {times:>8}  {fault}"
    yield f"{len(total.found)} seeds with findings"


def main() -> None:
    """Run the command line of this process and exit."""
    cli(windows_expand_args=False)
