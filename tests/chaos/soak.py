"""Constant load with light faults for a while, and a look at what has grown by the end."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.chaos import growth
from tests.chaos.checker import Violation
from tests.chaos.faults import Saboteur
from tests.chaos.gauges import WARM_FOR, Gauges
from tests.chaos.growth import Point, Slope
from tests.chaos.load import Load
from tests.chaos.plan import Cast, Fault
from tests.chaos.report import write_json
from tests.chaos.scenario import Options, register, starts, wait_ended
from tests.chaos.stage import Stage
from tests.chaos.witness import Witness

#: One of each, so that each series is one process' from begin to end.
CAST = Cast(web=1, orchestrator=1, worker=2, scheduler=1)
#: Faults that leave every process alive, each with its target.
LIGHT = (
    ("terminate-backends", "postgres"),
    ("reset", "*>nats"),
    ("reset", "*>postgres"),
    ("drop-reply", "worker-*>api"),
    ("latency", "*>postgres"),
    ("kill-nats", "nats"),
)
#: Seconds between two faults, and how long one lasts.
EVERY, LASTS = 30.0, 1.0
#: How long the warm-up is beside what is measured, and how much heavier its load: caches fill, and
#: whatever can go wrong has gone wrong once, before the first look. At full load the memory of an
#: orchestrator stops to grow after some 5,000 executions.
WARM_UP, HEAVIER = 0.25, 10.0
#: What is done by the clock is done ten times as often, so that it has settled by then, too.
OFTEN = {"CALLBOARD_SWEEP": "0.5", "CALLBOARD_HEARTBEAT": "0.5"}
#: Below this many seconds memory is shown and not judged: allocators keep growing for minutes, and a
#: slope per hour multiplies what is left of that.
JUDGED = 600.0
#: Megabytes per hour that the memory of a process may grow.
MEMORY = 1.0
#: How much higher a count must be at the end to be called a leak, where it certainly grows.
COUNTED = 2.0
#: Series that follow the load: what counts is what is left of them at rest.
LOADED = frozenset({"running executions", "messages", "children"})


@dataclass(frozen=True, slots=True)
class Growth:
    """One series after the warm-up."""

    what: str
    of: str
    last: float
    slope: Slope
    rise: float
    #: How far the last value, read at rest, is above the lowest.
    left: float


@dataclass(frozen=True, slots=True)
class Soaked:
    """What a soak found; ``judged`` is whether it was long enough to judge memory."""

    seconds: float
    executions: int
    faults: int
    judged: bool
    growths: Sequence[Growth]
    violations: Sequence[Violation]
    #: What was measured, (seconds, value) by "what of whom": for whoever wonders about a slope.
    series: Mapping[str, Sequence[Point]]

    @property
    def ok(self) -> bool:
        return not self.violations

    def write(self, path: Path) -> None:
        """As JSON."""
        write_json(path, {**asdict(self), "ok": self.ok})

    def table(self) -> str:
        """For people: every series after the warm-up, with its slope."""
        head = f"{'':22} {'':24} {'at the end':>11} {'per hour':>10}   95 %"
        lines = [
            f"{g.what:22} {g.of:24} {g.last:11.1f} {g.slope.estimate:10.1f}   "
            f"{g.slope.least:.1f} to {g.slope.most:.1f}"
            for g in self.growths
        ]
        done = f"{self.executions} executions, {self.faults} faults in {self.seconds:.0f} s"
        short = "" if self.judged else "; too short to judge memory"
        return "\n".join([head, *lines, done + short])


def run(options: Options, home: Path) -> Soaked:
    """Soak below *home*, which must be empty and reachable by other users."""
    temporary = home / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    witness = Witness(home / "witness")
    settings = {**OFTEN, **options.settings, "TMPDIR": str(temporary)}
    settings["CALLBOARD_PYTHON_WARM_FOR"] = str(WARM_FOR)
    interval = max(0.5, min(5.0, options.seconds / 100))
    with Stage(home / "stage", settings=settings, cast=CAST) as stage:
        register(stage)
        warm, _, trouble = _work(stage, witness, _warming(options), "warm-up", 0)
        with Gauges(stage, temporary, interval=interval) as gauges:
            done = len(warm.accepted)
            load, faults, violations = _work(stage, witness, options, "soak", done)
        violations += trouble
        violations += [Violation("exit", 0, what) for what in stage.exits]
    judged = options.seconds >= JUDGED
    growths = growths_of(gauges.series, after=0.0)
    violations += leaks(growths, judged=judged)
    series = {f"{what} of {of}": points for (what, of), points in gauges.series.items()}
    return Soaked(options.seconds, len(load.accepted), faults, judged, growths, violations, series)


def _warming(options: Options) -> Options:
    """The same for a shorter time, with more to do in it."""
    executions = int(options.executions * WARM_UP * HEAVIER)
    return replace(options, seconds=WARM_UP * options.seconds, executions=executions)


def _work(
    stage: Stage, witness: Witness, options: Options, name: str, before: int
) -> tuple[Load, int, list[Violation]]:
    """Load and faults until the time is over; what went wrong with them.

    *before* executions, and their children, are in the log already.
    """
    load, saboteur = Load(stage.api("client")), Saboteur(stage, light_faults(options))
    wanted = starts(options, witness, options.executions, name)
    rate = options.executions / options.seconds
    starting = threading.Thread(target=load.run, args=(wanted,), kwargs={"per_second": rate})
    begin = time.monotonic()
    starting.start()
    try:
        saboteur.run()
        starting.join(max(0.0, begin + options.seconds + options.settle - time.monotonic()))
    finally:
        load.over.set()
        starting.join()
    violations = [Violation("refused", 0, said) for said in load.refused]
    least = before + len(load.accepted)
    if not wait_ended(stage.servers.postgres.url, least, seconds=options.settle):
        violations.append(Violation("not-ended", 0, f"not all ended within {options.settle} s"))
    return load, len(saboteur.incidents), violations


def light_faults(options: Options) -> list[Fault]:
    """Light faults at even distances, all kinds in turn, in an order that the seed decides."""
    kinds = list(LIGHT)
    random.Random(options.seed).shuffle(kinds)
    count = max(1, int(options.seconds // EVERY))
    distance = options.seconds / count
    return [
        Fault((number + 0.5) * distance, *kinds[number % len(kinds)], LASTS)
        for number in range(count)
    ]


# ---------------------------------------------------------------------- what has grown
def growths_of(series: Mapping[tuple[str, str], Sequence[Point]], *, after: float) -> list[Growth]:
    """Every series from *after* (seconds) on."""
    found = []
    for (what, of), points in sorted(series.items()):
        late = [point for point in points if point[0] >= after]
        if late:
            left = late[-1][1] - min(value for _, value in late)
            found.append(Growth(what, of, late[-1][1], growth.slope(late), growth.rise(late), left))
    return found


def leaks(growths: Sequence[Growth], *, judged: bool) -> list[Violation]:
    """What grows: memory by more than ``MEMORY`` per hour where that is *judged*, counts at all."""
    found = []
    for each in growths:
        if each.what == "RSS MB":
            leaks = judged and each.slope.rises_above(MEMORY)
        elif each.what == "PSS MB":
            leaks = False  # told beside RSS
        elif each.what in LOADED:
            leaks = each.left >= COUNTED
        else:
            leaks = each.slope.rises_above(0.0) and each.rise >= COUNTED
        if leaks:
            message = f"{each.what} of {each.of} grows by {each.slope.estimate:.1f} per hour"
            found.append(Violation("grows", 0, message))
    return found
