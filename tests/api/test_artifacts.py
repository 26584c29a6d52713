"""Artifacts over HTTP: a worker's step keeps one, another reads it, a client downloads it."""

from __future__ import annotations

import socket
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from app.actors.steps import Runner
from app.api.app import create_app
from app.blobs.directory import DirectoryBlobs
from app.client import Client
from app.engine.ports import Pointer
from app.errors import (
    BadRequestError,
    CallboardError,
    ForbiddenError,
    NotFoundError,
    UnauthorizedError,
)
from app.services.control import Ports, control
from app.settings import Settings
from app.store.ids import Snowflake
from app.store.memory import MemoryCatalog, MemoryLog, MemoryRuntime
from app.wire import ArtifactRequest, Claim, Exchange
from app.wiring import ToolKinds, memory_custody
from tests.api.plane import Plane, Probe, Recorder, served

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: kept, path: tests/kept}\n"
PUT_AND_GET = """
workflow:
- step: keep
  tool: {kind: artifact, action: put, filename: report.csv, data: "a,b\\n1,2\\n"}
  next: {arcs: [{step: read}]}
- step: read
  tool: {kind: artifact, action: get, input: {result_ref: "{{ keep._ref }}"}}
  next: {arcs: [{step: by_name}]}
- step: by_name
  tool: {kind: artifact, action: get, uri: "artifact://report.csv"}
"""


def plane_of(tmp_path: Path, **given: Any) -> Plane:
    """The API in memory, with blobs in a folder."""
    settings = Settings(home=tmp_path, **given)
    recorder, probe, runtime = Recorder(), Probe(), MemoryRuntime()
    ports = Ports(
        events=MemoryLog(runtime),
        catalog=MemoryCatalog(),
        runtime=runtime,
        dispatcher=recorder,
        kinds=ToolKinds(),
        clock=lambda: 1_800_000_000.0,
        new_id=Snowflake(),
        custody=memory_custody(),
        blobs=DirectoryBlobs(tmp_path / "blobs"),
    )
    built = control(ports, settings)
    return Plane(settings, built, recorder, probe, create_app(built, settings, health=probe), ports)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[tuple[Plane, str]]:
    plane = plane_of(tmp_path)
    with served(plane.app) as url:
        yield plane, url


def running(plane: Plane, client: Client) -> dict[str, Any]:
    """The first step of an execution, claimed by worker w."""
    plane.control.catalog.register(HEAD + PUT_AND_GET)
    plane.started("tests/kept")
    (pointer,) = plane.pointers()
    claim = Claim(**pointer, key=plane.key())
    assert client.exchange(Exchange(worker="w", claims=[claim])).claims[0].granted
    return pointer


def asked(pointer: dict[str, Any], content: bytes, **changes: Any) -> ArtifactRequest:
    about = {"worker": "w", "name": "x.html", "content_type": "text/html", **changes}
    digest = sha256(content).hexdigest()
    return ArtifactRequest(**{**pointer, "digest": digest, "size": len(content), **about})


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_steps_keep_and_read_artifacts_and_clients_download_them(kept: tuple[Plane, str]) -> None:
    plane, url = kept
    plane.control.catalog.register(HEAD + PUT_AND_GET)
    execution_id = plane.started("tests/kept")
    with Client(url) as client:
        runner = Runner(client, plane.settings, ToolKinds(), {}, name="w1")
        while pointers := plane.pointers():
            for pointer in pointers:
                runner.run(Pointer(**pointer))
            plane.control.advance.advance(execution_id)
        summary = plane.control.executions.get(execution_id)
        assert summary.status == "COMPLETED", summary.error
        for step in ("read", "by_name"):
            assert client.result(execution_id, step)["data"] == "a,b\n1,2\n"
        shown = client.result(execution_id, "keep")
        assert b"".join(client.download(shown["uri"])) == b"a,b\n1,2\n"
    answer = plane.client().get("/api/artifacts", params={"ref": shown["uri"]})
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''report.csv"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-length"] == "8"
    assert sha256(answer.content).hexdigest() == shown["checksum"].removeprefix("sha256:")


def test_a_large_one_passes_in_pieces(kept: tuple[Plane, str], tmp_path: Path) -> None:
    plane, url = kept
    piece, count = b"0123456789abcdef" * 65_536, 64
    digest = sha256()
    for _ in range(count):
        digest.update(piece)
    with Client(url) as client:
        given = asked(running(plane, client), b"", size=len(piece) * count)
        given = given.model_copy(update={"digest": digest.hexdigest()})
        tracemalloc.start()
        answer = client.artifact(given, lambda: (piece for _ in range(count)))
        back = sha256()
        for part in client.download(answer.ref):
            back.update(part)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert back.digest() == digest.digest()
    # Server and client together; as a whole it would be 64 MiB at the least.
    assert peak < 24 << 20
    (blob,) = files(tmp_path / "blobs")
    assert blob.stat().st_size == len(piece) * count


