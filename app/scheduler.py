"""The scheduler: APScheduler drives the sweeper. One leads, others stand by."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from app.errors import CallboardError
from app.processes import Stop, keep_memory_flat, main, signs
from app.settings import Settings, process_name
from app.wire import Beat
from app.wiring import Plane, control_plane

if TYPE_CHECKING:
    from app.store.leader import Leadership

log = structlog.get_logger(__name__)

#: Key of the Postgres advisory lock that the leader holds.
LEADER = 0x0CA11B0A
#: What the leader calls itself when it beats.
LEADS = "leader"
#: Heartbeats that a leader may miss before another one does its work.
MISSED = 3


class Duties:
    """What the scheduler does again and again; trouble is logged and the next round tries again."""

    def __init__(self, plane: Plane, leadership: Leadership, name: str, *, patience: float) -> None:
        self._plane = plane
        self._leadership = leadership
        self._name = name
        self._patience = patience
        self._began = time.monotonic()
        self._led = False
        self._deputises = False

    def sweep(self) -> None:
        """Repair from the log, where this process leads, or the one that does falls silent."""
        leads = self._leadership.holds()
        if leads != self._led:
            log.info("scheduler.leads" if leads else "scheduler.stands_by", name=self._name)
        self._led = leads
        try:
            if not leads and not self._is_leader_silent():
                return
            swept = self._plane.control.sweeper.sweep()
        except CallboardError as exc:
            log.warning("sweep.failed", error=str(exc))
            return
        if swept.expired or swept.resent:
            log.info("swept", expired=swept.expired, resent=swept.resent, woken=swept.woken)

    def _is_leader_silent(self) -> bool:
        """The leader keeps its lock and does not beat: it is frozen, or cut off from us alone.

        It may never have said that it leads, or so long ago that it was forgotten: then what counts
        is how long we have been here. Two that sweep at once do no harm, and nobody that sweeps does.
        """
        silence = self._plane.control.presence.silence("scheduler", LEADS)
        if silence is None:
            silence = time.monotonic() - self._began
        silent = silence > self._patience
        if silent != self._deputises:
            log.info("scheduler.deputises" if silent else "scheduler.stands_by", name=self._name)
        self._deputises = silent
        return silent

    def beat(self) -> None:
        """Say that this process is alive."""
        try:
            status = LEADS if self._led else "standby"
            self._plane.control.presence.beat(
                Beat(name=self._name, kind="scheduler", status=status, runtime=signs())
            )
        except CallboardError as exc:
            log.warning("heartbeat.failed", error=str(exc))

    def leave(self) -> None:
        """Give the lead away and sign off."""
        self._leadership.close()
        try:
            self._plane.control.presence.leave("scheduler", self._name)
        except CallboardError as exc:
            log.info("scheduler.leave_failed", error=str(exc))


def run(settings: Settings) -> None:
    """Sweep every few seconds until told to stop."""
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.schedulers.background import BackgroundScheduler

    stop = Stop().listen()
    name = process_name("scheduler")
    with control_plane(settings, "scheduler") as plane:
        patience = MISSED * settings.heartbeat
        duties = Duties(plane, plane.leadership(LEADER), name, patience=patience)
        scheduler = BackgroundScheduler(
            timezone="UTC",
            executors={"default": ThreadPoolExecutor(4)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        for duty, seconds in ((duties.sweep, settings.sweep), (duties.beat, settings.heartbeat)):
            scheduler.add_job(
                duty,
                "interval",
                seconds=seconds,
                jitter=seconds / 10,
                next_run_time=datetime.now(UTC),
            )
        scheduler.start()
        log.info("scheduler.started", name=name)
        keep_memory_flat()
        stop.wait()
        scheduler.shutdown(wait=True)
        duties.leave()
    log.info("scheduler.stopped", name=name)


if __name__ == "__main__":
    main(run)
