"""Talking to the control plane until it has answered: a claim or report of unknown fate is repeated."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from app import failpoints
from app.actors.batch import Batcher
from app.actors.reporting import failed_instead
from app.errors import CallboardError, ForbiddenError, UnauthorizedError, UnavailableError
from app.services.large import size_of
from app.services.work import Worked
from app.wire import Claim, ClaimAnswer, Exchange, ExchangeAnswer, Report, ReportAnswer, Serves

log = structlog.get_logger(__name__)

#: An answer, and the step that it grants, if any.
Answer = tuple[ClaimAnswer | ReportAnswer, dict[str, Any] | None]
Send = Callable[[Sequence[Claim | Report]], list[Answer]]

#: Bytes of a result above which its report is sent alone.
ALONE = 262_144
#: Refusals (not outages) after which a report becomes a plain failure.
REFUSALS = 5
#: Errors that say nothing against the item itself.
AWAY = (UnavailableError, UnauthorizedError, ForbiddenError)
_LONGEST_PAUSE = 10.0
_NEVER_LARGE = (type(None), int, float)


class Settler:
    """Settles claims and reports of all threads of the worker *name*, many in one request.

    It goes on with steps of what it *serves*.
    """

    def __init__(self, work: Worked, name: str, serves: Serves | None = None) -> None:
        self._work = work
        self._name = name
        self._serves = serves
        self._exchange = Batcher[Claim | Report, Answer](self._send)
        self._stopping = threading.Event()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def begin_shutdown(self) -> None:
        """Stop insisting on a control plane that does not answer."""
        self._stopping.set()

    def settle(self, item: Claim | Report, *, urgent: bool = False) -> Any:
        """Repeat *item* until it is answered: a claim or report of unknown fate must be settled.

        Whatever error comes, it settles nothing: given up, the attempt would stay claimed by a
        living worker that does not run it. An item that is refused takes no batch along, and a
        report refused again and again becomes a plain failure. While shutting down only an
        *urgent* item is repeated, and not for ever: then ``UnavailableError`` is raised.
        """
        pause, tries, refused = 0.1, 0, 0
        while True:
            try:
                return self._once(item, alone=refused > 0)
            except CallboardError as exc:
                tries += 1
                refused += not isinstance(exc, AWAY)
                if self.is_stopping and (not urgent or tries > 5):
                    raise UnavailableError(str(exc)) from exc
                log.warning("control_plane.unsettled", error=str(exc), tries=tries)
                if refused >= REFUSALS and isinstance(item, Report):
                    item = failed_instead(item, exc)
                # Full jitter spreads the return of many workers.
                self._stopping.wait(random.uniform(0, pause))  # noqa: S311 (guards nothing)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def settle_all(self, items: Sequence[Claim | Report]) -> list[Any]:
        """The answers to *items*, in order; together where that works, else one after the other."""
        if not any(_is_large(item) for item in items):
            try:
                return self._together(items)
            except CallboardError as exc:
                log.warning("control_plane.unsettled", error=str(exc), items=len(items))
        return [self.settle(item, urgent=isinstance(item, Report)) for item in items]

    def _once(self, item: Claim | Report, *, alone: bool) -> Answer:
        """One try; large results travel alone, so that a batch stays below what the API takes."""
        if alone or _is_large(item):
            return self._failing(self._send, [item])[0]
        return self._together([item])[0]

    def _together(self, items: Sequence[Claim | Report]) -> list[Answer]:
        return self._failing(self._exchange.many, items)

    @staticmethod
    def _failing(send: Send, items: Sequence[Claim | Report]) -> list[Answer]:
        """The answers that *send* gives, between the failpoints of what it settles."""
        kinds = set(map(type, items))
        if Claim in kinds:
            failpoints.before("worker.claim")
        if Report in kinds:
            failpoints.before("worker.report")
        answers = send(items)
        if Claim in kinds:
            failpoints.after("worker.claim")
        if Report in kinds:
            failpoints.after("worker.report")
        return answers

    def _send(self, items: Sequence[Claim | Report]) -> list[Answer]:
        """Settle claims and reports of several threads in one request; answers in their order."""
        claims = [item for item in items if isinstance(item, Claim)]
        reports = [item for item in items if isinstance(item, Report)]
        request = Exchange(
            worker=self._name, claims=claims, reports=reports, released=[], serves=self._serves
        )
        answer = self._work.exchange(request)
        claimed = ((each, answer.steps.get(each.step or "")) for each in answer.claims)
        reported = ((each, _following(each, answer)) for each in answer.reports)
        return [next(claimed) if isinstance(item, Claim) else next(reported) for item in items]


def _following(report: ReportAnswer, answer: ExchangeAnswer) -> dict[str, Any] | None:
    """The step that the worker goes on with after that report."""
    return None if report.follows is None else answer.steps.get(report.follows.claim.step or "")


def _is_large(item: Claim | Report) -> bool:
    if not isinstance(item, Report):
        return False
    # A null has ``dumps`` look through all for numbers that are not finite, and no number is large.
    parts = [
        part for part in (item.result, item.ctx, item.error) if not isinstance(part, _NEVER_LARGE)
    ]
    return bool(parts) and size_of(parts) > ALONE
