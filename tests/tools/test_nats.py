"""``nats`` on a real server: what each operation gives, and how each way of failing is told."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from app.brokers.subjects import Subjects
from app.embedded.nats import EmbeddedNats
from app.errors import ToolError
from app.local import run_playbook
from app.settings import load
from app.tools import Context, load_tool
from app.tools.bus.connections import Connections, connections
from app.tools.bus.servers import public_key, server_of
from app.tools.bus.values import OUR_STREAMS, OUR_SUBJECTS
from tests.tools.conftest import Call, Known

Fail = Callable[..., ToolError]


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    connections.close()


@pytest.fixture
def ask(call: Call, nats: str) -> Call:
    """``ask(operation, key=…)`` on the session's server."""
    return lambda operation, **keys: call("nats", {"operation": operation, "url": nats, **keys})


@pytest.fixture
def refuse(fail: Fail, nats: str) -> Fail:
    def run(operation: str, *, context: dict[str, Any] | None = None, **keys: Any) -> ToolError:
        config = {"operation": operation, "url": nats, **keys}
        return fail("nats", config, **(context or {}))

    return run


@pytest.fixture
def fresh() -> str:
    return f"b{uuid.uuid4().hex[:12]}"


@pytest.fixture
def stream(nats: str, fresh: str) -> str:
    """A stream of that name with the subjects ``<name>.>``."""

    async def make() -> None:
        client = Client()
        await client.connect(nats)
        await client.jetstream().add_stream(name=fresh, subjects=[f"{fresh}.>"])
        await client.close()

    asyncio.run(make())
    return fresh


# ---------------------------------------------------------------------- keys
@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"a": [1, None]}, {"a": [1, None]}),
        ("plain text", "plain text"),
        ('{"json": "text"}', {"json": "text"}),
        (0, 0),
        (None, None),
        ("", ""),
        ("ü \U0001f600", "ü \U0001f600"),
    ],
    ids=str,
)
def test_what_was_put_is_got(ask: Call, fresh: str, given: Any, value: Any) -> None:
    put = ask("kv_put", bucket=fresh, key="a.b/c", value=given)
    assert put == {
        "status": "success",
        "bucket": fresh,
        "key": "a.b/c",
        "revision": 1,
        "bucket_created": True,
    }
    found = ask("kv_get", bucket=fresh, key="a.b/c")
    assert (found["status"], found["value"], found["revision"]) == ("success", value, 1)
    assert found["created"].startswith("20")


def test_bytes_are_put_and_got_as_base64(ask: Call, fresh: str) -> None:
    text = base64.b64encode(b"\xff\0").decode()
    ask("kv_put", bucket=fresh, key="k", value=text, encoding="base64")
    found = ask("kv_get", bucket=fresh, key="k")
    assert (found["value"], found["encoding"]) == (text, "base64")


def test_a_revision_is_got_and_put_only_where_it_is_the_newest(
    ask: Call, refuse: Fail, fresh: str
) -> None:
    ask("kv_put", bucket=fresh, key="k", value=1)
    assert ask("kv_put", bucket=fresh, key="k", value=2, revision=1)["revision"] == 2
    error = refuse("kv_put", bucket=fresh, key="k", value=3, revision=1)
    assert (error.kind, error.error_code) == ("client_error", "WRONG_REVISION")
    assert not error.retryable
    assert ask("kv_get", bucket=fresh, key="k")["value"] == 2
    assert ask("kv_get", bucket=fresh, key="k", revision=2)["value"] == 2
    assert ask("kv_get", bucket=fresh, key="other", revision=2)["status"] == "not_found"


