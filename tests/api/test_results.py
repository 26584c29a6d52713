"""Results of any size over HTTP: outlines, raw text, references, and 100 MB once through everything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient

from app.actors.steps import Runner
from app.api.app import create_app
from app.cli.results import SHOWN_BYTES
from app.cli.root import cli
from app.client import Client
from app.engine.ports import Pointer
from app.engine.references import REF
from app.errors import BadRequestError, ForbiddenError, NotFoundError
from app.services.control import Ports, control
from app.settings import Settings
from app.store.catalog import PostgresCatalog
from app.store.database import Database
from app.store.events import PostgresLog
from app.store.ids import Snowflake
from app.store.runtime import PostgresRuntime
from app.wire import Claim, Exchange, ValueRequest
from app.wiring import ToolKinds, blob_store, memory_custody
from tests.api.plane import Plane, Probe, Recorder, build, served

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: large, path: tests/large}\n"
TWO = """
workflow:
- step: make
  tool: {kind: python, code: "%s"}
  next: {arcs: [{step: use}]}
- step: use
  tool: {kind: python, code: "result = {'n': len(rows)}", input: {rows: "{{ make.rows }}"}}
"""
ROWS = "result = {'rows': ['x' * 1000 for n in range(%d)], 'kind': 'test'}"


@pytest.fixture
def real(database: str, tmp_path: Path) -> Iterator[Plane]:
    """The API on Postgres, with blobs in a folder."""
    settings = Settings(home=tmp_path)
    pool = Database(database, pool_size=6)
    recorder, probe = Recorder(), Probe()
    ports = Ports(
        events=PostgresLog(pool),
        catalog=PostgresCatalog(pool),
        runtime=PostgresRuntime(pool),
        dispatcher=recorder,
        kinds=ToolKinds(),
        clock=lambda: 1_800_000_000.0,
        new_id=Snowflake(),
        custody=memory_custody(),
        blobs=blob_store(settings),
    )
    built = control(ports, settings)
    yield Plane(settings, built, recorder, probe, create_app(built, settings, health=probe), ports)
    pool.close()


def worked(plane: Plane, client: Client, code: str) -> int:
    """An execution of ``TWO`` that real workers have ended, over HTTP."""
    entry = plane.control.catalog.register(HEAD + TWO % code)
    execution_id = plane.started(entry.path)
    runner = Runner(client, plane.settings, ToolKinds(), {}, name="w1")
    while pointers := plane.pointers():
        for pointer in pointers:
            runner.run(Pointer(**pointer))
        plane.control.advance.advance(execution_id)
    summary = plane.control.executions.get(execution_id)
    assert summary.status == "COMPLETED", summary.error
    return execution_id


def run_cli(url: str, *arguments: str) -> Any:
    outcome = CliRunner().invoke(cli, [*arguments, "--server-url", url])
    assert outcome.exit_code == 0, outcome.output
    return outcome


@pytest.mark.slow
def test_100_mb_go_through_everything_and_come_back_exactly(real: Plane, tmp_path: Path) -> None:
    with served(real.app) as url, Client(url) as client:
        execution_id = worked(real, client, ROWS % 99_000)
        assert client.result(execution_id) == {"n": 99_000}
        expected = json.dumps(
            {"rows": ["x" * 1000] * 99_000, "kind": "test"}, separators=(",", ":")
        )
        outline = client.result_outline(execution_id, "make")
        assert (outline["store"], outline["size_bytes"]) == ("disk", len(expected))
        digest = sha256()
        for piece in client.result_text(execution_id, "make"):
            digest.update(piece)
        assert digest.digest() == sha256(expected.encode()).digest()

        shown = run_cli(url, "result", str(execution_id), "make")
        assert len(shown.output) < 2000
        assert "--out FILE" in shown.output
        out = tmp_path / "make.json"
        run_cli(url, "result", str(execution_id), "make", "--out", str(out))
        assert out.read_text() == expected
    (blob,) = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert blob.stat().st_size == len(expected)


def test_a_result_of_each_tier_is_listed_read_and_resolved(real: Plane) -> None:
    with served(real.app) as url, Client(url) as client:
        for count, store in ((1, "log"), (100, "kv"), (2000, "disk")):
            execution_id = worked(real, client, ROWS % count)
            make, use = client.results(execution_id)
            assert (make["step"], make["store"], use["store"]) == ("make", store, "log")
            assert (make["ref"] is None) == (store == "log")
            whole = {"rows": ["x" * 1000] * count, "kind": "test"}
            assert make["size_bytes"] == len(json.dumps(whole, separators=(",", ":")))
            assert client.result(execution_id, "make") == whole
            assert json.loads(b"".join(client.result_text(execution_id, "make"))) == whole
            if make["ref"]:
                assert make["preview"] == {"kind": "test"}
                assert json.loads(b"".join(client.resolve(make["ref"]))) == whole


def test_an_event_shows_the_reference_with_its_preview(real: Plane) -> None:
    with served(real.app) as url, Client(url) as client:
        execution_id = worked(real, client, ROWS % 2000)
        (event, _) = client.events(execution_id, event_type="call.done")
        reference = event["result"]["reference"]
        assert reference["kind"] == "result_ref"
        assert (reference["store"], reference["bytes"] > 2_000_000) == ("disk", True)
        assert event["result"]["context"] == {"kind": "test"}
        assert len(json.dumps(event)) < 2000


def test_what_is_not_there_is_told(plane: Plane, client: Client) -> None:
    execution_id = plane.started()
    for call in (
        lambda: client.result_outline(execution_id),
        lambda: client.result_outline(1),
        lambda: list(client.result_text(execution_id, "nope")),
        lambda: list(client.resolve(f"noetl://execution/{execution_id}/result/a/1/-1/0")),
        lambda: list(client.resolve("noetl://execution/1/result/a/1/-1/0")),
        lambda: client.results(1),
    ):
        with pytest.raises(NotFoundError):
            call()


@pytest.mark.parametrize(
    "ref",
    ["", "x", "file:///etc/passwd", "noetl://execution/x/y", "noetl://execution/1", "a" * 9999],
)
def test_what_is_no_reference_is_refused(looker: TestClient, ref: str) -> None:
    answer = looker.get("/api/result/resolve", params={"ref": ref})
    assert answer.status_code == 422
    assert len(answer.text) < 1000


def test_a_reference_cannot_lead_to_other_files(real: Plane, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("1")
    execution_id = started(real)
    http = real.client()
    for name in ("../../secret", "..%2F..%2Fsecret", "%2e%2e/secret", "/secret"):
        ref = f"noetl://execution/{execution_id}/{name}"
        assert http.get("/api/result/resolve", params={"ref": ref}).status_code == 404


def started(plane: Plane) -> int:
    return plane.started(plane.control.catalog.register(HEAD + TWO % "result = 1").path)


def test_workers_of_a_pool_read_only_for_what_they_run() -> None:
    plane = build(worker_tokens="default=secret,gpu=other", inline_bytes=100, api_token="admin")
    plane.control.catalog.register(HEAD + TWO % "result = 1")
    execution_id = plane.started("tests/large")
    (first,) = plane.pointers()
    with (
        served(plane.app) as url,
        Client(url, token="secret") as own,
        Client(url, token="other") as gpu,
    ):
        claim = Claim(**first, key="k1")
        own.exchange(Exchange(worker="w", claims=[claim]))
        done = {**first, "key": "k2", "outcome": "done", "result": {"rows": list(range(500))}}
        own.exchange(Exchange.model_validate({"worker": "w", "reports": [done]}))
        plane.control.advance.advance(execution_id)
        (second,) = plane.pointers()
        answer = own.exchange(Exchange(worker="w", claims=[Claim(**second, key="k3")])).claims[0]
        assert answer.variables is not None
        ref = answer.variables.results["make"][REF]["ref"]
        asked = ValueRequest(**second, ref=ref)
        assert json.loads(own.value(asked)) == {"rows": list(range(500))}
        with pytest.raises(ForbiddenError):
            gpu.value(asked)
        with pytest.raises(ForbiddenError):
            list(own.resolve(ref))
        with pytest.raises(BadRequestError):
            own.value(asked.model_copy(update={"ref": "nonsense"}))


def test_the_command_line_prints_small_results_and_points_at_large_ones(real: Plane) -> None:
    with served(real.app) as url, Client(url) as client:
        small = worked(real, client, "result = {'rows': [1, 2, 3]}")
        assert "[1, 2, 3]" in run_cli(url, "result", str(small), "make").output
        large = worked(real, client, ROWS % (SHOWN_BYTES // 1000 + 1))
        shown = run_cli(url, "result", str(large), "--step", "make").output
        assert "kind" in shown
        assert f"callboard result {large} make --out FILE" in shown
        assert len(shown) < 1000
