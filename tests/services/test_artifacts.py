"""Artifacts: who may keep them, who may read them, and that they are what they were."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from app.actors.artifacts import KeptArtifacts, masked
from app.actors.fetching import Asker, Fetcher
from app.blobs.memory import MemoryBlobs
from app.engine.masking import Masker
from app.engine.ports import Pointer
from app.engine.references import REF, artifact_place, is_reference, place_of
from app.errors import BadRequestError, ForbiddenError, ToolError, UnavailableError
from app.services.artifacts import TooLargeError
from app.services.control import control
from app.services.desk import Desk
from app.services.reading import MissingValueError
from app.settings import load
from app.wire import ArtifactRequest
from tests.services.conftest import Bench

ONE = "workflow: [{step: start, tool: {kind: noop}}]"
CALLS = """
workflow:
- {step: make, next: {arcs: [{step: call}]}}
- step: call
  tool: {kind: playbook, path: child, return_result: true, input: {ref: "{{ make.ref }}"}}
  next: {arcs: [{step: use}]}
- {step: use, tool: {kind: noop, result: "{{ call.ref }}"}}
"""
Made = tuple[Bench, Pointer]


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """A bench with a blob store, and small limits."""
    plain = make_bench(artifact_bytes=1000, result_bytes=500)
    ports = replace(plain.ports, blobs=MemoryBlobs())
    settings = load({}, eager=False, artifact_bytes=1000, result_bytes=500).settings
    return Bench(control(ports, settings), ports, plain.dispatcher, plain.now)


def running(bench: Bench, workflow: str = ONE) -> Pointer:
    """A step that worker w1 runs."""
    (pointer,) = bench.advance(bench.start(workflow))
    assert bench.claim(pointer).granted
    return pointer


def request(pointer: Pointer, content: bytes = b"abc", **changes: Any) -> ArtifactRequest:
    digest = sha256(content).hexdigest()
    about = {"name": "a.txt", "content_type": "text/plain", "worker": "w1", **changes}
    return ArtifactRequest(**pointer._asdict(), **{"digest": digest, "size": len(content), **about})


def keeper(bench: Bench, pointer: Pointer, *secrets: str, worker: str = "w1") -> KeptArtifacts:
    """What the tool of that attempt has."""
    masker = Masker()
    masker.add(*secrets)
    asker = Asker(pointer, threading.Event(), time.monotonic() + 30)
    settings = load({}, eager=False, artifact_bytes=1000).settings
    return KeptArtifacts(Fetcher(Desk(bench.control)), asker, worker, masker, settings)


# ---------------------------------------------------------------------- keeping and reading
def test_a_secret_in_a_name_is_masked(bench: Bench) -> None:
    pointer = running(bench)
    kept = keeper(bench, pointer, "canary-in-name")
    shown = kept.put("bot-canary-in-name", 1)
    assert "canary" not in str(shown)
    assert kept.get(shown[REF]["ref"]) == 1
    named = f"noetl://execution/{pointer.execution_id}/named/bot-{{}}"
    assert kept.get(named.format("canary-in-name")) == kept.get(named.format("***"))
    with pytest.raises(ToolError, match="is gone"):
        keeper(bench, pointer).get(named.format("canary-in-name"))


@pytest.mark.parametrize("value", [{"n": [1, None]}, "text", None, 0, []], ids=str)
def test_data_comes_back(bench: Bench, value: Any) -> None:
    kept = keeper(bench, running(bench))
    shown = kept.put("report", value)
    assert (shown[REF]["kind"], shown["_store"], shown["_preview"]) == (
        "artifact_ref",
        "memory",
        None,
    )
    assert not is_reference(shown), "templates must not fetch it by themselves"
    assert kept.get(shown[REF]["ref"]) == value


@pytest.mark.parametrize(
    ("content", "kind", "value"),
    [
        (b"a,b\n", "text/csv", "a,b\n"),
        (b'{"a": 1}', "application/json", {"a": 1}),
        (b"{", "application/json", "{"),
        (b"\xff\0", "application/octet-stream", b"\xff\0"),
        (b"\xff\0", "text/plain; charset=utf-8", b"\xff\0"),
        (b"", "text/plain", ""),
    ],
)
def test_files_come_back_as_what_they_are(
    bench: Bench, tmp_path: Path, content: bytes, kind: str, value: Any
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    kept = keeper(bench, running(bench))
    shown = kept.put_file("a b/ü.bin", path, kind)
    assert shown["_size_bytes"] == len(content)
    assert shown[REF]["checksum"] == f"sha256:{sha256(content).hexdigest()}"
    assert kept.get(shown[REF]["ref"]) == value
    download = bench.control.artifacts.download(shown[REF]["ref"])
    assert b"".join(download.pieces) == content
    assert (download.name, download.size) == ("ü.bin", len(content))
    assert download.content_type == kind.partition(";")[0]


def test_a_name_leads_to_the_newest(bench: Bench) -> None:
    pointer = running(bench)
    kept = keeper(bench, pointer)
    named = f"noetl://execution/{pointer.execution_id}/named/report"
    for value in (1, 2, 1):
        shown = kept.put("report", value)
        assert kept.get(named)[REF]["ref"] == shown[REF]["ref"]
        assert kept.get(kept.get(named)[REF]["ref"]) == value


def test_what_is_there_is_not_sent_again(bench: Bench) -> None:
    given = request(running(bench))
    artifacts = bench.control.artifacts
    assert not artifacts.offer(given).kept
    artifacts.put(given, [b"a", b"bc"])
    assert artifacts.offer(given).kept


# ---------------------------------------------------------------------- what is refused
@pytest.mark.parametrize("pieces", [[], [b"ab"], [b"abd"], [b"abc", b"d"], [b"x" * 10**6]], ids=len)
def test_other_bytes_than_announced_are_not_kept(bench: Bench, pieces: list[bytes]) -> None:
    given = request(running(bench))
    with pytest.raises(BadRequestError, match="announced"):
        bench.control.artifacts.put(given, pieces)
    assert not bench.control.artifacts.offer(given).kept


def test_a_sender_that_says_too_little_is_not_read_to_its_end(bench: Bench) -> None:
    taken = []

    def pieces() -> Iterator[bytes]:
        for number in range(100):
            taken.append(number)
            yield b"x" * 100

    with pytest.raises(BadRequestError):
        bench.control.artifacts.put(request(running(bench)), pieces())
    assert len(taken) == 1


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"size": 1001}, TooLargeError),
        ({"worker": "w2"}, ForbiddenError),
        ({"attempt": 2}, ForbiddenError),
        ({"step": "other"}, ForbiddenError),
        ({"visit": 2}, ForbiddenError),
        ({"execution_id": 1}, ForbiddenError),
        ({"name": "a\nb"}, BadRequestError),
        ({"name": " "}, BadRequestError),
        ({"content_type": "text"}, BadRequestError),
        ({"content_type": "text/plain/x"}, BadRequestError),
        ({"content_type": "../x"}, BadRequestError),
    ],
    ids=str,
)
def test_what_may_not_be_kept_is_refused_before_it_is_sent(
    bench: Bench, changes: dict[str, Any], error: type[Exception]
) -> None:
    given = request(running(bench)).model_copy(update=changes)
    sent: list[bytes] = []

    def pieces() -> Iterator[bytes]:
        sent.append(b"")
        yield b""

    with pytest.raises(error):
        bench.control.artifacts.offer(given)
    with pytest.raises(error):
        bench.control.artifacts.put(given, pieces())
    assert sent == []


def test_only_a_running_attempt_keeps_artifacts(bench: Bench) -> None:
    (unclaimed,) = bench.advance(bench.start(ONE))
    ended, cancelled = running(bench), running(bench)
    assert bench.report(ended, 1).accepted
    bench.control.executions.cancel(cancelled.execution_id)
    for pointer in (unclaimed, ended, cancelled):
        with pytest.raises(ForbiddenError):
            bench.control.artifacts.offer(request(pointer))


def test_a_pool_keeps_artifacts_of_its_own_steps_alone(bench: Bench) -> None:
    given = request(running(bench))
    assert not bench.control.artifacts.offer(given, pool="default").kept
    with pytest.raises(ForbiddenError):
        bench.control.artifacts.offer(given, pool="other")


def test_without_a_store_there_are_no_artifacts(make_bench: Callable[..., Bench]) -> None:
    bare = make_bench()
    with pytest.raises(UnavailableError, match="CALLBOARD_BLOBS"):
        bare.control.artifacts.offer(request(running(bare)))


def test_a_large_one_is_not_read_at_once_but_downloaded(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 501)
    kept = keeper(bench, running(bench))
    ref = kept.put_file("large", path, "text/plain")[REF]["ref"]
    with pytest.raises(ToolError, match="CALLBOARD_RESULT_BYTES"):
        kept.get(ref)
    assert sum(map(len, bench.control.artifacts.download(ref).pieces)) == 501
    path.write_bytes(b"x" * 1001)
    with pytest.raises(ToolError, match="CALLBOARD_ARTIFACT_BYTES") as caught:
        kept.put_file("larger", path, "text/plain")
    assert caught.value.kind == "resource"


def test_damage_is_noticed_before_the_last_byte(bench: Bench) -> None:
    given = request(running(bench))
    answer = bench.control.artifacts.put(given, [b"abc"])
    place, blobs = place_of(answer.ref), bench.ports.blobs
    assert blobs is not None
    key = f"{place.execution_id}/{place.name}"
    blobs.put(key, b"abd")
    with pytest.raises(MissingValueError, match="damaged"):
        list(bench.control.artifacts.download(answer.ref).pieces)
    blobs.delete(key)
    with pytest.raises(MissingValueError, match="gone"):
        bench.control.artifacts.download(answer.ref)


@pytest.mark.parametrize(
    ("ref", "kind"),
    [
        ("nonsense", "schema"),
        ("noetl://execution/{own}/artifact/text/plain/x/0", "not_found"),
        ("noetl://execution/{own}/named/x", "not_found"),
        ("noetl://execution/1/artifact/text/plain/x/0", "auth"),
    ],
)
def test_references_to_nothing(bench: Bench, ref: str, kind: str) -> None:
    pointer = running(bench)
    with pytest.raises(ToolError) as caught:
        keeper(bench, pointer).get(ref.format(own=pointer.execution_id))
    assert (caught.value.kind, caught.value.retryable) == (kind, False)


# ---------------------------------------------------------------------- families
def test_a_forged_reference_does_not_read_another_execution(bench: Bench) -> None:
    victim = keeper(bench, running(bench))
    ref = victim.put("secret", "canary")[REF]["ref"]
    assert victim.get(ref) == "canary"
    thief = keeper(bench, running(bench))
    # The same process has read it already: what it keeps for others must not answer.
    thief = replace(thief, fetcher=victim.fetcher)
    for forged in (ref, f"noetl://execution/{place_of(ref).execution_id}/named/secret"):
        with pytest.raises(ToolError) as caught:
            thief.get(forged)
        assert caught.value.kind == "auth"
        assert "canary" not in str(caught.value)


def test_parent_and_children_read_what_they_hand_each_other(bench: Bench) -> None:
    bench.register(ONE, "child")
    parent = bench.start(CALLS)
    (made,) = bench.advance(parent)
    bench.claim(made)
    from_parent = keeper(bench, made).put("down", [1])[REF]["ref"]
    bench.report(made, {"ref": from_parent})
    assert bench.advance(parent) == []
    (child,) = bench.children(parent)
    (pointer,) = bench.advance(child)
    bench.claim(pointer)
    of_child = keeper(bench, pointer)
    assert of_child.get(from_parent) == [1]
    from_child = of_child.put("up", [2])[REF]["ref"]
    bench.report(pointer, {"ref": from_child})
    bench.advance(child)
    (using,) = bench.advance(parent)
    bench.claim(using)
    assert keeper(bench, using).get(from_child) == [2]
    stranger = running(bench)
    for ref in (from_parent, from_child):
        with pytest.raises(ToolError, match="may not read"):
            keeper(bench, stranger).get(ref)


# ---------------------------------------------------------------------- secrets
SECRET = "s3cr3t-canary-value"


def test_secrets_are_masked_in_what_is_kept(bench: Bench, tmp_path: Path) -> None:
    kept = keeper(bench, running(bench), SECRET)
    data = kept.get(kept.put("data", {"token": f"Bearer {SECRET}", "n": 1})[REF]["ref"])
    assert data == {"token": "Bearer ***", "n": 1}
    path = tmp_path / "file"
    path.write_text(f"a {SECRET} b")
    shown = kept.put_file("text", path, "text/csv")
    assert kept.get(shown[REF]["ref"]) == "a *** b"
    assert shown["_size_bytes"] == len("a *** b")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 18, 19, 20, 64, 1000])
def test_secrets_that_lie_across_pieces_are_masked(size: int) -> None:
    masker = Masker()
    masker.add(SECRET, "pin1")
    text = f"é{SECRET}|{SECRET}{SECRET} pin1 xpin1 pin12 {'filler ' * 30}{SECRET}".encode()
    text += b"\xff\xfe end pin1"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    whole = masker.text(text.decode("utf-8", "surrogateescape"))
    assert b"".join(masked(pieces, masker)) == whole.encode("utf-8", "surrogateescape")
    assert SECRET not in whole
    assert "xpin1 pin12" in whole


# ---------------------------------------------------------------------- outages
def test_an_outage_is_waited_for_and_a_stop_ends_the_wait(bench: Bench) -> None:
    kept = keeper(bench, running(bench))
    tries = []

    class Flaky(Desk):
        def artifact(self, *arguments: Any) -> Any:
            tries.append(1)
            if len(tries) < 3:
                raise UnavailableError("away")
            return super().artifact(*arguments)

    flaky = replace(kept, fetcher=Fetcher(Flaky(bench.control)))
    assert kept.get(flaky.put("a", 1)[REF]["ref"]) == 1
    assert len(tries) == 3
    tries.clear()
    flaky.asker.stop.set()
    with pytest.raises(ToolError, match="stopped"):
        flaky.put("b", 2)
    assert not tries


def test_a_place_tells_what_it_is_made_of() -> None:
    place = artifact_place(7, "a/b c.csv", "Text/CSV; charset=utf-8", "0" * 32)
    assert place.name == f"artifact/text/csv/a/b c.csv/{'0' * 32}"
    assert place_of(place.ref) == place
