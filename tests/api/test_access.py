"""Who may do what: every route, every role, every way in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute

from app.api.access import PUBLIC, WORKER, Access
from app.errors import ForbiddenError, StartupError, UnauthorizedError
from app.settings import Settings, check_exposure
from tests.api.plane import Plane, build

SECURED = {"api_token": "client-token", "worker_tokens": "default=worker-token"}


def routes() -> list[tuple[str, str]]:
    """Every (method, path) of the API, with parameters filled in."""
    found = [
        (method, path.replace("{execution_id}", "1").replace("{path:path}", "a/b"))
        for route in _flat(build().app.routes)
        for method in sorted(route.methods or ())
        if (path := route.path)
    ]
    assert len(found) > 25
    return found


def _flat(found: Any) -> Iterator[APIRoute]:
    for route in found:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            # The routers carry their full prefix; one put on at inclusion would not be seen here.
            assert not route.include_context.prefix
            yield from _flat(inner.routes)
        else:
            # Anything else, a mount or a plain route, would not pass the dependency.
            assert isinstance(route, APIRoute), route
            yield route


def test_the_walk_sees_what_the_schema_sees() -> None:
    app = build().app
    walked = {route.path for route in _flat(app.routes) if route.include_in_schema}
    assert walked == {path.replace("{path}", "{path:path}") for path in app.openapi()["paths"]}


@pytest.fixture(scope="module")
def secured() -> Plane:
    """A plane that asks for tokens."""
    return build(**SECURED)


@pytest.mark.parametrize(("method", "path"), routes())
def test_each_route_by_role(secured: Plane, method: str, path: str) -> None:
    statuses = {
        role: secured.client(token).request(method, path).status_code
        for role, token in {
            "nobody": None,
            "stranger": "wrong",
            "worker": "worker-token",
            "client": "client-token",
        }.items()
    }
    closed = {401, 403}
    if path in PUBLIC:
        assert not closed & set(statuses.values())
        return
    assert statuses["nobody"] == statuses["stranger"] == 401
    assert (statuses["worker"] == 403) is (path not in WORKER)
    assert statuses["client"] not in closed


def test_a_worker_may_claim_report_beat_and_sign_on_and_off_and_nothing_else() -> None:
    work = {"exchange", "claim", "report", "values", "artifacts", "logs", "beat"}
    secrets = {"secret", "keychain/take", "keychain/put"}
    presence = {"pool/register", "pool/heartbeat", "pool/deregister"}
    assert {f"/api/worker/{name}" for name in work | secrets | presence} == WORKER


def test_a_route_that_is_added_later_is_guarded() -> None:
    plane = build(**SECURED)

    @plane.app.get("/api/new")
    def new() -> str:
        return "new"

    assert plane.client().get("/api/new").status_code == 401
    assert plane.client("worker-token").get("/api/new").status_code == 403
    assert plane.client("client-token").get("/api/new").json() == "new"


def test_nothing_is_public_but_the_probes() -> None:
    assert {"/", "/livez", "/readyz", "/health", "/api/health", "/metrics"} == PUBLIC


@pytest.mark.parametrize(
    "header",
    [
        "Bearer client-token",
        "bearer client-token",
        "Bearer  client-token ",
    ],
)
def test_forms_of_the_header_that_work(secured: Plane, header: str) -> None:
    headers = {"authorization": header}
    assert secured.client(**headers).get("/api/executions").status_code == 200


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic client-token", "client-token", "Bearer client-tokenx"],
)
def test_forms_of_the_header_that_do_not(secured: Plane, header: str) -> None:
    answer = secured.client(authorization=header).get("/api/executions")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "client-token" not in answer.text


@pytest.mark.parametrize("tokens", ["default=", "=", ",", "default"])
def test_an_empty_worker_token_opens_nothing(tokens: str) -> None:
    plane = build(api_token="client-token", worker_tokens=tokens)
    for header in ("Bearer ", "Bearer", "Bearer default", "Bearer ="):
        answer = plane.client(authorization=header).post("/api/worker/claim")
        assert answer.status_code == 401


def test_a_token_without_a_pool_opens_no_pool() -> None:
    plane = build(worker_tokens="=orphan,default=worker-token")
    assert plane.client("orphan").post("/api/worker/claim").status_code == 401


def test_with_worker_tokens_alone_clients_of_this_machine_need_none() -> None:
    plane = build(worker_tokens="default=worker-token")
    assert plane.client().get("/api/executions").status_code == 200
    assert plane.client().post("/api/worker/claim").status_code == 401
    assert plane.client("worker-token").post("/api/worker/claim").status_code == 422
    assert plane.client("worker-token").get("/api/executions").status_code == 403
    assert plane.client("wrong").get("/api/executions").status_code == 401


def test_with_a_token_the_name_of_the_host_does_not_matter() -> None:
    http = build(**SECURED).client("client-token", host="callboard.example", origin="https://x.y")
    assert http.get("/api/executions").status_code == 200


OPEN = Settings()
NAMED = Settings(allowed_hosts="callboard.test, Other.Test")


@pytest.mark.parametrize(
    ("settings", "headers", "allowed"),
    [
        (OPEN, {"host": "localhost:8082"}, True),
        (OPEN, {"host": "LOCALHOST"}, True),
        (OPEN, {"host": "127.0.0.1:8082"}, True),
        (OPEN, {"host": "127.9.9.9"}, True),
        (OPEN, {"host": "[::1]:8082"}, True),
        (OPEN, {"host": "evil.example:8082"}, False),
        (OPEN, {"host": "localhost.evil.example"}, False),
        (OPEN, {"host": "127.0.0.1.evil.example"}, False),
        (OPEN, {"host": "10.0.0.1:8082"}, False),
        (OPEN, {"host": "0.0.0.0:8082"}, False),
        (OPEN, {"host": ""}, False),
        (OPEN, {}, False),
        (OPEN, {"host": "testserver"}, False),
        (Settings(allowed_hosts="testserver"), {"host": "testserver"}, True),
        (NAMED, {"host": "callboard.test"}, True),
        (NAMED, {"host": "other.test:80"}, True),
        (NAMED, {"host": "localhost"}, True),
        (NAMED, {"host": "evil.example"}, False),
        (OPEN, {"host": "localhost:8082", "origin": "http://localhost:8082"}, True),
        (OPEN, {"host": "localhost:8082", "origin": "http://localhost:3000"}, False),
        (OPEN, {"host": "localhost:8082", "origin": "http://evil.example"}, False),
        (OPEN, {"host": "localhost:8082", "origin": "null"}, False),
        (OPEN, {"host": "localhost:8082", "origin": "http://[bad"}, False),
        (OPEN, {"host": "localhost:8082", "origin": ""}, False),
        (NAMED, {"host": "localhost:8082", "origin": "https://callboard.test"}, True),
        (NAMED, {"host": "localhost:8082", "origin": "https://callboard.test.evil"}, False),
    ],
)
def test_without_tokens_only_pages_and_names_of_this_machine(
    settings: Settings, headers: dict[str, str], allowed: bool
) -> None:
    access = Access(settings)
    if allowed:
        assert access.admit("/api/executions", headers).role == "client"
        assert access.admit("/api/worker/claim", headers).pool is None
    else:
        for path in ("/api/executions", "/api/worker/claim"):
            with pytest.raises(ForbiddenError, match=r"Host|Origin"):
                access.admit(path, headers)


def test_a_page_of_another_site_is_refused_over_http() -> None:
    plane = build()
    answer = plane.client(origin="http://evil.example").post("/api/catalog/list")
    assert answer.status_code == 403
    assert "CALLBOARD_ALLOWED_HOSTS" in answer.json()["remedy"]


def test_a_path_that_only_looks_public_is_guarded() -> None:
    access = Access(Settings(api_token="t"))
    for path in ("/livez/", "//livez", "/api/livez", "/LIVEZ", "/livez/../api/executions"):
        with pytest.raises(UnauthorizedError):
            access.admit(path, {})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "callboard.example", ""])
def test_another_address_than_loopback_needs_a_token(host: str) -> None:
    with pytest.raises(StartupError, match="without an API token") as caught:
        check_exposure(Settings(host=host))
    assert "CALLBOARD_API_TOKEN" in str(caught.value.remedy)
    check_exposure(Settings(host=host, api_token="t"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_none(host: str) -> None:
    check_exposure(Settings(host=host))
