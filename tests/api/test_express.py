"""The routes that go past the framework's layers do what those do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import structlog

from app.api.app import MOST_ASKED
from app.api.express import Express
from app.errors import UnavailableError
from tests.api.plane import Plane, build

EXCHANGE = "/api/worker/exchange"


def failing(plane: Plane, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def exchange(*_: object, **__: object) -> Any:
        raise error

    monkeypatch.setattr(plane.control.work, "exchange", exchange)


def test_these_are_asked_for_at_each_step_and_at_each_start(plane: Plane) -> None:
    express = Express(plane.app, endpoints=MOST_ASKED)
    assert set(express.routes) == {
        ("http", "POST", EXCHANGE),
        ("http", "POST", "/api/execute"),
    }


def test_an_answer_and_how_it_is_counted(plane: Plane) -> None:
    http = plane.client()
    answer = http.post(EXCHANGE, json={"worker": "w"})
    assert (answer.status_code, answer.json()) == (200, {"claims": [], "reports": [], "steps": {}})
    assert answer.headers["content-type"] == "application/json"
    assert f'route="{EXCHANGE}"' in http.get("/metrics").text


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        pytest.param({"api_token": "t"}, 401, id="no token"),
        pytest.param({"worker_tokens": "cpu=t"}, 401, id="no worker's token"),
    ],
)
def test_who_may_not_is_told_so(settings: dict[str, str], status: int) -> None:
    answer = build(**settings).client().post(EXCHANGE, json={"worker": "w"})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (status, "Bearer")
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_page_of_another_site_is_refused(plane: Plane) -> None:
    http = plane.client(origin="http://elsewhere.example")
    assert http.post(EXCHANGE, json={"worker": "w"}).status_code == 403


@pytest.mark.parametrize("method", ["get", "put", "delete"])
def test_other_methods_are_none_of_its(plane: Plane, method: str) -> None:
    assert getattr(plane.client(), method)(EXCHANGE).status_code == 405


@pytest.mark.parametrize(
    ("make", "status", "line"),
    [
        pytest.param(lambda: UnavailableError("away", retry_after=7), 503, "http.error", id="away"),
        pytest.param(lambda: ZeroDivisionError("hunter2"), 500, "http.failed", id="unexpected"),
    ],
)
def test_errors_are_documents_and_logged(
    plane: Plane,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[], Exception],
    status: int,
    line: str,
) -> None:
    failing(plane, monkeypatch, make())
    with structlog.testing.capture_logs() as lines:
        answer = plane.client().post(EXCHANGE, json={"worker": "w"})
    assert (answer.status_code, [entry["event"] for entry in lines]) == (status, [line])
    assert answer.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in answer.text
    assert answer.headers.get("retry-after") == ("7" if status == 503 else None)
