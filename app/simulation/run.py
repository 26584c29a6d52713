"""One seed, from the draw to the verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from app.simulation.faults import CALM, Plan, drawn
from app.simulation.judge import Outcome, judged, outcome
from app.simulation.mutants import NONE, Mutant
from app.simulation.playbooks import NAMES, TEMPLATES
from app.simulation.story import Story
from app.simulation.watch import Finding
from app.simulation.world import Job, World

#: How many different lucks of steps there are; few, so that outcomes without faults are found again.
VARIANTS = 6
#: One in so many seeds has no fault at all.
CALM_IN = 20
#: One in so many seeds is looked at from every side.
THOROUGH_IN = 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a seed showed."""

    seed: int
    findings: Sequence[Finding]
    story: Story
    events: int
    seconds: float


def simulate(seed: int, *, mutant: Mutant = NONE, told: bool = False) -> Verdict:
    """The run of *seed*; with *told* its story has lines."""
    random = Random(seed)  # noqa: S311 (guards nothing)
    story = Story(told)
    plan = CALM if random.randrange(CALM_IN) == 0 else drawn(random)
    attempts = random.choice((3, 50))
    world = World(random, plan, mutant=mutant, story=story, max_attempts=attempts)
    jobs = _jobs(world, random)
    for line in _preface(plan, jobs):
        world.tell(line)
    world.run(jobs)
    found = [*judged(world, thorough=seed % THOROUGH_IN == 0), *_different(world, jobs)]
    for finding in found:
        world.tell(str(finding), "FINDING")
    return Verdict(seed, found, story, world.watch.events, world.agenda.elapsed)


def _jobs(world: World, random: Random) -> list[Job]:
    return [
        Job(
            world.new_id(),
            name := random.choice(NAMES),
            random.choice(TEMPLATES[name].workloads),
            random.randrange(VARIANTS),
            random.uniform(0.0, 4.0),
        )
        for _ in range(random.choice((1, 1, 2, 3)))
    ]


def _preface(plan: Plan, jobs: Sequence[Job]) -> Iterator[str]:
    """What there is to know before the story begins."""
    may = ", ".join(f"{name} {rate:.3f}" for name, rate in sorted(plan.rates.items()))
    yield f"may go wrong until {plan.quiet:.0f} s, with these chances: {may or 'nothing'}"
    for job in jobs:
        about = f"{job.template!r} {json.dumps(job.workload)}, luck {job.variant}"
        yield f"execution {job.execution_id} will be {about}, at {job.at:.1f} s"


def _different(world: World, jobs: Sequence[Job]) -> list[Finding]:
    """Executions that ended otherwise than they do without faults, and have no excuse for it."""
    found = []
    for job in jobs:
        excused = {job.execution_id} & (world.watch.meddled | world.watch.exhausted)
        if excused or TEMPLATES[job.template].timed or world.watch.found:
            continue
        expected = reference(
            job.template, TEMPLATES[job.template].workloads.index(job.workload), job.variant
        )
        actual = outcome(world, job.execution_id)
        if actual != expected:
            said = f"{job.template}: {actual} instead of {expected}"
            found.append(Finding("outcome", said, job.execution_id))
    return found


@lru_cache(maxsize=4096)
def reference(template: str, workload: int, variant: int) -> Outcome:
    """How that execution ends where nothing goes wrong."""
    world = World(Random(0), CALM)  # noqa: S311 (guards nothing)
    job = Job(world.new_id(), template, TEMPLATES[template].workloads[workload], variant)
    world.run([job])
    return outcome(world, job.execution_id)
