"""Sub-playbooks: what a step asks for, who waits for a child, and what the child's end gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from app.engine.events import ChildEnded, StepDone, StepFailed, StepKey
from app.engine.language.checks import duration, whole

#: Words that mean "the newest version".
_NEWEST = frozenset({"", "latest"})


class CallName(NamedTuple):
    """How a call names a playbook; ``version`` None means the newest."""

    path: str | None
    catalog_id: int | None
    version: int | None

    def __str__(self) -> str:
        if self.path is None:
            return f"catalog id {self.catalog_id}"
        return f"path {self.path!r}" + (f" version {self.version}" if self.version else "")


@dataclass(frozen=True, slots=True)
class Call:
    """The sub-playbook that a step asks for.

    One of ``path`` and ``catalog_id`` names it; ``version`` None means the newest. ``waits``: the
    step wants the result of the child's step ``returns`` ("" is the step that ended last), for
    ``timeout`` seconds at the most. ``fails``: the child's failure is the step's.
    """

    path: str | None = None
    catalog_id: int | None = None
    version: int | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
    waits: bool = False
    returns: str = ""
    timeout: float | None = None
    fails: bool = False

    @property
    def name(self) -> CallName:
        return CallName(self.path, self.catalog_id, self.version)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Caller:
    """The step that waits for a child: kept in the child's first event, told at its end."""

    step: str
    visit: int
    iteration: int
    attempt: int
    returns: str = ""
    resumes: bool = False
    fails: bool = False

    @property
    def key(self) -> StepKey:
        return StepKey(self.step, self.visit, self.iteration)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Target:
    """What a call leads to: a version of a playbook."""

    catalog_id: int
    path: str
    version: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a child. ``status`` is started, completed, failed, cancelled or timeout."""

    execution_id: int
    path: str
    status: str
    value: Any = None
    error: str | None = None

    def result(self) -> dict[str, Any]:
        """The result of the calling step: what the child returned, over its status fields."""
        fields: dict[str, Any] = {
            "status": self.status,
            "execution_id": str(self.execution_id),
            "path": self.path,
        }
        if self.status == "started":
            return {**fields, "async": True}
        fields["completed"] = self.status == "completed"
        fields["failed"] = self.status in {"failed", "cancelled"}
        if self.error:
            fields["error"] = self.error
        if isinstance(self.value, Mapping):
            return {**fields, **self.value}
        return fields if self.value is None else {**fields, "data": self.value}

    def failure(self) -> dict[str, Any] | None:
        """The error of a step that fails with its child; None where the child did not fail."""
        if self.status not in {"failed", "cancelled", "timeout"}:
            return None
        message = f"sub-playbook {self.path!r} ({self.execution_id}): {self.status}"
        return {
            "kind": "timeout" if self.status == "timeout" else "playbook",
            "message": f"{message}: {self.error}" if self.error else message,
            "retryable": self.status == "timeout",
        }


def ending(caller: Caller, outcome: Outcome) -> StepDone | StepFailed | ChildEnded:
    """The event that tells the calling step what became of its child."""
    error = outcome.failure() if caller.fails else None
    if caller.resumes:
        result = None if error else outcome.result()
        return ChildEnded(*caller.key, caller.attempt, outcome.execution_id, result, error)
    if error:
        return StepFailed(*caller.key, caller.attempt, error)
    return StepDone(*caller.key, caller.attempt, outcome.result())


def call_of(config: Mapping[str, Any]) -> Call:
    """The call that the rendered *config* of a ``playbook`` tool asks for. Raises ``ValueError``."""
    path, catalog_id = config.get("path"), config.get("catalog_id")
    if not (isinstance(path, str) and path.strip()) and catalog_id is None:
        raise ValueError(f"'path' must name a registered playbook, not {path!r}")
    payload: dict[str, Any] = {}
    for key in ("args", "input", "workload", "payload"):
        given = config.get(key)
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"'{key}' must be a mapping, not {type(given).__name__}")
        payload.update(given or {})
    step = config.get("return_step") or config.get("result_step")
    waits = bool(step) or _flag(config, "return_result") or _flag(config, "wait")
    failure = config.get("on_failure", "continue")
    if failure not in {"continue", "fail"}:
        raise ValueError(f"'on_failure' is continue or fail, not {failure!r}")
    return Call(
        path=str(path).strip().removeprefix("catalog://") if path else None,
        catalog_id=_number(catalog_id, "catalog_id"),
        version=_number(config.get("version"), "version"),
        payload=payload,
        waits=waits,
        returns=str(step or ""),
        timeout=_timeout(config),
        fails=failure == "fail",
    )


def _flag(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key, False)
    if isinstance(value, str):
        return value.strip().lower() in {"true", "yes", "1", "on"}
    return bool(value)


def _number(value: Any, key: str) -> int | None:
    if value is None or (isinstance(value, str) and value.strip() in _NEWEST):
        return None
    number = whole(value)
    if number is None:
        raise ValueError(f"'{key}' must be a positive whole number, not {value!r}")
    return number


def _timeout(config: Mapping[str, Any]) -> float | None:
    value = config.get("timeout", config.get("timeout_seconds"))
    if value is None:
        return None
    seconds = duration(value)
    if seconds is None or seconds <= 0:
        raise ValueError(f"'timeout' must be a time such as 30 or '5m', not {value!r}")
    return seconds
