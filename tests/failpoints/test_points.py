"""Failpoints themselves: what arms them, what they do, and that the code has those it lists."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import failpoints
from app.errors import StartupError, UnavailableError
from app.failpoints import ACTIONS, POINTS, parse
from app.settings import Settings

ROOT = Path(__file__).parents[2]
CALL = re.compile(r'failpoints\.(before|after)\("([^"]+)"\)|point = "([a-z]+\.[a-z]+)"')


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def test_nothing_is_armed_by_default() -> None:
    failpoints.arm(Settings().failpoint)
    for name in POINTS:
        failpoints.before(name)
        failpoints.after(name)


@pytest.mark.parametrize("action", ["error", "done-then-error"])
def test_an_error_comes_at_the_nth_hit_and_never_again(action: str) -> None:
    failpoints.arm(f"advance.commit:{action}:2")
    raised = []
    for turn in range(4):
        try:
            failpoints.before("advance.commit")
            raised.append((turn, "begun"))
            failpoints.after("advance.commit")
            raised.append((turn, "done"))
        except UnavailableError:
            raised.append((turn, "failed"))
    second = [(1, "failed")] if action == "error" else [(1, "begun"), (1, "failed")]
    others = [[(turn, "begun"), (turn, "done")] for turn in (0, 2, 3)]
    assert raised == [*others[0], *second, *others[1], *others[2]]


def test_a_delay_lasts_as_long_as_it_says() -> None:
    failpoints.arm("worker.run:delay=50")
    begun = time.monotonic()
    failpoints.before("worker.run")
    assert time.monotonic() - begun >= 0.05


@pytest.mark.parametrize(("action", "printed"), [("crash", ""), ("done-then-crash", "done\n")])
def test_a_crash_leaves_at_once(action: str, printed: str) -> None:
    program = f"""
import atexit
from app import failpoints

atexit.register(print, "goodbye")
failpoints.arm("worker.run:{action}")
failpoints.before("worker.run")
print("done", flush=True)
failpoints.after("worker.run")
print("survived", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    said = [line for line in done.stdout.splitlines(keepends=True) if "failpoint." not in line]
    assert (done.returncode, "".join(said)) == (failpoints.CRASHED, printed)
    assert "failpoint.hit" in done.stdout + done.stderr


def test_several_points_and_two_actions_of_one_can_be_armed() -> None:
    armed = parse("start.wake:error:3, worker.run:delay=7,worker.run:done-then-crash")
    assert [(p.name, p.action, p.nth, p.milliseconds) for p in armed] == [
        ("start.wake", "error", 3, failpoints.DELAY),
        ("worker.run", "delay", 1, 7),
        ("worker.run", "done-then-crash", 1, failpoints.DELAY),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("worker.rum:crash", "there is no point 'worker.rum', did you mean worker.run?"),
        ("worker.rum:crash", "there are start.commit, start.wake, "),
        ("worker.run:crahs", "there is no action 'crahs', did you mean crash?"),
        ("worker.run", "there is no action ''"),
        ("worker.run:crash:0", "hit is a whole number from 1, not '0'"),
        ("worker.run:crash:once", "not 'once'"),
        ("worker.run:delay=:1", "milliseconds is a whole number from 1, not ''"),
        ("worker.run:error=5", "only delay takes a number"),
    ],
)
def test_what_is_not_known_keeps_the_process_from_starting(text: str, said: str) -> None:
    with pytest.raises(StartupError, match=re.escape(said)):
        failpoints.arm(text)


def test_every_point_listed_is_in_the_code_before_and_after_its_operation() -> None:
    found: dict[str, set[str]] = {name: set() for name in POINTS}
    for file in sorted((ROOT / "app").rglob("*.py")):
        for side, name, chosen in CALL.findall(file.read_text(encoding="utf-8")):
            # A place with two operations chooses the name first: steps.py.
            found[name or chosen] |= {side} if side else {"before", "after"}
    assert found == {name: {"before", "after"} for name in POINTS}


def test_every_action_says_what_it_does() -> None:
    assert set(ACTIONS) == {"crash", "error", "delay", "done-then-error", "done-then-crash"}
