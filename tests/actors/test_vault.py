"""How a worker comes by a credential, and what its step says where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.actors.steps import Runner
from app.engine.custody import CredentialDraft, for_credential
from app.keychain.keyring import ephemeral
from app.services.desk import Desk
from app.settings import load
from app.wire import CredentialPut, CredentialScope
from app.wiring import ToolKinds
from tests.services.conftest import Bench, bench, make_bench  # noqa: F401 (fixtures)

PASSWORD = "correct-horse-battery"
USES = """
workflow:
- step: s
  tool: {kind: noop, auth: pg, result: "{{ auth.user }}:{{ auth.password }}"}
"""


@pytest.fixture
def real(bench: Bench) -> Bench:  # noqa: F811 (the fixture's value)
    """A plane that keeps a credential."""
    data = {"host": "db", "user": "etl", "password": PASSWORD}
    bench.control.credentials.put(CredentialPut(name="pg", type="postgres", data=data))
    return bench


def worker_of(plane: Bench, home: Path, **secrets: str) -> Runner:
    return Runner(
        Desk(plane.control), load({}, home=home).settings, ToolKinds(), secrets, name="w1"
    )


def ended(plane: Bench, worker: Runner, workflow: str = USES) -> Any:
    """The event that ended the step *s*."""
    execution_id = plane.start(workflow)
    (pointer,) = plane.advance(execution_id)
    worker.run(pointer)
    return plane.log(execution_id)[-1].event


def test_it_is_asked_for_once_and_masked_in_what_is_reported(real: Bench, tmp_path: Path) -> None:
    worker = worker_of(real, tmp_path)
    with capture_logs() as lines:
        results = [ended(real, worker).result for _ in range(2)]
    # Two executions of two versions: each playbook has to name it.
    assert results == ["etl:***", "etl:***"]
    handed = [line["event"] for line in lines].count("credential.handed_out")
    assert handed == 2
    entry = real.register(USES)
    pointers = []
    for _ in range(2):
        execution = real.control.executions.start(catalog_id=entry.catalog_id).execution_id
        pointers += real.advance(execution)
    with capture_logs() as lines:
        for pointer in pointers:
            worker.run(pointer)
    assert [line["event"] for line in lines].count("credential.handed_out") == 1
    assert PASSWORD not in repr(lines)


def test_the_environment_of_the_worker_goes_first(real: Bench, tmp_path: Path) -> None:
    worker = worker_of(real, tmp_path, pg='{"user": "own", "password": "my-own-password"}')
    assert ended(real, worker).result == "own:***"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param("gone", "there is no credential 'pg'", id="it is not kept"),
        pytest.param("scoped", "not for the playbook 't'", id="it is for others"),
        pytest.param("locked", "credential:pg fails authentication", id="no key"),
    ],
)
def test_where_it_may_not_be_had_the_step_fails_for_good(
    change: str, told: str, real: Bench, tmp_path: Path
) -> None:
    if change == "gone":
        real.control.credentials.delete("pg")
    elif change == "scoped":
        scope = CredentialScope(paths=["etl/*"])
        put = CredentialPut(name="pg", type="generic", data={"x": PASSWORD}, scope=scope)
        real.control.credentials.put(put)
    else:
        sealed = ephemeral().seal(b"{}", for_credential("pg"))
        real.ports.custody.credentials.put(CredentialDraft("pg", "generic", sealed))
    event = ended(real, worker_of(real, tmp_path))
    assert event.type == "step.failed"
    assert (event.error["kind"], event.error["retryable"]) == ("auth", False)
    assert told in event.error["message"]