def test_a_key_with_a_time_to_live_goes_away(ask: Call, fresh: str) -> None:
    ask("kv_put", bucket=fresh, key="k", value=1, ttl="1s")
    assert ask("kv_get", bucket=fresh, key="k")["value"] == 1
    deadline = time.monotonic() + 20
    while ask("kv_get", bucket=fresh, key="k")["status"] == "success":
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def test_keys_are_listed_deleted_and_purged(ask: Call, fresh: str) -> None:
    for key in ("b", "a.1", "a.2"):
        ask("kv_put", bucket=fresh, key=key, value=1)
    assert ask("kv_keys", bucket=fresh)["keys"] == ["a.1", "a.2", "b"]
    assert ask("kv_keys", bucket=fresh, key="a.") == {
        "status": "success",
        "bucket": fresh,
        "keys": ["a.1", "a.2"],
        "count": 2,
    }
    assert ask("kv_delete", bucket=fresh, key="b")["status"] == "success"
    assert ask("kv_purge", bucket=fresh, key="a.1")["status"] == "success"
    for key in ("b", "a.1", "never"):
        assert ask("kv_get", bucket=fresh, key=key)["status"] == "not_found"
    assert ask("kv_keys", bucket=fresh)["keys"] == ["a.2"]
    ask("kv_purge", bucket=fresh)
    assert ask("kv_keys", bucket=fresh)["count"] == 0


@pytest.mark.parametrize("operation", ["kv_get", "kv_delete", "kv_purge", "kv_keys"])
def test_a_missing_bucket_has_no_keys(ask: Call, fresh: str, operation: str) -> None:
    assert ask(operation, bucket=fresh, key="k")["status"] == "not_found"
    assert ask("kv_keys", bucket=fresh)["status"] == "not_found", "reading made the bucket"


# ---------------------------------------------------------------------- objects
def test_objects_are_put_got_listed_and_deleted(ask: Call, fresh: str) -> None:
    large = "x" * 300_000
    put = ask("object_put", bucket=fresh, key="in/a.txt", value=large)
    assert (put["size"], put["chunks"], put["bucket_created"]) == (300_000, 3, True)
    ask("object_put", bucket=fresh, key="b.json", data={"n": 1})
    assert ask("object_get", bucket=fresh, key="in/a.txt")["value"] == large
    found = ask("object_get", bucket=fresh, object="b.json")
    assert (found["value"], found["size"]) == ({"n": 1}, 7)
    assert ask("object_info", bucket=fresh, key="b.json")["digest"].startswith("SHA-256=")
    listed = ask("object_list", bucket=fresh)
    assert [item["name"] for item in listed["objects"]] == ["b.json", "in/a.txt"]
    assert ask("object_delete", bucket=fresh, key="b.json")["status"] == "success"
    for operation in ("object_get", "object_info", "object_delete"):
        assert ask(operation, bucket=fresh, key="b.json")["status"] == "not_found"
    ask("object_delete", bucket=fresh, key="in/a.txt")
    assert ask("object_list", bucket=fresh)["count"] == 0


@pytest.mark.parametrize("operation", ["object_get", "object_info", "object_delete", "object_list"])
def test_a_missing_store_has_no_objects(ask: Call, fresh: str, operation: str) -> None:
    assert ask(operation, bucket=fresh, key="k")["status"] == "not_found"


def test_an_object_above_the_limit_is_not_read(ask: Call, refuse: Fail, fresh: str) -> None:
    ask("object_put", bucket=fresh, key="k", value="x" * 100)
    small = {"settings": load({}, result_bytes=99).settings}
    error = refuse("object_get", bucket=fresh, key="k", context=small)
    assert error.kind == "resource"
    assert "CALLBOARD_RESULT_BYTES" in error.message


# ---------------------------------------------------------------------- streams
def test_a_repeated_attempt_publishes_nothing_twice(ask: Call, stream: str) -> None:
    subject = f"{stream}.a"
    first = ask("js_publish", subject=subject, data={"n": 1})
    again = ask("js_publish", subject=subject, data={"n": 1})
    other = ask("js_publish", subject=subject, data={"n": 2})
    given = ask("js_publish", subject=subject, data={"n": 1}, msg_id="mine")
    assert [each["duplicate"] for each in (first, again, other, given)] == [
        False,
        True,
        False,
        False,
    ]
    assert (first["stream"], first["seq"]) == (stream, 1)
    assert first["msg_id"].startswith("7:probe:1:-1:")
    assert ask("js_stream_info", stream=stream)["messages"] == 3


