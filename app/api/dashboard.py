"""Dashboard: the few numbers on top of a page."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.dependencies import ControlDep
from app.wire import Stats

router = APIRouter(prefix="/api/dashboard", tags=["dashboard"])


@router.get("/stats")
def stats(control: ControlDep) -> Stats:
    """How many executions there are by outcome, and how many playbooks."""
    counts = control.executions.count_by_status()
    done, failed = counts.get("COMPLETED", 0), counts.get("FAILED", 0)
    running, cancelled = counts.get("RUNNING", 0), counts.get("CANCELLED", 0)
    playbooks = len(control.catalog.entries(kind="Playbook"))
    return Stats(
        stats={
            "total_executions": sum(counts.values()),
            "successful_executions": done,
            "failed_executions": failed,
            "cancelled_executions": cancelled,
            "total_playbooks": playbooks,
            "active_workflows": running,
        },
        total_executions=sum(counts.values()),
        successful_executions=done,
        failed_executions=failed,
        total_playbooks=playbooks,
        active_workflows=running,
    )
