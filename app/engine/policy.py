"""Policy rules: what to do after a task, decided from its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.engine.playbook import Rule
from app.engine.templates.template import holds

#: What a server asks for is honoured up to this, in seconds.
MOST_PATIENCE = 3600.0
PREVIOUS = frozenset({"previous", "prev", "_previous", "@previous"})


@dataclass(frozen=True, slots=True)
class Action:
    """What follows a task: ``do`` is continue, retry, jump, break or fail; ``rule`` said so."""

    do: str
    rule: Rule | None = None


def choose(rules: Sequence[Rule], scope: Mapping[str, Any], *, failed: bool) -> Action:
    """The first rule that holds decides; without one, success continues and failure fails.

    A rule without ``do`` only sets values. Raises ``TemplateError`` where a condition cannot be
    evaluated.
    """
    default = "fail" if failed else "continue"
    for rule in rules:
        if holds(rule.when, scope):
            return Action(rule.do or default, rule)
    return Action(default)


def delay(rule: Rule, tries: int, random: float = 1.0, *, asked: Any = None) -> float:
    """Seconds to wait after *tries* tries; *random* (0 to 1) is the share kept where jitter is on.

    *asked* is what the other side wants (``error.retry_after``): the wait is at least that long, up
    to an hour, whatever the rule says. Anything but a number asks for nothing.
    """
    seconds = _own_delay(rule, tries, random)
    if isinstance(asked, int | float) and not isinstance(asked, bool) and asked > seconds:
        return max(seconds, min(float(asked), MOST_PATIENCE))
    return seconds


def _own_delay(rule: Rule, tries: int, random: float) -> float:
    if rule.backoff == "none" and not rule.delay:
        return 0.0
    factor = {"linear": float(tries), "exponential": float(2 ** min(tries - 1, 62))}.get(
        rule.backoff, 1.0
    )
    seconds = rule.delay * factor
    if rule.max_delay is not None:
        seconds = min(seconds, rule.max_delay)
    return seconds * random if rule.jitter else seconds


def jump_target(names: Sequence[str], current: int, to: str | None) -> int | None:
    """The index of the task to jump to; None where there is none."""
    if to in PREVIOUS:
        return current - 1 if current > 0 else None
    return names.index(to) if to in names else None
