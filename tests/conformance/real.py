"""Runs a case for real: in one process, and through the servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.engine.entry import Entry
from app.errors import Finding, InvalidPlaybookError
from app.local import follow
from app.services.control import Control, Ports
from tests.conformance.case import Case
from tests.conformance.ended import Ended, line, line_of
from tests.system.plane import System


class Local:
    """What ``callboard run`` does: the same engine, actors and tools on the memory twins."""

    def __init__(self, control: Control, ports: Ports, server: str) -> None:
        self.control = control
        self.ports = ports
        self.server = server

    def findings(self, case: Case) -> list[Finding]:
        """Why it is refused."""
        try:
            self.control.catalog.register(case.playbook)
        except InvalidPlaybookError as refused:
            return list(refused.findings)
        return []

    def run(self, case: Case) -> Ended:
        for child in case.children:
            self.control.catalog.register(child)
        entry = self.control.catalog.register(case.playbook)
        executions = self.control.executions
        payload = case.given(self.server)
        execution_id = executions.start(catalog_id=entry.catalog_id, payload=payload).execution_id
        entries: list[Entry] = []
        follow(self.ports, execution_id, entries.append)
        found = self.control.inspection.verify(execution_id).findings
        assert not found, found
        summary = executions.get(execution_id)
        return Ended(
            summary.status,
            summary.error,
            tuple(text for entry in entries if (text := line_of(entry.event))),
            executions.variables(execution_id),
            lambda step: executions.result(execution_id, step),
        )


class Served:
    """API, JetStream, orchestrator and worker; all cases are started before the first is awaited."""

    def __init__(self, system: System, server: str) -> None:
        self.system = system
        self.server = server
        self.started: dict[str, str | Exception] = {}

    def findings(self, case: Case) -> list[Finding]:
        """Why it is refused, which is also what validating it says."""
        refused: list[Finding] = []
        try:
            self.system.client.register(case.playbook)
        except InvalidPlaybookError as exc:
            refused = list(exc.findings)
        said = self.system.client.validate(case.playbook)
        assert said["valid"] is not bool(refused)
        assert [item["code"] for item in said["findings"]] == [finding.code for finding in refused]
        return refused

    def start(self, case: Case) -> None:
        """Begin; an error is kept for the test of this case alone."""
        client = self.system.client
        try:
            for child in case.children:
                client.register(child)
            started = client.execute(client.register(case.playbook).path, case.given(self.server))
            self.started[case.name] = started.execution_id
        except Exception as exc:  # noqa: BLE001 (raised where the case is looked at)
            self.started[case.name] = exc

    def run(self, case: Case) -> Ended:
        started = self.started[case.name]
        if isinstance(started, Exception):
            raise started
        self.system.wait(started, seconds=30)
        client = self.system.client
        status = client.status(started, full=True)
        verified = client.verify(started)
        assert verified["ok"], verified
        rows = client.events(started, page_size=500)
        return Ended(
            status["status"],
            status["error"],
            tuple(text for row in rows if (text := _row(row))),
            status["variables"],
            lambda step: client.result(started, step),
        )


def _row(row: Mapping[str, Any]) -> str | None:
    return line(row["type"], row["node_id"], row["attempt"])
