"""Files of the http tool: those sent as multipart, and answers kept by reference."""

from __future__ import annotations

import base64
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from app.errors import ToolError
from app.tools import Context, NoArtifacts
from tests.tools.server import running


@dataclass(slots=True)
class Kept(NoArtifacts):
    """Artifacts in memory, with the shape of a real reference."""

    files: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def get(self, ref: str) -> Any:
        if ref not in self.values:
            raise ToolError(f"{ref} does not exist", kind="not_found")
        return self.values[ref]

    def put_file(self, name: str, path: Path, content_type: str) -> dict[str, Any]:
        content = path.read_bytes()
        self.files[name] = (content, content_type)
        ref = {"kind": "artifact_ref", "ref": f"noetl://{name}", "content_type": content_type}
        return {"_ref": ref, "_size_bytes": len(content), "_store": "disk", "_preview": None}


@pytest.fixture
def server() -> Iterator[Any]:
    with running() as served:
        yield served


@pytest.fixture
def kept() -> Kept:
    return Kept()


# ---------------------------------------------------------------------- sent
PNG = b"\x89PNG\x00\xff"


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        pytest.param({"f": "text"}, [b'name="f"; filename="f"', b"text"], id="text by field"),
        pytest.param(
            {"f": {"filename": "a.csv", "content": "1,2", "content_type": "text/csv"}},
            [b'name="f"; filename="a.csv"', b"Content-Type: text/csv", b"1,2"],
            id="with a name and a type",
        ),
        pytest.param(
            [{"name": "f", "filename": "a"}, {"name": "f", "filename": "b", "content": {"x": 1}}],
            [b'name="f"; filename="a"', b'name="f"; filename="b"', b'{"x":1}'],
            id="a list, the same field twice",
        ),
        pytest.param(
            {"f": {"content": base64.b64encode(PNG).decode(), "encoding": "base64"}},
            [PNG],
            id="base64",
        ),
        pytest.param({"f": {"content_base64": "iVBORwD/"}}, [PNG], id="base64 under its own key"),
        pytest.param({"f": {"ref": "noetl://png"}}, [PNG], id="an artifact"),
        pytest.param(
            {"f": {"_ref": {"ref": "noetl://text"}, "_store": "disk"}},
            [b"grus"],
            id="a result that is a reference",
        ),
        pytest.param(
            {"f": {"filename": "a.png", "content": {"_ref": "noetl://png"}}},
            [b'filename="a.png"', PNG],
            id="one with a name of its own",
        ),
        pytest.param({"f": {"content": {"_ref": 7}}}, [b'{"_ref":7}'], id="data like a reference"),
        pytest.param({"f": "noetl://json"}, [b'{"a":1}'], id="an artifact that is JSON"),
    ],
)
def test_files_are_sent_as_multipart(
    call: Any, server: Any, kept: Kept, files: Any, parts: list[bytes]
) -> None:
    kept.values = {"noetl://png": PNG, "noetl://text": "grus", "noetl://json": {"a": 1}}
    config = {"url": server.url, "method": "POST", "files": files, "form": {"note": "n"}}
    asked = call("http", config, artifacts=kept)["data"]
    assert asked["headers"]["content-type"].startswith("multipart/form-data; boundary=")
    raw = base64.b64decode(asked["raw"])
    for part in [*parts, b'name="note"\r\n\r\nn']:
        assert part in raw


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        pytest.param({"f": {"content": "§", "encoding": "base64"}}, "schema", id="no base64"),
        pytest.param(["f"], "schema", id="a list of names"),
        pytest.param({"f": {"ref": "noetl://gone"}}, "not_found", id="an artifact that is gone"),
    ],
)
def test_files_that_cannot_be_sent(
    fail: Any, server: Any, kept: Kept, files: Any, kind: str
) -> None:
    config = {"url": server.url, "method": "POST", "files": files}
    assert fail("http", config, artifacts=kept).kind == kind
    assert server.asked == []


