"""One seed is one story, on every machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.simulation.cli import cli, parse_range
from app.simulation.faults import CALM
from app.simulation.playbooks import NAMES, TEMPLATES
from app.simulation.run import reference, simulate

SEEDS = (3, 17, 42)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_tells_the_same_story_twice(seed: int) -> None:
    lines = simulate(seed, told=True).story.lines
    assert lines == simulate(seed, told=True).story.lines
    assert any("execution.started" in line for line in lines)


def test_the_story_does_not_depend_on_how_strings_are_hashed() -> None:
    told = {_told(seed=SEEDS[0], hashing=hashing) for hashing in ("0", "1", "4711")}
    assert len(told) == 1


def _told(*, seed: int, hashing: str) -> str:
    command = [sys.executable, "-c", "from app.simulation.cli import main; main()"]
    done = subprocess.run(
        [*command, "--seed", str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hashing},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_telling_a_story_does_not_change_it() -> None:
    told, silent = simulate(SEEDS[0], told=True), simulate(SEEDS[0])
    assert (told.events, told.seconds, told.story.faults) == (
        silent.events,
        silent.seconds,
        silent.story.faults,
    )


@pytest.mark.parametrize("template", NAMES)
def test_without_faults_every_template_ends(template: str) -> None:
    ended = {
        reference(template, workload, variant).status
        for workload in range(len(TEMPLATES[template].workloads))
        for variant in range(2)
    }
    assert ended <= {"completed", "failed"}
    assert CALM.quiet == 0.0


def test_the_command_tells_what_a_mutant_breaks_and_says_so_by_its_exit_code() -> None:
    many = CliRunner().invoke(cli, ["--seeds", "0..99", "--mutant", "sweeper"])
    assert many.exit_code == 1
    seed = many.output.partition("seed ")[2].partition(":")[0]
    one = CliRunner().invoke(cli, ["--seed", seed, "--mutant", "sweeper"])
    assert one.exit_code == 1
    assert "FINDING" in one.output


def test_the_command_is_content_with_the_world_as_it_is() -> None:
    ran = CliRunner().invoke(cli, ["--seeds", "0..19"])
    assert ran.exit_code == 0, ran.output
    assert "20 seeds" in ran.output
    assert "0 seeds with findings" in ran.output


def test_a_range_has_both_its_ends() -> None:
    assert list(parse_range("3..5")) == [3, 4, 5]
    assert list(parse_range("7")) == [7]
