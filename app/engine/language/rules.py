"""Reads policy rules: what to do after a task, and whether a step may begin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.engine.language.checks import Checks, truth, wait, whole
from app.engine.language.source import Path
from app.engine.playbook import AdmitRule, Rule

ACTIONS = ("continue", "retry", "break", "jump", "fail")
BACKOFFS = ("none", "fixed", "linear", "exponential")
#: Other names of the same things, as existing playbooks write them.
_BACKOFF_WORDS = {"constant": "fixed"}
_DELAY = ("delay", "delay_seconds", "backoff_seconds")
_MAX_DELAY = ("max_delay", "max_delay_seconds", "cap")
_ATTEMPTS = ("attempts", "max_attempts")
_DEFAULT_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Branch:
    """One way a rule may go: where ``when`` holds (None: always), ``then``. Each with its place."""

    when: Any
    then: Any
    when_path: Path
    then_path: Path


def read_policy(checks: Checks, policy: Mapping[str, Any], path: Path) -> tuple[Rule, ...]:
    """The rules of a task's policy, asked in order; the first that holds decides."""
    if policy.get("mode") is not None:
        checks.word(
            policy["mode"], ("exclusive",), (*path, "mode"), "policy-mode", "the policy's mode"
        )
    rules = [_rule(checks, branch) for branch in _branches(checks, policy, path)]
    unmatched = policy.get("on_unmatched")
    if unmatched is not None:
        checks.word(
            unmatched,
            ("continue", "fail"),
            (*path, "on_unmatched"),
            "on-unmatched",
            "on_unmatched",
        )
        # Without any rule there is nothing to be unmatched by.
        if rules and all(rule.when is not None for rule in rules):
            rules.append(Rule(None, str(unmatched)))
    return tuple(rules)


def read_admission(checks: Checks, policy: Mapping[str, Any], path: Path) -> tuple[AdmitRule, ...]:
    """The rules asked before a step begins; the first that holds says whether it may."""
    admit, path = checks.mapping(policy, "admit", path), (*path, "admit")
    if admit.get("mode") is not None:
        checks.word(admit["mode"], ("exclusive",), (*path, "mode"), "policy-mode", "admit's mode")
    return tuple(_admission(checks, branch) for branch in _branches(checks, admit, path))


def _admission(checks: Checks, branch: Branch) -> AdmitRule:
    allow = truth(branch.then.get("allow"))
    if allow is None:
        said = repr(branch.then["allow"]) if "allow" in branch.then else "missing"
        checks.problem(
            (*branch.then_path, "allow"),
            "admit",
            f"'allow' must be true or false, it is {said}.",
            "Write 'then: {allow: true}' or 'then: {allow: false}'.",
        )
    checks.engine_condition(branch.when, branch.when_path)
    return AdmitRule(branch.when, allow=bool(allow))


# ---------------------------------------------------------------------- forms of a rule
def _branches(checks: Checks, policy: Mapping[str, Any], path: Path) -> list[Branch]:
    raw, path = policy.get("rules"), (*path, "rules")
    if raw is None:
        return []
    if not isinstance(raw, list):
        checks.problem(path, "rules", "policy rules must be a list.")
        return []
    return [
        branch
        for number, item in enumerate(raw)
        for branch in _branches_of(checks, item, (*path, number))
    ]


def _branches_of(checks: Checks, raw: Any, path: Path) -> list[Branch]:
    """The branches of one rule: ``when``/``then``, ``else``, or all three."""
    if not isinstance(raw, Mapping) or not ({"when", "else", "then"} & raw.keys()):
        checks.problem(path, "rule", "a rule needs 'when' and 'then', or 'else'.")
        return []
    found = []
    if "when" in raw or "else" not in raw:
        found.append(Branch(raw.get("when"), raw.get("then"), (*path, "when"), (*path, "then")))
    if "else" in raw:
        found.append(_else(raw, path))
    whole_ = []
    for branch in found:
        if isinstance(branch.then, Mapping):
            whole_.append(_with_inner_condition(checks, branch))
        else:
            hint = "Write 'then: {do: …}', or 'else: {do: …}'."
            checks.problem(path, "rule-then", "a rule needs 'then: {do: …}'.", hint)
    return whole_


def _else(raw: Mapping[str, Any], path: Path) -> Branch:
    """``else: {then: {…}}``, the short ``else: {…}``, or an ``else`` beside ``then``."""
    other = raw["else"]
    if "when" not in raw and isinstance(raw.get("then"), Mapping):
        return Branch(None, raw["then"], path, (*path, "then"))
    if isinstance(other, Mapping) and "then" in other:
        return Branch(None, other["then"], path, (*path, "else", "then"))
    return Branch(None, other, path, (*path, "else"))


def _with_inner_condition(checks: Checks, branch: Branch) -> Branch:
    """A ``when`` inside ``then`` is the rule's own; true says nothing."""
    inner = branch.then.get("when")
    if inner is None or truth(inner) is True:
        return branch
    place = (*branch.then_path, "when")
    if branch.when is not None:
        checks.problem(
            place,
            "rule",
            "a rule has one condition, this one has a second inside 'then'.",
            "Join them with 'and' in the rule's own 'when'.",
        )
        return branch
    return Branch(inner, branch.then, place, branch.then_path)


# ---------------------------------------------------------------------- one rule
def _rule(checks: Checks, branch: Branch) -> Rule:
    then, path = branch.then, branch.then_path
    action = str(then.get("do") or "")
    if action:
        checks.word(then["do"], ACTIONS, (*path, "do"), "rule-do", "'do'")
    checks.condition(branch.when, branch.when_path)
    backoff = str(then.get("backoff") or "none")
    backoff = _BACKOFF_WORDS.get(backoff, backoff)
    if backoff != "none":
        checks.word(backoff, BACKOFFS, (*path, "backoff"), "backoff", "the backoff")
    return Rule(
        when=branch.when,
        do=action,
        attempts=_attempts(checks, then, path),
        delay=checks.number(then, _said(then, _DELAY), path, wait, 0.0),
        backoff=backoff,
        max_delay=checks.number(then, _said(then, _MAX_DELAY), path, wait),
        jitter=checks.flag(then, "jitter", path),
        to=str(then["to"]) if then.get("to") is not None else None,
        set=checks.templates(checks.mapping(then, "set", path), (*path, "set")),
    )


def _said(then: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The one of *names* that is used; the first is today's."""
    return next((name for name in names if name in then), names[0])


def _attempts(checks: Checks, then: Mapping[str, Any], path: Path) -> int:
    """How often the task is tried in all."""
    key = _said(then, _ATTEMPTS)
    said = then.get(key)
    if said is None:
        return _DEFAULT_ATTEMPTS
    count = whole(said)
    if count is not None:
        return count
    if _boundless(said):
        checks.problem(
            (*path, key),
            "retry-bound",
            f"{key} {said!r} sets no bound to the tries.",
            "Say how often the task is tried in all, such as 'attempts: 5'.",
        )
    else:
        message = f"{key} {said!r} is not a positive whole number."
        checks.problem((*path, key), "number", message)
    return _DEFAULT_ATTEMPTS


def _boundless(value: Any) -> bool:
    """Zero, less than it, or infinity: what people write who want no end."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return str(value).strip().lower() in {"unlimited", "forever", "infinite"}
    return math.isinf(number) or number <= 0