def test_a_page_is_a_file_and_no_page_of_ours(kept: tuple[Plane, str]) -> None:
    plane, url = kept
    with Client(url) as client:
        ref = client.artifact(asked(running(plane, client), b"<script>"), lambda: [b"<script>"]).ref
    headers = plane.client().get("/api/artifacts", params={"ref": ref}).headers
    assert headers["content-disposition"].startswith("attachment;")
    assert headers["content-security-policy"] == "sandbox"


def test_what_is_there_is_not_sent_again(kept: tuple[Plane, str]) -> None:
    plane, url = kept
    with Client(url) as client:
        given = asked(running(plane, client), b"abc")
        sent: list[int] = []

        def pieces() -> Iterator[bytes]:
            sent.append(1)
            yield b"abc"

        assert client.artifact(given, pieces) == client.artifact(given, pieces)
        assert sent == [1]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"size": 1 << 40}, CallboardError),
        ({"worker": "other"}, ForbiddenError),
        ({"attempt": 9}, ForbiddenError),
        ({"content_type": "x"}, BadRequestError),
        ({"digest": "0" * 64}, BadRequestError),
        ({"size": 3}, BadRequestError),
    ],
    ids=str,
)
def test_what_is_refused_leaves_nothing(
    kept: tuple[Plane, str], tmp_path: Path, changes: dict[str, Any], error: type[Exception]
) -> None:
    plane, url = kept
    with Client(url) as client:
        given = asked(running(plane, client), b"abcd").model_copy(update=changes)
        with pytest.raises(error):
            client.artifact(given, lambda: [b"abcd"[: given.size]])
    assert files(tmp_path / "blobs") == []


def test_a_sender_that_goes_away_leaves_nothing(kept: tuple[Plane, str], tmp_path: Path) -> None:
    plane, url = kept
    gone = threading.Event()
    put = plane.control.artifacts.put

    def noticing(*arguments: Any, **named: Any) -> Any:
        try:
            return put(*arguments, **named)
        finally:
            gone.set()

    plane.app.state.control = replace(plane.control, artifacts=_With(noticing))  # type: ignore[arg-type]  # all that the route asks for
    with Client(url) as client:
        given = asked(running(plane, client), b"x" * 1000)
    host = urlsplit(url)
    with socket.create_connection((str(host.hostname), host.port)) as connection:
        query = urlencode(given.model_dump())
        connection.sendall(
            f"PUT /api/worker/artifacts?{query} HTTP/1.1\r\nhost: localhost\r\n"
            f"content-length: 1000\r\n\r\n{'x' * 500}".encode()
        )
    assert gone.wait(20)
    assert files(tmp_path / "blobs") == []
    assert not plane.control.artifacts.offer(given).kept


class _With:
    """The use cases of artifacts with another ``put``."""

    def __init__(self, put: Any) -> None:
        self.put = put


@pytest.mark.parametrize(
    ("ref", "status"),
    [
        ("", 422),
        ("x", 422),
        ("file:///etc/passwd", 422),
        ("noetl://execution/1/result/a/1/-1/0", 422),
        ("noetl://execution/1/artifact/text/plain/a/0", 404),
        ("noetl://execution/1/artifact/../../../etc/passwd", 404),
        ("noetl://execution/1/artifact/", 404),
    ],
)
def test_what_cannot_be_downloaded(kept: tuple[Plane, str], ref: str, status: int) -> None:
    answer = kept[0].client().get("/api/artifacts", params={"ref": ref})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_query_that_says_too_little_is_told_what(kept: tuple[Plane, str]) -> None:
    answer = kept[0].client().put("/api/worker/artifacts", params={"name": "x"}, content=b"")
    assert answer.status_code == 422
    assert "execution_id" in answer.json()["detail"]


def test_tokens_of_pools_keep_but_do_not_download(tmp_path: Path) -> None:
    plane = plane_of(tmp_path, worker_tokens="default=secret,gpu=other", api_token="admin")
    with (
        served(plane.app) as url,
        Client(url, token="secret") as own,
        Client(url, token="other") as gpu,
        Client(url, token="admin") as admin,
        Client(url) as nobody,
    ):
        given = asked(running(plane, own), b"abc")
        with pytest.raises(ForbiddenError):
            gpu.artifact(given, lambda: [b"abc"])
        with pytest.raises(UnauthorizedError):
            nobody.artifact(given, lambda: [b"abc"])
        ref = own.artifact(given, lambda: [b"abc"]).ref
        with pytest.raises(ForbiddenError):
            list(own.download(ref))
        assert list(admin.download(ref)) == [b"abc"]
        with pytest.raises(NotFoundError):
            list(admin.download(f"{ref}0"))