def test_messages_are_got_by_number_and_by_subject(ask: Call, refuse: Fail, stream: str) -> None:
    ask("js_publish", subject=f"{stream}.a", data="one", headers={"X-Kind": "k"})
    ask("js_publish", subject=f"{stream}.b", data={"two": 2})
    one = ask("js_get_msg", stream=stream, seq=1)
    assert (one["data"], one["headers"]["X-Kind"]) == ("one", "k")
    two = ask("js_get_msg", stream=stream, subject=f"{stream}.b")
    assert (two["data"], two["seq"], two["subject"]) == ({"two": 2}, 2, f"{stream}.b")
    assert ask("js_get_msg", stream=stream, seq=99)["status"] == "not_found"
    assert ask("js_get_msg", stream=stream, subject="nothing")["status"] == "not_found"
    assert refuse("js_get_msg", stream=stream).kind == "schema"


def test_a_stream_tells_of_itself(ask: Call, stream: str) -> None:
    ask("js_publish", subject=f"{stream}.a", data=1)
    info = ask("js_stream_info", stream=stream)
    assert (info["subjects"], info["messages"], info["last_seq"]) == ([f"{stream}.>"], 1, 1)
    assert info["config"]["name"] == stream
    json.dumps(info)


def test_a_durable_consumer_goes_on_where_it_was(ask: Call, stream: str) -> None:
    for number in range(5):
        ask("js_publish", subject=f"{stream}.a", data=number)
    read = [
        # A full batch is given at once; only in vain is there waiting.
        ask("js_consume", stream=stream, consumer="c", batch=batch, timeout=wait)
        for batch, wait in ((2, 20), (3, 20), (10, 0.1))
    ]
    assert [[message["data"] for message in each["messages"]] for each in read] == [
        [0, 1],
        [2, 3, 4],
        [],
    ]
    assert [each["status"] for each in read] == ["success", "success", "not_found"]
    assert read[0]["messages"][0]["seq"] == 1
    # Without a consumer of its own a step reads all, and leaves nothing behind.
    everything = ask("js_consume", stream=stream, batch=5, timeout=20)
    assert (everything["count"], everything["consumer"]) == (5, None)
    assert ask("js_stream_info", stream=stream)["consumers"] == 1


def test_what_was_not_acknowledged_is_given_again(ask: Call, refuse: Fail, stream: str) -> None:
    ask("js_publish", subject=f"{stream}.a", data="x" * 100)
    ask("js_publish", subject=f"{stream}.b", data="other")
    about = {"stream": stream, "consumer": "c", "subject": f"{stream}.a", "timeout": 20, "batch": 1}
    small = {"settings": load({}, result_bytes=99).settings}
    assert refuse("js_consume", context=small, **about).kind == "resource"
    (message,) = ask("js_consume", ack=False, **about)["messages"]
    assert (message["subject"], message["deliveries"]) == (f"{stream}.a", 2)


# ---------------------------------------------------------------------- messages
def test_a_request_is_answered(ask: Call, refuse: Fail, nats: str, fresh: str) -> None:
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        client = Client()
        await client.connect(nats)

        async def answer(message: Msg) -> None:
            await message.respond(b'{"got": ' + message.data + b"}")

        await client.subscribe(f"{fresh}.ask", cb=answer)
        await client.subscribe(f"{fresh}.mute", cb=None)
        await client.flush()
        ready.set()
        await asyncio.to_thread(done.wait)
        await client.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(20)
        answered = ask("request", subject=f"{fresh}.ask", data=[1])
        assert (answered["status"], answered["data"]) == ("success", {"got": [1]})
        late = refuse("request", subject=f"{fresh}.mute", data=1, timeout=0.1)
        assert (late.kind, late.retryable) == ("timeout", True)
        stop = threading.Event()
        threading.Timer(0.1, stop.set).start()
        given_up = refuse("request", subject=f"{fresh}.mute", context={"cancelled": stop})
        assert (given_up.kind, given_up.retryable) == ("cancelled", False)
    finally:
        done.set()
        thread.join()


def test_a_message_is_published(ask: Call, fresh: str) -> None:
    assert ask("publish", subject=f"{fresh}.x", message="hello") == {
        "status": "success",
        "subject": f"{fresh}.x",
    }


