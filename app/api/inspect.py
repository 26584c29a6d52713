"""Looking closer: the plan of a playbook, an execution event by event, and whether all shown is so."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field

from app.api.bodies import PlaybookBody, answer
from app.api.dependencies import ControlDep, ExecutionId, SettingsDep
from app.engine.plans.mermaid import mermaid
from app.engine.plans.outline import outline
from app.engine.plans.plan import explain
from app.engine.playbook import Playbook
from app.services.catalog import envelope_of
from app.services.control import limits_of
from app.services.inspection import Turn
from app.services.replaying import PAGE, state_of
from app.settings import Settings
from app.wire import (
    DiscrepancyRow,
    Explained,
    ReplayChange,
    ReplayPage,
    ReplayState,
    ReplayTurn,
    Verified,
    Wire,
)

router = APIRouter(tags=["inspection"])


class ReplayQuery(Wire):
    """Which events: after ``after`` up to ``at``, ``limit`` looked at, only those about ``step``."""

    # FastAPI looks into query models when it adds the route, so they are built at once.
    model_config = ConfigDict(defer_build=False)

    after: int = Field(0, ge=0, lt=1 << 31)
    at: int | None = Field(None, ge=0, lt=1 << 31)
    limit: int = Field(PAGE, ge=1, le=1000)
    step: str | None = None


@router.get("/api/executions/{execution_id}/replay", response_model=ReplayPage)
def replay(
    execution_id: ExecutionId, query: Annotated[ReplayQuery, Query()], control: ControlDep
) -> Response:
    """What each event changed. The last page (``more`` false) has the state; ``next`` leads on."""
    found = control.inspection.replay(
        execution_id, after=query.after, at=query.at, limit=query.limit, step=query.step
    )
    return answer(
        ReplayPage(
            execution_id=str(execution_id),
            turns=[_turn(turn) for turn in found.turns],
            next=found.state.version,
            more=found.more,
            state=None if found.more else state_of(found.state),
        )
    )


@router.get("/api/replay/state", response_model=ReplayState)
def state(
    execution_id: Annotated[int, Query(ge=1, lt=1 << 63)],
    control: ControlDep,
    at_seq: Annotated[int | None, Query(ge=0, lt=1 << 31)] = None,
) -> Response:
    """The state of an execution as of event ``at_seq``, by default as of now."""
    found = control.inspection.state(execution_id, at_seq)
    return answer(
        ReplayState(execution_id=str(execution_id), at_seq=found.version, state=state_of(found))
    )


@router.get("/api/executions/{execution_id}/verify", response_model=Verified)
def verify(execution_id: ExecutionId, control: ControlDep) -> Response:
    """Whether everything shown of it is what its log says; what is not is listed."""
    found = control.inspection.verify(execution_id)
    return answer(
        Verified(
            execution_id=str(execution_id),
            path=found.path,
            version=found.version,
            status=found.status,
            events=found.events,
            ok=not found.findings,
            findings=[
                DiscrepancyRow.model_validate(item, from_attributes=True) for item in found.findings
            ],
        )
    )


@router.post("/api/catalog/explain", response_model=Explained)
def explain_content(body: PlaybookBody, control: ControlDep, settings: SettingsDep) -> Response:
    """The plan of a playbook that is sent along (raw, base64, or in JSON as ``content``)."""
    content, _ = envelope_of(body)
    return _explained(control.catalog.check(content), settings)


@router.get("/api/catalog/explain", response_model=Explained)
def explain_registered(
    path: str, control: ControlDep, settings: SettingsDep, version: int | None = None
) -> Response:
    """The plan of a registered playbook, by default of its newest version."""
    entry = control.catalog.entry(path, version=version)
    return _explained(control.catalog.playbook(entry.catalog_id), settings)


def _explained(playbook: Playbook, settings: Settings) -> Response:
    plan = explain(playbook, limits_of(settings))
    return answer(Explained(plan=state_of(plan), text=outline(plan), mermaid=mermaid(plan)))


def _turn(turn: Turn) -> ReplayTurn:
    entry, event = turn.entry, turn.entry.event
    return ReplayTurn(
        seq=entry.seq,
        type=event.type,
        at=entry.at,
        step=getattr(event, "step", None),
        visit=getattr(event, "visit", None),
        iteration=getattr(event, "iteration", None),
        attempt=getattr(event, "attempt", None),
        changes=[ReplayChange.model_validate(item, from_attributes=True) for item in turn.changes],
    )