# ---------------------------------------------------------------------- received
@pytest.mark.parametrize(
    ("path", "config", "name", "content", "kind"),
    [
        pytest.param("large/4096", {}, "4096", b"x" * 4096, "text/plain", id="above the limit"),
        pytest.param(
            "binary", {"save_as": "a.bin"}, "a.bin", b"\xff\x00\xfe", "application/octet-stream",
            id="under a name, however small",
        ),
        pytest.param(
            "gzip", {"response_type": "file"}, "gzip", b'{"a": 1}', "application/json",
            id="as a file, unpacked",
        ),
        pytest.param(
            "empty", {"response_type": "file"}, "empty", b"", "application/json", id="nothing at all"
        ),
        pytest.param(
            "", {"save_as": "a", "method": "HEAD"}, "a", b"", "application/json", id="no body"
        ),
    ],
)  # fmt: skip
def test_answers_kept_by_reference(
    call: Any, context: Context, server: Any, kept: Kept, *, path: str, config: dict[str, Any],
    name: str, content: bytes, kind: str,
) -> None:  # fmt: skip
    settings = replace(context.settings, http_inline_bytes=2048)
    config = {"url": f"{server.url}/{path}", **config}
    result = call("http", config, artifacts=kept, settings=settings)
    assert kept.files == {name: (content, kind)}
    assert result["data"]["_ref"]["ref"] == f"noetl://{name}"
    assert result["data"] == result["body"]
    assert list(context.workspace.iterdir()) == []


def test_an_answer_at_the_limit_stays_data(
    call: Any, context: Context, server: Any, kept: Kept
) -> None:
    settings = replace(context.settings, http_inline_bytes=2048)
    config = {"url": f"{server.url}/large/2048"}
    assert call("http", config, artifacts=kept, settings=settings)["data"] == "x" * 2048
    assert not context.workspace.exists()


def test_a_failed_answer_is_no_file(fail: Any, server: Any, kept: Kept) -> None:
    error = fail("http", {"url": f"{server.url}/status/404", "save_as": "a"}, artifacts=kept)
    assert error.data["data"] == {"why": "asked for"}
    assert kept.files == {}


def test_of_a_long_error_the_beginning_is_kept(fail: Any, context: Context, server: Any) -> None:
    settings = replace(context.settings, http_inline_bytes=10)
    error = fail("http", {"url": f"{server.url}/wrong/100000"}, settings=settings)
    assert (error.data["data"], error.data["truncated"]) == ("x" * 10, True)
    assert error.error_code == "HTTP_400"


@pytest.mark.parametrize("path", ["bomb", "large/2048"])
@pytest.mark.parametrize("inline", [100, 1_000_000])
def test_an_answer_above_the_limit_is_refused_clearly(
    fail: Any, context: Context, server: Any, kept: Kept, *, path: str, inline: int
) -> None:
    settings = replace(context.settings, http_inline_bytes=inline, http_bytes=1024)
    error = fail("http", {"url": f"{server.url}/{path}"}, settings=settings, artifacts=kept)
    assert error.kind == "resource"
    assert "CALLBOARD_HTTP_BYTES" in error.message
    assert kept.files == {}
    assert not context.workspace.exists() or list(context.workspace.iterdir()) == []


def test_a_large_answer_takes_little_memory(
    call: Any, context: Context, server: Any, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def measured(_name: str, path: Path, _kind: str) -> dict[str, Any]:
        sizes.extend([path.stat().st_size, tracemalloc.get_traced_memory()[1]])
        return {}

    monkeypatch.setattr(Kept, "put_file", staticmethod(measured))
    settings = replace(context.settings, http_inline_bytes=65_536)
    call("http", {"url": server.url})  # what is loaded once
    tracemalloc.start()
    try:
        call("http", {"url": f"{server.url}/bomb"}, artifacts=kept, settings=settings)
    finally:
        tracemalloc.stop()
    assert sizes[0] == 20_000_000
    # A piece is a MiB at most, held once packed out and once on its way; 20 MB never are.
    assert sizes[1] < 8_000_000