# ---------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("operation", "keys", "expected", "says"),
    [
        ("kv_get", {"key": "k"}, ("schema", False), "needs bucket"),
        ("kv_get", {"bucket": "b"}, ("schema", False), "needs key"),
        ("kv_put", {"bucket": "b", "key": "a b", "value": 1}, ("schema", False), "key"),
        ("kv_put", {"bucket": "a b", "key": "k", "value": 1}, ("schema", False), "bucket"),
        ("kv_put", {"bucket": "x0", "key": "k", "create": False}, ("not_found", False), "bucket"),
        ("kv_put", {"bucket": "b", "key": "k", "ttl": 0.5}, ("schema", False), "second"),
        ("kv_put", {"bucket": "b", "key": "k", "ttl": 1, "revision": 1}, ("schema", False), "both"),
        ("kv_put", {"bucket": "b", "key": "k", "value": "%", "encoding": "base64"}, ("schema", False), ""),
        ("object_put", {"bucket": "x0", "key": "k", "create": False}, ("not_found", False), "bucket"),
        ("js_publish", {"subject": "no.stream.here"}, ("not_found", False), "stream"),
        ("js_stream_info", {"stream": "nowhere"}, ("not_found", False), "stream"),
        ("js_get_msg", {"stream": "nowhere", "seq": 1}, ("not_found", False), "stream"),
        ("js_consume", {"stream": "nowhere"}, ("not_found", False), "stream"),
        ("js_consume", {"stream": "nowhere", "consumer": "c"}, ("not_found", False), "stream"),
        ("request", {"subject": "nobody.here"}, ("not_found", True), "nobody"),
        ("publish", {"subject": "a.*"}, ("schema", False), "subject"),
        ("publish", {"subject": "a..b"}, ("schema", False), "subject"),
        ("publish", {"subject": "a b"}, ("schema", False), "subject"),
        ("publish", {}, ("schema", False), "needs subject"),
    ],
)  # fmt: skip
def test_errors(
    refuse: Fail, operation: str, keys: dict[str, Any], expected: tuple[str, bool], says: str
) -> None:
    error = refuse(operation, **keys)
    assert (error.kind, error.retryable) == expected, error.message
    assert says in error.message
    assert "nats://" not in f"{error} {error.__cause__!r}"


@pytest.mark.parametrize(
    ("operation", "keys"),
    [
        ("publish", {"subject": "callboard.steps.io.now"}),
        ("js_publish", {"subject": "callboard.wakes.orchestrate.now.1"}),
        ("request", {"subject": "$JS.API.STREAM.DELETE.callboard_STEPS"}),
        ("publish", {"subject": "$JS.API.STREAM.PURGE.callboard_STEPS"}),
        ("request", {"subject": "$SYS.REQ.SERVER.PING"}),
        ("publish", {"subject": "_INBOX.abc"}),
        ("js_publish", {"subject": "x", "stream": "callboard_STEPS"}),
        ("js_consume", {"stream": "callboard_STEPS"}),
        ("js_consume", {"stream": "CALLBOARD_WAKES"}),
        ("js_get_msg", {"stream": "callboard_WAKES", "seq": 1}),
        ("js_stream_info", {"stream": "callboard_STEPS"}),
    ],
)
def test_what_is_callboard_s_own_is_out_of_reach(
    refuse: Fail, operation: str, keys: dict[str, Any]
) -> None:
    error = refuse(operation, **keys)
    assert error.kind == "auth"
    assert error.error_code in {"reserved_subject", "reserved_stream"}


def test_the_names_that_are_our_own_are_the_broker_s() -> None:
    ours = Subjects("callboard", frozenset())
    assert {ours.steps.lower(), ours.wakes.lower()} == set(OUR_STREAMS)
    assert {f"{ours.steps_root}.", f"{ours.wakes_root}."} == set(OUR_SUBJECTS)


