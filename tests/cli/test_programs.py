"""What the processes get to know."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.cli.programs import Places, programs, with_worker_token
from app.settings import Settings, load

PLACES = Places(
    {"DATABASE_URL": "postgresql:///log", "NATS_URL": "nats://x"},
    {"NATS_URL": "nats://x", "NOETL_SECRET_WAREHOUSE": "postgresql:///warehouse"},
)


def _environments(settings: Settings) -> dict[str, dict[str, str]]:
    return {item.name: dict(item.environment) for item in programs(settings, PLACES)}


def test_every_process_of_the_procfile_with_workers_counted() -> None:
    found = programs(replace(Settings(), worker_processes=2), PLACES)
    assert [(item.name, item.command[1:]) for item in found] == [
        ("web", ("-m", "app.server")),
        ("orchestrator", ("-m", "app.orchestrator")),
        ("worker.1", ("-m", "app.worker")),
        ("worker.2", ("-m", "app.worker")),
        ("scheduler", ("-m", "app.scheduler")),
    ]
    assert {item.environment["CALLBOARD_WORKER_PROCESSES"] for item in found} == {"1"}
    assert max(found, key=lambda item: item.rank).name == "web"


def test_a_worker_knows_no_database_and_no_token_but_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "geheim-db")
    monkeypatch.setenv("CALLBOARD_DATABASE_URL", "postgresql://u:geheim-db@h/d")
    settings = replace(
        Settings(),
        database_url="postgresql://u:geheim-db@h/d",
        postgres_password="geheim-db",
        api_token="geheim-api",
    )
    found = _environments(settings)
    assert found["web"]["DATABASE_URL"] == "postgresql:///log"
    assert "geheim" not in str(found["worker"])
    assert "DATABASE_URL" not in found["worker"]
    assert found["worker"]["NOETL_SECRET_WAREHOUSE"] == "postgresql:///warehouse"


def test_a_process_loads_the_settings_it_was_started_with(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first name of a setting wins, so an older one of ours must not survive beside it.
    monkeypatch.setenv("NOETL_PORT", "1111")
    monkeypatch.setenv("CALLBOARD_SERVER_URL", "http://elsewhere:1")
    settings = replace(Settings(), port=2222, worker_threads=3)
    loaded = load(_environments(settings)["web"]).settings
    assert (loaded.port, loaded.worker_threads, loaded.url) == (2222, 3, "http://127.0.0.1:2222")


def test_no_token_where_the_api_asks_for_none() -> None:
    assert with_worker_token(Settings()).worker_token is None


def test_a_worker_gets_a_token_of_its_own_pool() -> None:
    settings = with_worker_token(replace(Settings(), api_token="api", worker_tokens="other=x"))
    assert settings.worker_token not in {None, "api", "x"}
    assert settings.pool_tokens == {"x": "other", settings.worker_token: "default"}


def test_a_known_token_of_the_pool_is_used() -> None:
    settings = with_worker_token(replace(Settings(), worker_tokens="other=x,default=y"))
    assert settings.worker_token == "y"
    assert settings.worker_tokens == "other=x,default=y"
