"""Readiness on real servers that are made to misbehave."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import nats as nats_py
import psycopg
import pytest
from nats.js import JetStreamContext

from app.api.app import create_app
from app.brokers.nats import NatsBroker
from app.client import Client
from app.embedded.nats import EmbeddedNats, find_binary
from app.embedded.postgres import EmbeddedPostgres
from app.errors import UnavailableError
from app.readiness import Examination, Question, ask_all, disk_checks, examination, nats_checks
from app.services.health import Check
from app.settings import load, process_environment
from app.wiring import Plane, control_plane
from tests.api.plane import served
from tests.trouble.conftest import wrong
from tests.waits import until

Js = Callable[[JetStreamContext], Coroutine[Any, Any, Any]]


def on_nats(server: EmbeddedNats, work: Js) -> None:
    async def run() -> None:
        client = await nats_py.connect(server.url)
        try:
            await work(client.jetstream())
        finally:
            await client.close()

    asyncio.run(run())


def sql(database: str, *statements: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


# ---------------------------------------------------------------------- Postgres
def test_a_well_plane_is_well(health: Examination) -> None:
    checks = health.checks()
    names = ["postgres", "migrations", "clock", "nats", "streams", "consumers", "disk"]
    assert [(check.name, check.ok) for check in checks] == [(name, True) for name in names]


def test_a_database_that_is_gone_is_an_error(
    health: Examination, plane: Plane, postgres_server: EmbeddedPostgres
) -> None:
    name = plane.database_url.partition("?")[0].rpartition("/")[2]
    try:
        sql(
            postgres_server.url,
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )
        found = until(lambda: wrong(health.checks()).get("postgres"))
        assert found.is_fatal
        assert "Postgres" in found.message
    finally:
        sql(postgres_server.url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    until(lambda: not wrong(health.checks()))


def test_a_wrong_password_or_database_says_so(plane: Plane, tmp_path: Path) -> None:
    url = plane.database_url.replace("/test_", "/no_such_")
    settings = load({}, home=tmp_path, database_url=url, nats_url=plane.settings.nats_url)
    with control_plane(settings.settings, "test") as other, examination(other) as health:
        found = wrong(health.checks())["postgres"]
    assert "does not exist" in found.message
    assert "CREATE DATABASE" in (found.remedy or "")


def test_a_database_that_takes_no_writes_is_an_error(plane: Plane) -> None:
    name = plane.database_url.partition("?")[0].rpartition("/")[2]
    sql(plane.database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with examination(plane) as health:
        found = wrong(health.checks())["postgres"]
    assert found.is_fatal
    assert "read-only" in found.message
    assert "standby" in (found.remedy or "")


def test_a_full_disk_is_an_error_until_it_is_over(
    health: Examination, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(
        plane.database_url,
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'could not extend file: No space left on device' "
        "USING ERRCODE = '53100'; END $$",
        "CREATE TRIGGER full_disk BEFORE INSERT ON noetl.catalog "
        "FOR EACH ROW EXECUTE FUNCTION full_disk()",
    )
    with pytest.raises(UnavailableError, match="No space left"):
        plane.ports.catalog.add("p", "Playbook", "", meta={})
    found = wrong(health.checks())["postgres"]
    assert found.is_fatal
    assert "No space left on device" in found.message
    assert "free space on the disk of Postgres" in (found.remedy or "")
    # It is tried again after a while, for only a write can tell that there is space again.
    monkeypatch.setattr("app.readiness.REFUSED_FOR", 0.0)
    assert not wrong(health.checks())


def test_too_few_connections_are_a_warning(health: Examination, plane: Plane) -> None:
    sql(
        plane.database_url,
        "CREATE FUNCTION crowd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'sorry, too many clients already' USING ERRCODE = '53300'; END $$",
        "CREATE TRIGGER crowd BEFORE INSERT ON noetl.catalog FOR EACH ROW EXECUTE FUNCTION crowd()",
    )
    with pytest.raises(UnavailableError, match="max_connections"):
        plane.ports.catalog.add("p", "Playbook", "", meta={})
    found = wrong(health.checks())["postgres"]
    assert not found.is_fatal
    assert "max_connections" in (found.remedy or "")


@pytest.mark.parametrize(
    ("revision", "fatal", "remedy"),
    [
        pytest.param("0001", True, "callboard db upgrade", id="behind"),
        pytest.param("9999", False, "finish the upgrade", id="ahead, in a rolling upgrade"),
    ],
)
def test_a_schema_of_another_version(
    health: Examination, plane: Plane, revision: str, fatal: bool, remedy: str
) -> None:
    sql(plane.database_url, f"UPDATE noetl.alembic_version SET version_num = '{revision}'")
    found = wrong(health.checks())["migrations"]
    assert found.is_fatal is fatal
    assert f"is at revision {revision}, this version needs" in found.message
    assert remedy in (found.remedy or "")


def test_a_database_that_was_never_migrated(health: Examination, plane: Plane) -> None:
    sql(plane.database_url, "DROP TABLE noetl.alembic_version")
    found = wrong(health.checks())["migrations"]
    assert (found.is_fatal, found.remedy) == (True, "run 'callboard db upgrade'")
    assert "revision none" in found.message


def test_a_clock_that_differs_from_the_databases(
    health: Examination, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    monkeypatch.setattr("app.store.standing.time.time", lambda: now() - 60)
    found = wrong(health.checks())["clock"]
    assert not found.is_fatal
    assert "60 s behind the database's" in found.message


# ---------------------------------------------------------------------- NATS
def test_nats_away_is_a_warning(health: Examination, own_nats: EmbeddedNats) -> None:
    own_nats.stop()
    try:
        found = wrong(health.checks())["nats"]
        assert not found.is_fatal
        assert "did not answer" in found.message
        assert "nothing is lost" in (found.remedy or "")
    finally:
        own_nats.start()
    until(lambda: not wrong(health.checks()))


def test_streams_and_consumers_that_are_not_ours(
    health: Examination, plane: Plane, own_nats: EmbeddedNats
) -> None:
    async def break_them(js: JetStreamContext) -> None:
        steps = (await js.stream_info("callboard_STEPS")).config
        await js.update_stream(steps.evolve(duplicate_window=60.0, max_age=3600.0))
        await js.delete_stream("callboard_WAKES")

    on_nats(own_nats, break_them)
    checks = [check for check in health.checks() if not check.ok]
    assert {(check.name, check.severity) for check in checks} == {("streams", "warning")}
    told = " / ".join(check.message for check in checks)
    assert "the stream callboard_STEPS has duplicate_window 60.0 instead of 15.0" in told
    assert "drops messages above max_age 3600.0" in told
    assert "the stream callboard_WAKES is missing" in told

    async def lift(js: JetStreamContext) -> None:
        steps = (await js.stream_info("callboard_STEPS")).config
        await js.update_stream(steps.evolve(max_age=0))

    on_nats(own_nats, lift)
    # As the remedies say: the next message, or the next process, sets the rest right.
    plane.ports.dispatcher.wake([1])
    until(lambda: not wrong(health.checks()))


def test_a_consumer_that_is_paused_or_gives_up(
    health: Examination, plane: Plane, own_nats: EmbeddedNats
) -> None:
    plane.broker.declare_queue("crippled.io")
    consumer = plane.broker.consume("crippled.io")

    async def paused(js: JetStreamContext) -> None:
        info = await js.consumer_info("callboard_STEPS", "crippled=2Eio")
        info.config.max_deliver = 3
        await js.add_consumer("callboard_STEPS", info.config)
        await js.pause_consumer("callboard_STEPS", "crippled=2Eio", "2100-01-01T00:00:00Z")

    until(lambda: _has_consumer(own_nats))
    on_nats(own_nats, paused)
    try:
        told = " / ".join(check.message for check in health.checks() if not check.ok)
        assert "the consumer crippled=2Eio of callboard_STEPS is paused" in told
        assert "has max_deliver 3 instead of -1" in told
    finally:
        consumer.close()
        on_nats(own_nats, lambda js: js.delete_consumer("callboard_STEPS", "crippled=2Eio"))


def _has_consumer(server: EmbeddedNats) -> bool:
    found: list[str] = []

    async def look(js: JetStreamContext) -> None:
        found.extend(info.name for info in await js.consumers_info("callboard_STEPS"))

    on_nats(server, look)
    return "crippled=2Eio" in found


def test_nats_without_jetstream() -> None:
    binary = find_binary()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(binary), "-a", "127.0.0.1", "-p", str(port)]
    process = Popen(command, env=process_environment())
    try:
        with closing(NatsBroker(f"nats://127.0.0.1:{port}", middleware=[])) as broker:
            nats, *_ = nats_checks(broker, timeout=10)
    finally:
        process.terminate()
        process.wait(10)
    assert "JetStream is off" in nats.message
    assert "-js" in (nats.remedy or "")


def test_nats_that_is_too_old(own_nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.brokers.streams.MIN_SERVER", (99, 0))
    with closing(NatsBroker(own_nats.url, middleware=[])) as broker:
        nats, *_ = nats_checks(broker, timeout=10)
    assert "cannot delay messages" in nats.message
    assert not nats.ok


# ---------------------------------------------------------------------- never waits
def test_servers_that_never_answer_keep_nobody_waiting(tmp_path: Path) -> None:
    with black_hole() as port:
        settings = load(
            {},
            home=tmp_path,
            database_url=f"postgresql://u:s3cretword@127.0.0.1:{port}/d",
            nats_url=f"nats://u:s3cretword@127.0.0.1:{port}",
        ).settings
        with control_plane(settings, "test") as plane, examination(plane) as health:
            took = []
            for _ in range(3):
                began = time.monotonic()
                found = wrong(health.checks())
                took.append(time.monotonic() - began)
                assert found["postgres"].is_fatal
                assert "no answer" in found["postgres"].message
                assert not found["nats"].is_fatal
                assert "s3cretword" not in repr(found)
            assert min(took) < 1.0


@pytest.mark.filterwarnings("ignore::pydantic.warnings.UnsupportedFieldAttributeWarning")
def test_readiness_answers_within_a_second_while_all_other_routes_hang(tmp_path: Path) -> None:
    """As many requests as the server has threads wait for a database that never says a word."""
    with black_hole() as port:
        settings = load(
            {},
            home=tmp_path,
            database_url=f"postgresql://u:p@127.0.0.1:{port}/d",
            nats_url=f"nats://127.0.0.1:{port}",
        ).settings
        with (
            control_plane(settings, "test") as plane,
            examination(plane) as health,
            served(create_app(plane.control, settings, health=health, doctor=health)) as url,
            Client(url, patience=0.0, connections=64) as client,
            ThreadPoolExecutor(48) as pool,
        ):
            hanging = [pool.submit(client.executions) for _ in range(48)]
            until(lambda: sum(future.running() for future in hanging) == 48)
            # The quickest of a few: another program of this machine may hold up any one of them.
            took = []
            for _ in range(4):
                began = time.monotonic()
                assert client.health()["status"] == "unready"
                took.append(time.monotonic() - began)
            assert min(took) < 1.0
            assert client.doctor()["status"] == "trouble"
            for future in hanging:
                assert isinstance(future.exception(), UnavailableError)


def test_one_look_at_a_time_whoever_asks() -> None:
    go, looked = threading.Event(), []

    def look() -> list[Check]:
        looked.append(1)
        go.wait(10)
        return [Check("slow", ok=True)]

    question = Question("slow", look, severity="error")
    for _ in range(5):
        (check,) = ask_all([question], patience=0.01)
        assert (check.name, check.ok) == ("slow", False)
    assert len(looked) == 1
    assert [thread.name for thread in threading.enumerate()].count("look-slow") == 1
    go.set()
    (check,) = ask_all([question], patience=10)
    assert check.ok


def test_a_look_that_fails_is_an_answer() -> None:
    def look() -> list[Check]:
        raise ValueError("a bug")

    (check,) = ask_all([Question("odd", look, severity="warning")], patience=10)
    assert (check.message, check.severity) == ("ValueError: a bug", "warning")


# ---------------------------------------------------------------------- this machine
def test_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load({}, home=tmp_path / "not" / "there", blobs=str(tmp_path)).settings
    assert list(disk_checks(settings)) == []
    monkeypatch.setattr("app.readiness.FREE_SHARE", 1.0)
    monkeypatch.setattr("app.readiness.FREE_BYTES", 1 << 60)
    home, blobs = disk_checks(settings)
    assert f"the disk of {tmp_path / 'not' / 'there'} has " in home.message
    assert f"the disk of {tmp_path} has " in blobs.message
    assert "CALLBOARD_BLOBS" in (blobs.remedy or "")