# ---------------------------------------------------------------------- getting there
@pytest.mark.parametrize(
    ("config", "kind", "retryable"),
    [
        ({}, "schema", False),
        ({"auth": {"user": "x"}}, "schema", False),
        ({"auth": "nobody"}, "auth", False),
        ({"url": "http://host:4222"}, "schema", False),
        ({"url": "nats://host:port"}, "schema", False),
        ({"url": "nats://127.0.0.1:1"}, "connection", True),
        ({"url": "nats://name.invalid:4222"}, "connection", True),
        ({"url": "nats://127.0.0.1:1", "nkey": "SUwrong"}, "auth", False),
        ({"url": "nats://127.0.0.1:1", "creds": "not one"}, "auth", False),
    ],
    ids=str,
)
def test_a_server_that_cannot_be_used(
    fail: Fail, config: dict[str, Any], kind: str, retryable: bool
) -> None:
    error = fail("nats", {"operation": "kv_keys", "bucket": "b", "timeout": 10, **config})
    assert (error.kind, error.retryable) == (kind, retryable), error.message


def test_the_servers_own_nats_is_never_meant_by_itself(fail: Fail, nats: str) -> None:
    settings = load({}, nats_url=nats).settings
    error = fail("nats", {"operation": "kv_keys", "bucket": "b"}, settings=settings)
    assert error.kind == "schema"
    assert "url" in error.message


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``host:port`` of a server with users: by password, and by nkey."""
    binary = shutil.which("nats-server", path=str(Path(__import__("sys").executable).parent))
    assert binary is not None
    folder = tmp_path_factory.mktemp("guarded")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "nats.conf").write_text(
        f"""
        listen: "127.0.0.1:{port}"
        jetstream {{ store_dir: "{folder / "store"}" }}
        authorization {{ users: [
          {{ user: "all", password: "canary-pass-1" }},
          {{ user: "few", password: "canary-pass-2",
             permissions: {{ publish: ["ok.>"], subscribe: ["_INBOX.>"] }} }},
          {{ nkey: "{public_key(SEED)}" }} ] }}
        """
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, "-c", str(folder / "nats.conf")], stderr=log)
    try:
        deadline = time.monotonic() + 20
        while b"Server is ready" not in (folder / "log").read_bytes():
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def seed() -> str:
    """A user's seed, as ``nsc`` and ``nk`` write it: prefix, 32 bytes, checksum."""
    import binascii

    first = 18 << 3 | 20 >> 5 << 3
    raw = bytes([first | (20 << 3) >> 5, ((20 << 3) & 31) << 3]) + bytes(range(32))
    body = raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(body).decode().rstrip("=")


SEED = seed()


@pytest.mark.parametrize(
    "config",
    [
        {"url": "nats://all:canary-pass-1@{}"},
        {"url": "nats://{}", "user": "all", "password": "canary-pass-1"},
        {"url": "{}", "auth": "broker"},
        {"auth": "whole"},
        {
            "auth": {
                "host": "127.0.0.1",
                "port": "{port}",
                "user": "all",
                "password": "canary-pass-1",
            }
        },
        {"url": "{}", "nkey": SEED},
    ],
    ids=str,
)
def test_each_way_in(call: Call, guarded: str, config: dict[str, Any]) -> None:
    port = guarded.rpartition(":")[2]
    text = json.dumps(config).replace("{}", guarded).replace("{port}", port)
    user = {"username": "all", "password": "canary-pass-1"}
    known = Known(
        {"broker": json.dumps(user), "whole": json.dumps({"url": f"nats://{guarded}", **user})}
    )
    asked = {"operation": "publish", "subject": "ok.x", **json.loads(text)}
    assert call("nats", asked, secrets=known)["status"] == "success"
    if "auth" not in config:
        secret = SEED if "nkey" in config else "canary-pass-1"
        assert known.concealed == [secret]


def test_a_wrong_password_is_told_without_it(fail: Fail, guarded: str) -> None:
    for config in (
        {"url": f"nats://all:canary-wrong@{guarded}"},
        {"url": f"nats://{guarded}", "user": "all", "password": "canary-wrong"},
        {"url": f"nats://{guarded}"},
    ):
        error = fail("nats", {"operation": "publish", "subject": "ok.x", **config})
        assert (error.kind, error.retryable) == ("auth", False)
        assert "canary" not in f"{error} {error.to_dict()} {error.__cause__!r}"


