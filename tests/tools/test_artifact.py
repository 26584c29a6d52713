"""``artifact``: what each way of naming data gives, and how each way of failing is told."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.engine.references import REF, Place, artifact_place, artifact_reference, place_of
from app.errors import ToolError
from app.settings import load
from app.tools import load_tool
from tests.tools.conftest import Call, Known

Fail = Callable[..., ToolError]


@dataclass
class Shelf:
    """Artifacts in a dict, as ``tools.Artifacts`` wants them; results are put in by hand."""

    kept: dict[str, Any] = field(default_factory=dict)

    def get(self, ref: str) -> Any:
        if ref not in self.kept:
            raise ToolError(f"{ref} is gone", kind="not_found")
        return self.kept[ref]

    def put(self, name: str, data: Any) -> dict[str, Any]:
        return self._keep(name, data, json.dumps(data).encode(), "application/json")

    def put_file(self, name: str, path: Path, content_type: str) -> dict[str, Any]:
        return self._keep(name, path.read_bytes(), path.read_bytes(), content_type)

    def _keep(self, name: str, value: Any, content: bytes, kind: str) -> dict[str, Any]:
        digest = sha256(content).hexdigest()
        place = artifact_place(7, name, kind, digest[:32])
        shown = artifact_reference(place, "memory", len(content), kind, digest)
        self.kept[place.ref] = value
        self.kept[f"noetl://execution/7/named/{name}"] = shown
        return shown


RESULT = Place(7, "result/a/1/-1/" + "0" * 32).ref
POINTER = {"kind": "result_ref", "name": "x", "ref": RESULT, "type": "object"}
WHOLE = {REF: POINTER, "_store": "kv", "_size_bytes": 1, "_preview": None}


@pytest.fixture
def shelf() -> Shelf:
    return Shelf({RESULT: {"rows": [1, 2]}})


@pytest.fixture
def artifact(call: Call, shelf: Shelf) -> Call:
    return lambda config, **changes: call("artifact", config, artifacts=shelf, **changes)


@pytest.fixture
def failing(fail: Fail, shelf: Shelf) -> Fail:
    return lambda config, **changes: fail("artifact", config, artifacts=shelf, **changes)


# ---------------------------------------------------------------------- get
@pytest.mark.parametrize(
    "config",
    [
        {"result_ref": POINTER},
        {"result_ref": WHOLE},
        {"result_ref": RESULT},
        {"ref": POINTER},
        {"uri": RESULT},
        {"input": {"result_ref": POINTER}},
        {"action": "get", "input": {"uri": RESULT, "unrelated": 1}},
    ],
    ids=str,
)
def test_a_reference_gives_what_it_stands_for(artifact: Call, config: dict[str, Any]) -> None:
    found = artifact(config)
    assert found["data"] == {"rows": [1, 2]}
    assert (found["status"], found["uri"]) == ("success", RESULT)
    assert found["content_type"] == "application/json"


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (None, "not_found"),
        ({"a": 1}, "success"),
        ({"_ref": None}, "success"),
        ({"_ref": {"kind": "else", "ref": RESULT}}, "success"),
        ({"kind": "thing", "ref": "noetl://x"}, "success"),
        ([1], "success"),
        (0, "success"),
        ("", "success"),
        ("plain text", "success"),
        ("http://host/x", "success"),
    ],
    ids=str,
)
def test_a_value_that_is_no_reference_is_given_back(
    artifact: Call, value: Any, status: str
) -> None:
    assert artifact({"result_ref": value}) == {"status": status, "data": value}
    assert artifact({"input": {"result_ref": value}}) == {"status": status, "data": value}


def test_nothing_at_all_is_not_found(artifact: Call) -> None:
    assert artifact({}) == {"status": "not_found", "data": None}


@pytest.mark.parametrize(
    ("config", "kind", "says"),
    [
        ({"uri": RESULT[:-1] + "1"}, "not_found", "gone"),
        ({"uri": "noetl://execution/x/y"}, "schema", "no reference"),
        ({"uri": "artifact://nobody"}, "not_found", "nobody"),
        ({"uri": "https://host/x"}, "schema", "http tool"),
        ({"uri": "x"}, "schema", "noetl://"),
        ({"uri": "file:///etc/passwd"}, "schema", "workspace"),
        ({"uri": "file://../up"}, "schema", "workspace"),
        ({"uri": "file://a/../../up"}, "schema", "workspace"),
        ({"uri": "file://"}, "schema", "workspace"),
        ({"uri": "file://missing"}, "not_found", "missing"),
        ({"uri": "s3://b/k"}, "auth", "credential"),
        ({"uri": "s3://b/k", "auth": {"user": "x"}}, "auth", "access_key_id"),
        ({"uri": "gs://b/k", "auth": {"user": "x"}}, "auth", "service account"),
        ({"uri": "s3://b", "auth": {"access_key_id": "x"}}, "schema", "no object"),
        ({"action": "put"}, "schema", "data"),
        ({"action": "put", "data": 1, "uri": "noetl://execution/7/x"}, "schema", "artifact://"),
        ({"action": "put", "data": 1, "uri": "https://h/x"}, "schema", "artifact://"),
        ({"action": "put", "data": "%", "encoding": "base64"}, "schema", "base64"),
        ({"action": "put", "data": 3, "format": "binary"}, "schema", "base64"),
        ({"action": "put", "data": [1], "format": "csv"}, "schema", "mappings"),
        ({"action": "put", "data": 1, "uri": "file:///etc/x"}, "schema", "workspace"),
    ],
    ids=str,
)
def test_errors(failing: Fail, config: dict[str, Any], kind: str, says: str) -> None:
    error = failing(config)
    assert (error.kind, error.retryable) == (kind, False)
    assert says in error.message


# ---------------------------------------------------------------------- put
@pytest.mark.parametrize(
    ("config", "data", "kind"),
    [
        ({"data": {"a": [1, None]}}, {"a": [1, None]}, "application/json"),
        ({"data": None}, None, "application/json"),
        ({"data": "héllo"}, "héllo", "text/plain"),
        ({"data": "a,b\n", "name": "t.csv"}, "a,b\n", "text/csv"),
        ({"data": "{}", "name": "t.json"}, "{}", "text/plain"),
        ({"data": "text", "format": "json"}, "text", "application/json"),
        ({"data": "AP8=", "encoding": "base64"}, "AP8=", "application/octet-stream"),
        ({"data": "AP8=", "format": "binary", "name": "x.png"}, "AP8=", "image/png"),
        ({"data": [{"a": 1}, {"b": "x,y"}], "format": "csv"}, 'a,b\n1,\n,"x,y"\n', "text/csv"),
        ({"data": "<a/>", "content_type": "application/xml"}, "<a/>", "application/xml"),
    ],
    ids=str,
)
def test_what_was_put_is_got_by_reference_and_by_name(
    artifact: Call, config: dict[str, Any], data: Any, kind: str
) -> None:
    kept = artifact({"action": "put", **config})
    assert (kept["status"], kept["content_type"]) == ("success", kind)
    assert kept["uri"] == kept[REF]["ref"]
    assert place_of(kept[REF]).execution_id == 7
    assert kept["checksum"].startswith("sha256:")
    for ref in ({"result_ref": kept}, {"result_ref": kept[REF]}, {"uri": kept["uri"]}):
        found = artifact(ref)
        assert (found["data"], found["content_type"]) == (data, kind)
    assert artifact({"uri": f"artifact://{kept['name']}"})["data"] == data
    assert ("encoding" in found) == (data == "AP8=")


def test_the_name_is_given_or_the_uri_s_or_the_step_s(artifact: Call) -> None:
    names = [
        artifact({"action": "put", "data": 1, **more})["name"]
        for more in ({"name": "n", "uri": "artifact://u"}, {"uri": "artifact://u"}, {})
    ]
    assert names == ["n", "u", "probe"]


# ---------------------------------------------------------------------- files
def test_files_below_the_workspace_are_written_and_read(artifact: Call, tmp_path: Path) -> None:
    for uri in ("file://out/a.json", f"file://{tmp_path}/workspace/out/b.json"):
        told = artifact({"action": "put", "data": {"n": 1}, "uri": uri})
        assert (told["uri"], told["size_bytes"]) == (uri, 7)
        assert artifact({"uri": uri})["data"] == {"n": 1}
    assert (tmp_path / "workspace/out/b.json").read_text() == '{"n":1}'


def test_files_that_are_large_or_odd_are_told(
    artifact: Call, failing: Fail, tmp_path: Path
) -> None:
    root = tmp_path / "workspace"
    artifact({"action": "put", "data": "x" * 20, "uri": "file://a.txt"})
    small = load({}, result_bytes=19).settings
    assert failing({"uri": "file://a.txt"}, settings=small).kind == "resource"
    (root / "bytes").write_bytes(b"\xff\0")
    assert artifact({"uri": "file://bytes"})["encoding"] == "base64"
    os.mkfifo(root / "pipe")
    assert failing({"uri": "file://pipe"}).kind == "schema"
    assert failing({"uri": "file://."}).kind == "schema"


@pytest.mark.parametrize("uri", ["file://link", "file://folder/secret", "file://folder/new"])
def test_links_lead_nowhere(failing: Fail, tmp_path: Path, uri: str) -> None:
    outside, root = tmp_path / "outside", tmp_path / "workspace"
    outside.mkdir()
    root.mkdir()
    (outside / "secret").write_text("canary")
    (root / "link").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    for config in ({"uri": uri}, {"action": "put", "data": "x", "uri": uri}):
        error = failing(config)
        assert error.kind in {"storage_access", "not_found"}
        assert "canary" not in error.message
    assert (outside / "secret").read_text() == "canary"
    assert not (outside / "new").exists()


# ---------------------------------------------------------------------- object stores
@dataclass
class Bucket:
    """What an S3 server of the test holds, and what it was sent."""

    url: str = ""
    objects: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    signed: list[str] = field(default_factory=list)


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    pytest.importorskip("obstore", reason="the extra 'objects' is not installed")
    held = Bucket()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            held.objects[self.path] = (body, self.headers["content-type"])
            self._answer(200 if self._known() else 403)

        def do_GET(self) -> None:
            found = held.objects.get(self.path)
            status = 404 if found is None else 200
            self._answer(status if self._known() else 403, *(found or ()))

        def _known(self) -> bool:
            held.signed.append(self.headers["authorization"])
            return "Credential=key-id/" in self.headers["authorization"]

        def _answer(self, status: int, body: bytes = b"", kind: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.send_header("content-type", kind)
            self.send_header("etag", '"1"')
            self.send_header("last-modified", "Tue, 01 Jan 2030 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: tests compare what is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        held.url = f"http://127.0.0.1:{server.server_port}"
        yield held
        server.shutdown()
        thread.join()


def test_objects_are_written_and_read_with_a_credential(
    artifact: Call, failing: Fail, bucket: Bucket
) -> None:
    fields = {
        "access_key_id": "key-id",
        "secret_access_key": "the-canary-key",
        "endpoint": bucket.url,
    }
    secrets = Known(
        {"lake": json.dumps(fields), "other": json.dumps({**fields, "access_key_id": "no"})}
    )
    about = {"uri": "s3://lake/in/a.csv", "credential": "lake"}
    told = artifact({"action": "put", "data": "a,b\n", **about}, secrets=secrets)
    assert (told["status"], told["content_type"], told["size_bytes"]) == ("success", "text/csv", 4)
    assert bucket.objects == {"/lake/in/a.csv": (b"a,b\n", "text/csv")}
    assert artifact(about, secrets=secrets)["data"] == "a,b\n"
    missing = failing({**about, "uri": "s3://lake/nothing"}, secrets=secrets)
    assert (missing.kind, missing.retryable) == ("not_found", False)
    denied = failing({**about, "credential": "other"}, secrets=secrets)
    assert (denied.kind, denied.retryable) == ("auth", False)
    large = failing(about, secrets=secrets, settings=load({}, result_bytes=3).settings)
    assert large.kind == "resource"
    for error in (missing, denied, large):
        assert "the-canary-key" not in f"{error} {error.to_dict()}"
        assert error.__cause__ is None, "the cause holds the request"


def test_an_object_store_that_is_away_is_worth_another_try(failing: Fail) -> None:
    pytest.importorskip("obstore", reason="the extra 'objects' is not installed")
    auth = {"access_key_id": "x", "secret_access_key": "y", "endpoint": "http://127.0.0.1:1"}
    error = failing({"uri": "s3://b/k", "auth": auth})
    assert (error.kind, error.retryable) == ("connection", True)


@pytest.mark.parametrize(
    ("scheme", "place"),
    [
        ("s3", {"endpoint": "http://169.254.169.254"}),
        ("s3", {"endpoint": "http://[::ffff:a9fe:a9fe]"}),
        ("s3", {"endpoint_url": "http://127.0.0.1:8082"}),
        ("s3", {"region": "x.example/?"}),
        ("gs", {"private_key": "k", "gcs_base_url": "http://169.254.169.254"}),
        ("gs", {"service_account_key": '{"token_uri": "http://169.254.169.254/token"}'}),
    ],
)
@pytest.mark.parametrize("action", ["get", "put"])
def test_a_store_is_nowhere_that_http_may_not_go(
    failing: Fail, action: str, scheme: str, place: dict[str, Any]
) -> None:
    auth = {"access_key_id": "x", "secret_access_key": "y", **place}
    error = failing({"action": action, "data": 1, "uri": f"{scheme}://b/k", "auth": auth})
    assert error.error_code == "refused_address" or "no region" in error.message
    assert not error.retryable


# ---------------------------------------------------------------------- as written
def test_the_keys_are_checked_before_it_runs() -> None:
    tool = load_tool("artifact")
    assert tool.complaints({"action": "get", "input": {"result_ref": "{{ a._ref }}"}}) == []
    (complaint,) = tool.complaints({"action": "take"})
    assert "action" in complaint.path


def test_bytes_of_the_control_plane_are_given_in_base64(artifact: Call, shelf: Shelf) -> None:
    place = artifact_place(7, "x.bin", "application/octet-stream", "0" * 32)
    shelf.kept[place.ref] = b"\0\xff"
    found = artifact({"uri": place.ref})
    assert base64.b64decode(found["data"]) == b"\0\xff"
    assert found["encoding"] == "base64"
