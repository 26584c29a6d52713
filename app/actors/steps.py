"""The life of one attempt on a worker: claim, run, report, and only then is the message acked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import orjson
import structlog
from structlog.contextvars import bind_contextvars, reset_contextvars

from app import failpoints
from app.actors.artifacts import KeptArtifacts
from app.actors.attempt import Attempt
from app.actors.chunks import Chunks, Granted
from app.actors.fetching import Asker, Fetched, Fetcher, referring
from app.actors.printing import Printer
from app.actors.reporting import explained, masked, printable, report_of
from app.actors.secrets import SECRETS
from app.actors.sequence import Outcome, TaskSequence
from app.actors.settling import Settler
from app.actors.shipping import Shipper
from app.actors.vault import Vault, Vaults
from app.engine.language.checks import whole
from app.engine.language.parse import parse_step
from app.engine.language.tasks import Kinds
from app.engine.playbook import Step
from app.engine.ports import Pointer
from app.engine.templates.scope import Scope
from app.engine.templates.template import render
from app.errors import CallboardError, ToolError, UnavailableError
from app.services.work import Worked
from app.settings import Settings
from app.tools import Context
from app.tools.child.warm import Warm
from app.wire import (
    Claim,
    ClaimAnswer,
    PointerWire,
    Report,
    ReportAnswer,
    Serves,
    Variables,
)

log = structlog.get_logger(__name__)

#: Characters of what a step printed that stay with its event.
TAIL = 2_000
#: Seconds for which a thread goes on with the steps that follow; then others have their turn.
ONWARD = 0.5


class Runner:
    """Runs the attempts that messages point to. One per worker process, shared by its threads.

    *secrets* are those of the worker's own environment, by lower-case name; after a step it goes on
    with the next, where it *serves* that; *on_secret* hears of every secret value that an attempt is told.
    """

    def __init__(
        self,
        work: Worked,
        settings: Settings,
        kinds: Kinds,
        secrets: Mapping[str, str],
        *,
        name: str,
        serves: Serves | None = None,
        on_secret: Callable[..., None] | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._vaults = Vaults(work, name, secrets, settings=settings)
        if on_secret is not None:
            self._vaults.on_secret = on_secret
        self._settler = Settler(work, name, serves)
        self._chunks = Chunks(self, self._settler, work, name)
        self._fetcher = Fetcher(work)
        self._shipper = Shipper(work.logs, name)
        self._running: dict[Pointer, Attempt] = {}
        self._lock = threading.Lock()
        self._claimed = self._reported = 0
        self._claimed_at = time.monotonic()
        self._steps = _StepCache(kinds)
        self._warm = Warm(settings.python_warm, settings.python_warm_for)
        # An execution's steps mostly come one after the other.
        self._workspace = lru_cache(maxsize=64)(lambda id_: settings.home / "work" / str(id_))
        # The module's own is put together anew at each call.
        self._log = log.bind()

    # ------------------------------------------------------------------ one message
    def run(self, pointer: Pointer, count: int = 1) -> None:
        """Do what the pointer says; returns when the message may be acked.

        With a *count* it covers so many iterations of a loop, from that of *pointer* on. Raises
        ``UnavailableError`` while shutting down, so that the message goes back.
        """
        if self._settler.is_stopping:
            raise UnavailableError("this worker is shutting down")
        if count > 1:
            self._chunks.run(pointer, count)
            return
        attempt = self.enter(pointer)
        if attempt is None:
            return
        try:
            until = time.monotonic() + ONWARD
            answer, raw = self._settler.settle(self.claim_of(attempt))
            granted = self._granted(attempt, answer, raw)
            following = granted and self._settled(granted, until)
        finally:
            self.leave(attempt)
        while following is not None:
            following = self._gone_on(following, until)

    def _granted(
        self, attempt: Attempt, answer: ClaimAnswer, raw: dict[str, Any] | None
    ) -> Granted | None:
        return Granted(attempt, answer, raw) if self.granted(attempt, answer) else None

    def _settled(self, granted: Granted, until: float) -> Granted | None:
        """Run what was granted and report it; what follows, if it was handed to us.

        After *until* (monotonic seconds) nothing is: others wait for this thread.
        """
        report = self.work(granted)
        if report is None:
            return None
        report.onward = time.monotonic() < until and not self._settler.is_stopping
        answer, raw = self._settler.settle(report, urgent=True)
        self.reported(answer)
        if answer.follows is None:
            return None
        attempt = self.enter(_pointer(answer.follows.pointer))
        return None if attempt is None else self._granted(attempt, answer.follows.claim, raw)

    def _gone_on(self, granted: Granted, until: float) -> Granted | None:
        """The same for a step that was handed to us. No message stands for it: whatever happens, it
        is reported, or given back.
        """
        try:
            if not self._settler.is_stopping:
                return self._settled(granted, until)
        except Exception as exc:  # noqa: BLE001 (what failed is said by who tries again)
            log.warning("step.not_gone_on", error=str(exc))
        finally:
            self.leave(granted.attempt)
        self._handed_back(granted)
        return None

    def _handed_back(self, granted: Granted) -> None:
        """Give back what was handed to us; if it was done and that got lost, what follows it, too."""
        attempt: Attempt | None = granted.attempt
        while attempt is not None:
            answer, _ = self._settler.settle(self.given_back(attempt), urgent=True)
            follows = answer.follows
            attempt = follows and self._attempt(_pointer(follows.pointer))

    def enter(self, pointer: Pointer) -> Attempt | None:
        """Take the attempt in hand; None where it is: its pointer was delivered again meanwhile."""
        attempt = self._attempt(pointer)
        with self._lock:
            if pointer in self._running:
                return None
            self._running[pointer] = attempt
        return attempt

    def _attempt(self, pointer: Pointer) -> Attempt:
        # The same worker claims an attempt under the same key: a claim whose answer was lost is
        # answered again instead of being refused for ever.
        place = ":".join(map(str, pointer)).encode()
        return Attempt(pointer, f"{self.name[-60:]}:{blake2b(place, digest_size=16).hexdigest()}")

    def leave(self, attempt: Attempt) -> None:
        """Let go of it, done or not."""
        with self._lock:
            self._running.pop(attempt.pointer, None)

    @staticmethod
    def claim_of(attempt: Attempt) -> Claim:
        return Claim(**attempt.pointer._asdict(), key=attempt.key)

    def granted(self, attempt: Attempt, answer: ClaimAnswer) -> bool:
        """Whether its claim was granted."""
        with self._lock:
            self._claimed += 1
            self._claimed_at = time.monotonic()
        if not answer.granted:
            log.info("claim.refused", **_about(attempt.pointer), reason=answer.reason)
        return answer.granted

    def work(self, granted: Granted) -> Report | None:
        """Run what was granted; the report, or None where nobody wants it any more."""
        # What is logged meanwhile names the attempt.
        tokens = bind_contextvars(**_about(granted.attempt.pointer))
        try:
            return self._worked(granted.attempt, granted.answer, granted.raw)
        finally:
            reset_contextvars(**tokens)

    def _worked(
        self, attempt: Attempt, answer: ClaimAnswer, raw: dict[str, Any] | None
    ) -> Report | None:
        if raw is None:
            # Granted, but the control plane cannot say what to run: the step must end all the same.
            error = {"kind": "internal", "message": answer.reason or "no step"}
            return self._report(attempt, Outcome(error={**error, "retryable": False}), 0.0)
        failpoints.before("worker.run")
        started = time.perf_counter()
        try:
            outcome = self._execute(attempt, raw, answer)
        except Exception as exc:  # a bug of ours or of a tool must end the step, not hang it
            log.exception("step.crashed")
            message = f"{type(exc).__name__}: {exc}"
            outcome = Outcome(error={"kind": "internal", "message": message, "retryable": False})
        failpoints.after("worker.run")
        return self._report(attempt, outcome, (time.perf_counter() - started) * 1000)

    def given_back(self, attempt: Attempt) -> Report:
        """The report of an attempt that was claimed and that others shall run."""
        return Report(**attempt.pointer._asdict(), key=attempt.key, outcome="interrupted")

    def reported(self, answer: ReportAnswer) -> None:
        """Take note of what became of a report."""
        with self._lock:
            self._reported += 1
        if not answer.accepted:
            log.info("report.refused", reason=answer.reason)

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
            resume = variables.resume
            if resume is not None:
                resume = vault.resumed(fetched.resume(resume), _secret_tasks(step))
        except ToolError as exc:
            return Outcome(error=exc.to_dict())
        except CallboardError as exc:
            return Outcome(error={"kind": exc.code, "message": str(exc), "retryable": False})
        context = Context(
            *attempt.pointer,
            settings=self._settings,
            timeout=seconds,
            workspace=self._workspace(attempt.pointer.execution_id),
            cancelled=attempt.stop,
            secrets=vault,
            artifacts=KeptArtifacts(
                self._fetcher, asker, self.name, attempt.masker, self._settings
            ),
            log=printer.log,
            # Named by playbook version and step.
            lodge=self._warm.lodge(answer.step or "", lambda: bool(attempt.masker)),
        )
        elsewhere = frozenset(referring(variables.results, variables.ctx))
        outcome = TaskSequence(step, scope, context, deadline, resume, elsewhere=elsewhere).run()
        self._log.debug("step.ran", ok=outcome.error is None)
        return _tried_again(step, attempt.pointer, scope, outcome)

    def _printer(self, attempt: Attempt) -> Printer:
        limit = self._settings.output_bytes
        return Printer(attempt.pointer, attempt.masker, self._shipper, limit=limit, tail=TAIL)

    # ------------------------------------------------------------------ its report
    def _report(self, attempt: Attempt, outcome: Outcome, duration_ms: float) -> Report | None:
        if attempt.reason == "fenced":
            # Somebody else has it, or the execution has ended.
            if attempt.printer is not None:
                self._shipper.abandon(attempt.printer)
            return None
        # First, so that whoever sees the end finds all of it; but it is not waited for.
        output = self._shipper.end(attempt.printer) if attempt.printer else []
        place = {
            **attempt.pointer._asdict(),
            "key": attempt.key,
            "duration_ms": duration_ms,
            "tail": printable(attempt.tail),
            "output": output,
        }
        return self._told(attempt, place, outcome)

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
            pointer = _pointer(wire)
            with self._lock:
                attempt = self._running.get(pointer)
            if attempt is not None:
                log.info("attempt.fenced", execution_id=pointer.execution_id, step=str(pointer.key))
                attempt.end("fenced")

    def begin_shutdown(self) -> None:
        """Stop insisting on a control plane that does not answer."""
        self._settler.begin_shutdown()
        self._warm.close()

    def interrupt(self) -> int:
        """Stop everything that still runs; it is given back, which costs no attempt. How many."""
        with self._lock:
            attempts = list(self._running.values())
        for attempt in attempts:
            attempt.end("shutdown")
        return len(attempts)


def _pointer(wire: PointerWire) -> Pointer:
    return Pointer(wire.execution_id, wire.step, wire.visit, wire.iteration, wire.attempt)


def _about(pointer: Pointer) -> dict[str, Any]:
    """What log lines say of an attempt."""
    return {"execution_id": pointer.execution_id, "step": str(pointer.key)}


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
    if variables.secrets:
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