def test_what_a_user_may_not_do_is_told(fail: Fail, call: Call, guarded: str) -> None:
    few = {"url": f"nats://few:canary-pass-2@{guarded}", "timeout": 10}
    assert call("nats", {"operation": "publish", "subject": "ok.x", **few})["status"] == "success"
    for number in range(50):
        error = fail("nats", {"operation": "publish", "subject": f"not.ok{number}", **few})
        assert (error.kind, error.retryable) == ("auth", False)
    late = fail("nats", {"operation": "request", "subject": "not.ok", **few, "timeout": 0.5})
    assert (late.kind, late.retryable) == ("auth", False)


def test_nothing_shows_the_secrets_of_a_server() -> None:
    server = server_of(
        {"url": "nats://u:canary-1@h:1", "password": "canary-2", "token": "canary-3"}
    )
    assert "canary" not in f"{server!r} {server.address}"


# ---------------------------------------------------------------------- connections
def test_steps_share_a_connection_and_get_another_when_it_broke(call: Call, tmp_path: Path) -> None:
    with EmbeddedNats(tmp_path / "nats") as server:
        asked = {"operation": "kv_keys", "bucket": "b", "url": server.url}
        before = connections.count()
        results: list[str] = []
        threads = [
            threading.Thread(target=lambda: results.append(call("nats", asked)["status"]))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == ["not_found"] * 8
        assert connections.count() == before + 1
        server.stop()
        server.start()
        asked["url"] = server.url
        assert call("nats", asked)["status"] == "not_found"


def test_idle_connections_are_closed(
    context: Any, nats: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.tools.bus.connections.KEEP", 0.05)
    own = Connections()

    async def nothing(_connected: Any) -> None:
        pass

    try:
        own.run(server_of({"url": nats}), nothing, context, 10)
        deadline = time.monotonic() + 20
        while own.count():
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)
    finally:
        own.close()


def test_the_keys_are_checked_before_it_runs() -> None:
    tool = load_tool("nats")
    good = {"operation": "kv_get", "url": "nats://h", "bucket": "b", "key": "{{ k }}"}
    assert tool.complaints(good) == []
    (complaint,) = tool.complaints({**good, "operation": "kv_take"})
    assert "operation" in complaint.path


PLAYBOOK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: remember}
workload: {bucket: none}
workflow:
  - step: start
    tool:
      - put: {kind: nats, operation: kv_put, auth: bus, bucket: "{{ workload.bucket }}", key: k, value: 1}
      - tell: {kind: nats, operation: js_publish, auth: bus, subject: "{{ workload.bucket }}.a", data: 1}
      - again: {kind: nats, operation: js_publish, auth: bus, subject: "{{ workload.bucket }}.a", data: 2}
    next: {arcs: [{step: read}]}
  - step: read
    tool:
      kind: nats
      operation: kv_get
      auth: bus
      input: {bucket: "{{ workload.bucket }}", key: k}
"""


def test_a_playbook_keeps_a_value_and_reads_it(
    ask: Call, nats: str, stream: str, tmp_path: Path
) -> None:
    settings = load({}, home=tmp_path).settings
    secrets = {"bus": json.dumps({"url": nats})}
    ended = run_playbook(PLAYBOOK, settings, {"bucket": stream}, secrets=secrets)
    assert ended.status == "COMPLETED", ended.error
    assert ended.result["value"] == 1
    assert ask("js_stream_info", stream=stream)["messages"] == 2


def test_our_own_nats_without_a_login_is_refused_whatever_it_is_called(
    fail: Fail, context: Context
) -> None:
    settings = load({}, nats_url="nats://127.0.0.1:4321").settings
    config = {"operation": "kv_get", "bucket": "b", "key": "k"}
    for url in ("nats://127.0.0.1:4321", "nats://localhost:4321", "nats://[::1]:4321"):
        error = fail("nats", {**config, "url": url}, settings=settings)
        assert "this installation's NATS" in error.message, url
    # With a login of its own it is tried; nobody listens there.
    error = fail("nats", {**config, "url": "nats://me:x@127.0.0.1:4321"}, settings=settings)
    assert error.kind == "connection"
