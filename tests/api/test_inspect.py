"""Plans, replays and verifications over HTTP."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from fastapi.testclient import TestClient

from app.client import Client
from app.errors import InvalidPlaybookError, NotFoundError
from tests.api.plane import CHAIN, Plane


def test_a_registered_playbook_is_explained_by_its_path(plane: Plane, http: TestClient) -> None:
    answer = http.get("/api/catalog/explain", params={"path": "tests/chain"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["plan"]["levels"] == [["start"], ["work"], ["finish"]]
    assert found["plan"]["workload"] == ["greeting", "items"]
    assert found["text"].startswith("chain (tests/chain)\n")
    assert found["mermaid"].startswith("flowchart TD\n")
    assert http.get("/api/catalog/explain?path=tests/chain&version=9").status_code == 404
    assert http.get("/api/catalog/explain?path=nowhere").status_code == 404
    assert http.get("/api/catalog/explain").status_code == 422


@pytest.mark.parametrize(
    "body",
    [
        CHAIN.encode(),
        base64.b64encode(CHAIN.encode()),
        orjson.dumps({"content": CHAIN}),
    ],
)
def test_a_playbook_that_is_sent_along_is_explained_and_not_stored(
    http: TestClient, body: bytes
) -> None:
    sent = http.post("/api/catalog/explain", content=body).json()
    assert sent == http.get("/api/catalog/explain?path=tests/chain").json()
    listed = http.post("/api/catalog/list", json={"path": "tests/chain"}).json()["entries"]
    assert len(listed) == 1


def test_one_that_cannot_run_is_refused_with_its_findings(http: TestClient, client: Client) -> None:
    broken = CHAIN.replace("[{step: finish}]", "[{step: nowhere}]")
    answer = http.post("/api/catalog/explain", content=broken)
    assert answer.status_code == 422
    assert "arc-to-nowhere" in {finding["code"] for finding in answer.json()["findings"]}
    with pytest.raises(InvalidPlaybookError, match="nowhere"):
        client.explain(broken)


def test_an_execution_is_replayed_page_by_page(
    plane: Plane, http: TestClient, client: Client
) -> None:
    execution_id = plane.started()
    plane.work(execution_id, http)
    whole = client.replay(execution_id)
    assert whole["execution_id"] == str(execution_id)
    assert [turn["seq"] for turn in whole["turns"]] == list(range(1, whole["next"] + 1))
    first = whole["turns"][0]
    assert (first["type"], first["step"]) == ("execution.started", None)
    assert first["changes"] == [
        {"what": "execution", "name": "tests/chain", "before": "new", "after": "running"}
    ]
    assert first["at"] is not None
    assert whole["state"]["status"] == "completed"

    turns: list[Any] = []
    page: dict[str, Any] = {"next": 0, "more": True}
    while page["more"]:
        page = client.replay(execution_id, after=page["next"], limit=4)
        assert (page["state"] is None) == page["more"]
        turns += page["turns"]
    assert turns == whole["turns"]
    assert page["state"] == whole["state"]
    only = client.replay(execution_id, step="finish")["turns"]
    assert {turn["step"] for turn in only} == {"finish"}


def test_the_state_of_then_can_be_asked_for(plane: Plane, http: TestClient, client: Client) -> None:
    execution_id = plane.started()
    plane.work(execution_id, http)
    early = client.replay_state(execution_id, 2)
    assert (early["at_seq"], early["state"]["running"]) == (2, ["start"])
    assert early["state"] == client.replay(execution_id, at=2)["state"]
    now = client.replay_state(execution_id)
    assert now["state"]["status"] == "completed"
    assert now["state"]["steps"]["work"]["loop"]["ended"] == 3


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/api/executions/77/replay", 404),
        ("/api/executions/77/verify", 404),
        ("/api/replay/state?execution_id=77", 404),
        ("/api/replay/state", 422),
        ("/api/replay/state?execution_id=x", 422),
        ("/api/executions/77/replay?limit=0", 422),
        ("/api/executions/77/replay?at=-1", 422),
    ],
)
def test_what_cannot_be_looked_at_is_refused(looker: TestClient, url: str, status: int) -> None:
    assert looker.get(url).status_code == status


def test_an_execution_is_verified_while_it_runs_and_after(
    plane: Plane, http: TestClient, client: Client
) -> None:
    execution_id = plane.started()
    plane.work(execution_id, http, rounds=2)
    running = client.verify(execution_id)
    assert (running["ok"], running["status"], running["findings"]) == (True, "RUNNING", [])
    plane.work(execution_id, http)
    ended = client.verify(execution_id)
    assert (ended["ok"], ended["path"], ended["version"]) == (True, "tests/chain", 1)
    assert ended["events"] == client.replay_state(execution_id)["at_seq"]
    with pytest.raises(NotFoundError):
        client.verify(77)
