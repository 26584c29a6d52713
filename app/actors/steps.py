"""The life of one attempt on a worker: claim, run, report, and only then is the message acked."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
import structlog

from app import failpoints
from app.actors.artifacts import KeptArtifacts
from app.actors.batch import Batcher
from app.actors.fetching import Asker, Fetched, Fetcher, referring
from app.actors.printing import Printer
from app.actors.reporting import explained, failed_instead, masked, printable, report_of
from app.actors.secrets import SECRETS
from app.actors.sequence import Outcome, TaskSequence
from app.actors.shipping import Shipper
from app.actors.vault import Vault, Vaults
from app.engine.language.checks import whole
from app.engine.language.parse import parse_step
from app.engine.language.tasks import Kinds
from app.engine.masking import Masker
from app.engine.playbook import Step
from app.engine.ports import Pointer
from app.engine.templates.scope import Scope
from app.engine.templates.template import render
from app.errors import (
    CallboardError,
    ForbiddenError,
    ToolError,
    UnauthorizedError,
    UnavailableError,
)
from app.services.large import size_of
from app.services.work import Worked
from app.settings import Settings
from app.tools import Context
from app.wire import (
    Claim,
    ClaimAnswer,
    Exchange,
    PointerWire,
    Report,
    ReportAnswer,
    Variables,
)

log = structlog.get_logger(__name__)

#: An answer, and with a granted claim the step it is about.
_Answer = tuple[ClaimAnswer, dict[str, Any] | None] | tuple[ReportAnswer, None]

#: Characters of what a step printed that stay with its event.
TAIL = 2_000
#: Bytes of a result above which its report is sent alone.
ALONE = 262_144
#: Refusals (not outages) after which a report becomes a plain failure.
REFUSALS = 5
#: Errors that say nothing against the item itself.
AWAY = (UnavailableError, UnauthorizedError, ForbiddenError)
_LONGEST_PAUSE = 10.0


@dataclass(slots=True)
class Attempt:
    """One attempt in progress. ``stop`` ends its tool; ``reason`` says why: fenced or shutdown."""

    pointer: Pointer
    stop: threading.Event = field(default_factory=threading.Event)
    reason: str | None = None
    #: Takes what it prints, from the moment that there is something to run.
    printer: Printer | None = None
    masker: Masker = field(default_factory=Masker)

    def end(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.stop.set()

    @property
    def tail(self) -> str | None:
        """The end of what it printed."""
        return self.printer.tail if self.printer else None


class Runner:
    """Runs the attempts that messages point to. One per worker process, shared by its threads.

    *secrets* are those of the worker's own environment, by lower-case name; *on_secret* hears of
    every secret value that an attempt is told.
    """

    def __init__(
        self,
        work: Worked,
        settings: Settings,
        kinds: Kinds,
        secrets: Mapping[str, str],
        *,
        name: str,
        on_secret: Callable[..., None] | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._vaults = Vaults(work, name, secrets, settings=settings)
        if on_secret is not None:
            self._vaults.on_secret = on_secret
        self._exchange = Batcher[Claim | Report, _Answer](self._send)
        self._work = work
        self._fetcher = Fetcher(work)
        self._shipper = Shipper(work.logs, name)
        self._running: dict[Pointer, Attempt] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._claimed = self._reported = 0
        self._claimed_at = time.monotonic()
        self._steps = _StepCache(kinds)

    # ------------------------------------------------------------------ one message
    def run(self, pointer: Pointer) -> None:
        """Do what the pointer says; returns when the message may be acked.

        Raises ``UnavailableError`` while shutting down, so that the message goes back.
        """
        if self._stopping.is_set():
            raise UnavailableError("this worker is shutting down")
        attempt = Attempt(pointer)
        with self._lock:
            if pointer in self._running:
                return  # the same pointer, delivered again while we work on it
            self._running[pointer] = attempt
        try:
            with structlog.contextvars.bound_contextvars(
                execution_id=pointer.execution_id, step=str(pointer.key)
            ):
                self._claim_and_run(attempt)
        finally:
            with self._lock:
                self._running.pop(pointer, None)

    def _claim_and_run(self, attempt: Attempt) -> None:
        # The same worker claims an attempt under the same key: a claim whose answer was lost is
        # answered again instead of being refused for ever.
        place = ":".join(map(str, attempt.pointer)).encode()
        key = f"{self.name[-60:]}:{blake2b(place, digest_size=16).hexdigest()}"
        claim = Claim(**attempt.pointer._asdict(), key=key)
        answer, raw = self._insist(claim)
        with self._lock:
            self._claimed += 1
            self._claimed_at = time.monotonic()
        if not answer.granted:
            log.info("claim.refused", reason=answer.reason)
            return
        if raw is None:
            # Granted, but the control plane cannot say what to run: the step must end all the same.
            error = {"kind": "internal", "message": answer.reason or "no step", "retryable": False}
            self._report(attempt, Outcome(error=error), 0.0, key)
            return
        failpoints.before("worker.run")
        started = time.perf_counter()
        try:
            outcome = self._execute(attempt, raw, answer)
        except Exception as exc:  # a bug of ours or of a tool must end the step, not hang it
            log.exception("step.crashed")
            message = f"{type(exc).__name__}: {exc}"
            outcome = Outcome(error={"kind": "internal", "message": message, "retryable": False})
        failpoints.after("worker.run")
        self._report(attempt, outcome, (time.perf_counter() - started) * 1000, key)

    def _execute(self, attempt: Attempt, raw: dict[str, Any], answer: ClaimAnswer) -> Outcome:
        step = _work_of(self._steps.get(raw), attempt.pointer)
        variables = answer.variables or Variables()
        seconds = step.timeout or self._settings.step_timeout
        deadline = time.monotonic() + seconds
        asker = Asker(attempt.pointer, attempt.stop, deadline)
        playbook = (answer.step or "").partition("/")[0]
        vault = self._vaults.opened(asker, playbook)
        attempt.masker = vault.masker
        printer = attempt.printer = self._printer(attempt)
        fetched = Fetched(self._fetcher, asker)
        try:
            scope = fetched.scope(step, variables, {"now_at": time.time()})
            scope = _in_confidence(scope, step, variables, vault)
            resume = vault.resumed(fetched.resume(variables.resume), _secret_tasks(step))
        except ToolError as exc:
            return Outcome(error=exc.to_dict())
        except CallboardError as exc:
            return Outcome(error={"kind": exc.code, "message": str(exc), "retryable": False})
        context = Context(
            **attempt.pointer._asdict(),
            settings=self._settings,
            timeout=seconds,
            workspace=self._workspace(attempt.pointer.execution_id),
            cancelled=attempt.stop,
            secrets=vault,
            artifacts=KeptArtifacts(
                self._fetcher, asker, self.name, attempt.masker, self._settings
            ),
            log=printer.log,
        )
        elsewhere = frozenset(referring(variables.results, variables.ctx))
        outcome = TaskSequence(step, scope, context, deadline, resume, elsewhere=elsewhere).run()
        log.debug("step.ran", ok=outcome.error is None)
        return _tried_again(step, attempt.pointer, scope, outcome)

    def _printer(self, attempt: Attempt) -> Printer:
        limit = self._settings.output_bytes
        return Printer(attempt.pointer, attempt.masker, self._shipper, limit=limit, tail=TAIL)

    def _workspace(self, execution_id: int) -> Path:
        return self._settings.home / "work" / str(execution_id)

    # ------------------------------------------------------------------ its report
    def _report(self, attempt: Attempt, outcome: Outcome, duration_ms: float, key: str) -> None:
        if attempt.reason == "fenced":
            # Somebody else has it, or the execution has ended.
            if attempt.printer is not None:
                self._shipper.abandon(attempt.printer)
            return
        # First, so that whoever sees the end finds all of it; but it is not waited for.
        output = self._shipper.end(attempt.printer) if attempt.printer else []
        place = {
            **attempt.pointer._asdict(),
            "key": key,
            "duration_ms": duration_ms,
            "tail": printable(attempt.tail),
        }
        report = self._told(attempt, place, outcome)
        answer, _ = self._insist(report.model_copy(update={"output": output}), urgent=True)
        with self._lock:
            self._reported += 1
        if not answer.accepted:
            log.info("report.refused", reason=answer.reason)

    def _told(self, attempt: Attempt, place: Mapping[str, Any], outcome: Outcome) -> Report:
        """The report; one that cannot be made must end the step all the same, and tell no secret."""
        most = self._settings.result_bytes
        try:
            told = explained(masked(outcome, attempt.masker), attempt.masker)
            return report_of(place, told, reason=attempt.reason, most=most)
        except Exception as exc:
            log.exception("report.failed")
            message = f"the outcome could not be reported: {type(exc).__name__}"
            error = {"kind": "internal", "message": message, "retryable": False}
            return report_of(place, Outcome(error=error), reason=attempt.reason, most=most)

    # ------------------------------------------------------------------ talking to the control plane
    def _send(self, items: Sequence[Claim | Report]) -> list[_Answer]:
        """Settle claims and reports of several threads in one request; answers in their order."""
        claims = [item for item in items if isinstance(item, Claim)]
        reports = [item for item in items if isinstance(item, Report)]
        answer = self._work.exchange(Exchange(worker=self.name, claims=claims, reports=reports))
        claimed = ((each, answer.steps.get(each.step or "")) for each in answer.claims)
        reported = ((each, None) for each in answer.reports)
        return [next(claimed) if isinstance(item, Claim) else next(reported) for item in items]

    def _insist(self, item: Claim | Report, *, urgent: bool = False) -> Any:
        """Repeat *item* until it is answered: a claim or report of unknown fate must be settled.

        Whatever error comes, it settles nothing: given up, the attempt would stay claimed by a
        living worker that does not run it. An item that is refused takes no batch along, and a
        report refused again and again becomes a plain failure. While shutting down only an
        *urgent* item is repeated, and not for ever.
        """
        pause, tries, refused = 0.1, 0, 0
        while True:
            try:
                return self._settle(item, alone=refused > 0)
            except CallboardError as exc:
                tries += 1
                refused += not isinstance(exc, AWAY)
                if self._stopping.is_set() and (not urgent or tries > 5):
                    raise UnavailableError(str(exc)) from exc
                log.warning("control_plane.unsettled", error=str(exc), tries=tries)
                if refused >= REFUSALS and isinstance(item, Report):
                    item = failed_instead(item, exc)
                # Full jitter spreads the return of many workers.
                self._stopping.wait(random.uniform(0, pause))  # noqa: S311 (guards nothing)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _settle(self, item: Claim | Report, *, alone: bool) -> _Answer:
        """One try; large results travel alone, so that a batch stays below what the API takes."""
        point = "worker.claim"
        if isinstance(item, Report):
            point = "worker.report"
            alone = alone or size_of([item.result, item.ctx, item.error]) > ALONE
        failpoints.before(point)
        answer = self._send([item])[0] if alone else self._exchange(item)
        failpoints.after(point)
        return answer

    # ------------------------------------------------------------------ from outside
    def running(self) -> list[PointerWire]:
        """The attempts in progress, for the heartbeat."""
        with self._lock:
            return [PointerWire(**pointer._asdict()) for pointer in self._running]

    def activity(self) -> dict[str, float]:
        """What it did so far, for the heartbeat: a worker that beats and claims nothing is stuck.

        ``claims`` and ``reports`` that were answered, attempts ``in_progress``, and ``idle``: seconds
        since the last claim was answered, or since the start.
        """
        with self._lock:
            return {
                "claims": self._claimed,
                "reports": self._reported,
                "in_progress": len(self._running),
                "idle": round(time.monotonic() - self._claimed_at, 1),
            }

    def fence(self, pointers: Sequence[PointerWire]) -> None:
        """Stop attempts that were cancelled or given to others; they are not reported."""
        for wire in pointers:
            pointer = Pointer(**wire.model_dump())
            with self._lock:
                attempt = self._running.get(pointer)
            if attempt is not None:
                log.info("attempt.fenced", execution_id=pointer.execution_id, step=str(pointer.key))
                attempt.end("fenced")

    def begin_shutdown(self) -> None:
        """Stop insisting on a control plane that does not answer."""
        self._stopping.set()

    def interrupt(self) -> int:
        """Stop everything that still runs; it is given back, which costs no attempt. How many."""
        with self._lock:
            attempts = list(self._running.values())
        for attempt in attempts:
            attempt.end("shutdown")
        return len(attempts)


class _StepCache:
    """Steps parsed from what claims carry; equal YAML is parsed once."""

    def __init__(self, kinds: Kinds) -> None:
        self._parse = lru_cache(maxsize=1024)(lambda text: parse_step(orjson.loads(text), kinds))

    def get(self, raw: dict[str, Any]) -> Step:
        step: Step = self._parse(orjson.dumps(raw, option=orjson.OPT_NON_STR_KEYS))
        return step


def _work_of(step: Step, pointer: Pointer) -> Step:
    """What this pointer asks for: the step's tasks, or the claim of its cursor."""
    if not pointer.key.is_claim:
        return step
    assert step.loop is not None
    assert step.loop.cursor is not None
    return replace(step, tasks=(step.loop.cursor.task,), sequence=False, input={})


def _in_confidence(scope: Scope, step: Step, variables: Variables, vault: Vault) -> Scope:
    """*scope* with what only workers may read: the keychain, and secrets of earlier steps."""
    scope = replace(scope, results=vault.revealed(scope.results, variables))
    named = "keychain" in step.needs.names and "keychain" not in scope
    if variables.keychain is None and not named:
        return scope
    return scope.with_local({"keychain": vault.keychain(variables.keychain)})


def _secret_tasks(step: Step) -> frozenset[str]:
    return frozenset(task.name for task in step.tasks if task.kind == SECRETS)


def _tried_again(step: Step, pointer: Pointer, scope: Scope, outcome: Outcome) -> Outcome:
    """*outcome*, or a failure to be tried again, as the frames of a cursor may ask for."""
    cursor = step.loop.cursor if step.loop else None
    if outcome.error is None or cursor is None or pointer.key.is_claim:
        return outcome
    if outcome.retry_in is not None:
        return outcome  # a policy rule says when
    most = whole(render(cursor.frame.max_attempts, scope)) or 1
    tried = int(scope.local.get("_tries", 0)) + 1
    return outcome if tried >= most else replace(outcome, retry_in=0.0)
