"""Values of keychains: who may have them, whose turn it is, and for whom they are kept."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from app.engine.ports import Pointer
from app.engine.tokens import TokenPlace
from app.errors import BadRequestError, ForbiddenError, NotFoundError
from app.store.memory_tokens import MemoryTokens
from app.wire import KeychainPut, TokenAnswer, TokenPut, TokenRequest
from tests.services.conftest import Bench

DATA = {"access_token": "canary-access-token", "token_type": "Bearer"}
DECLARES = """
keychain: [{name: api, kind: oauth2, endpoint: "https://x.example/token"}]
workflow: [{step: a, tool: {kind: noop}}]
"""
TWO_POOLS = """
keychain: [{name: api, kind: oauth2, endpoint: "https://x.example/token"}]
workflow:
- {step: a, tool: {kind: noop}, next: {arcs: [{step: b}]}}
- {step: b, spec: {pool: gpu}, tool: {kind: noop}}
"""


@pytest.fixture
def bench(bench: Bench) -> Bench:
    store = bench.ports.custody.tokens
    assert isinstance(store, MemoryTokens)
    store._clock = lambda: bench.now[0]  # leases run by the same clock
    return bench


def begun(bench: Bench, text: str = DECLARES, worker: str = "w1") -> tuple[int, Pointer]:
    """An execution whose first step is claimed by *worker*; the same text is the same version."""
    known = bench.control.catalog.find("t")
    if known is None or not known.content.endswith(text):
        known = bench.register(text)
    execution_id = bench.control.executions.start(catalog_id=known.catalog_id).execution_id
    (pointer,) = bench.advance(execution_id)
    assert bench.claim(pointer, worker=worker).granted
    return execution_id, pointer


def request(pointer: Pointer, **more: Any) -> dict[str, Any]:
    about = {"worker": "w1", "name": "api", "holder": "w1:1", "ahead": 300.0}
    return {**pointer._asdict(), **about, **more}


def take(bench: Bench, pointer: Pointer, *, pool: str | None = None, **more: Any) -> TokenAnswer:
    return bench.control.tokens.take(TokenRequest(**request(pointer, **more)), pool)


def put(bench: Bench, pointer: Pointer, *, pool: str | None = None, **more: Any) -> bool:
    given = {"data": DATA, "ttl": 3600.0, **request(pointer, **more)}
    return bench.control.tokens.put(TokenPut(**given), pool).accepted


def fetched(bench: Bench, pointer: Pointer, **more: Any) -> None:
    assert take(bench, pointer, **more).state == "yours"
    assert put(bench, pointer, **more)


# ---------------------------------------------------------------------- turns
def test_the_first_fetches_and_the_next_is_given_the_value(bench: Bench) -> None:
    _, pointer = begun(bench)
    fetched(bench, pointer)
    answer = take(bench, pointer, holder="w1:2")
    assert (answer.state, answer.data) == ("kept", DATA)
    assert (answer.expires_in, answer.renew_in) == (3600, 3300)


def test_who_comes_while_it_is_fetched_waits(bench: Bench) -> None:
    _, one = begun(bench)
    _, two = begun(bench, worker="w2")
    assert take(bench, one).state == "yours"
    assert take(bench, one).state == "yours"  # the answer was lost and is asked for again
    assert take(bench, two, worker="w2", holder="w2:1").state == "wait"
    assert put(bench, one)
    assert take(bench, two, worker="w2", holder="w2:1").state == "kept"


def test_a_turn_given_back_is_the_next_ones(bench: Bench) -> None:
    _, pointer = begun(bench)
    take(bench, pointer)
    assert put(bench, pointer, data=None)
    assert take(bench, pointer, holder="w1:2").state == "yours"


def test_a_turn_of_a_worker_that_died_runs_out(bench: Bench) -> None:
    _, pointer = begun(bench)
    take(bench, pointer)
    bench.now[0] += 31
    assert take(bench, pointer, holder="w1:2").state == "yours"
    assert not put(bench, pointer)  # the first one comes back too late
    assert put(bench, pointer, holder="w1:2")


def test_ahead_of_its_end_one_renews_and_others_use_the_old_value(bench: Bench) -> None:
    _, pointer = begun(bench)
    fetched(bench, pointer)
    bench.now[0] += 3301
    answer = take(bench, pointer, holder="w1:2")
    assert (answer.state, answer.data) == ("yours", DATA)
    assert answer.expires_in == pytest.approx(299)
    other = take(bench, pointer, holder="w1:3")
    assert (other.state, other.data) == ("kept", DATA)
    assert other.renew_in <= 5


def test_an_expired_value_is_waited_for_and_goes_with_the_turn(bench: Bench) -> None:
    _, pointer = begun(bench)
    fetched(bench, pointer)
    bench.now[0] += 3601
    answer = take(bench, pointer, holder="w1:2")
    assert (answer.state, answer.data, answer.expires_in) == ("yours", DATA, 0)
    assert take(bench, pointer, holder="w1:3").state == "wait"


@pytest.mark.parametrize(
    ("ttl", "ahead", "renew_in"), [(3600, 300, 3300), (100, 300, 80), (100, 10, 90)]
)
def test_how_long_before_its_end(ttl: float, ahead: float, renew_in: float, bench: Bench) -> None:
    _, pointer = begun(bench)
    assert take(bench, pointer).state == "yours"
    assert put(bench, pointer, ttl=ttl)
    assert take(bench, pointer, ahead=ahead).renew_in == pytest.approx(renew_in)


# ---------------------------------------------------------------------- for whom
@pytest.mark.parametrize("ask", [take, put])
def test_only_the_worker_of_a_running_attempt_that_declares_it(bench: Bench, ask: Any) -> None:
    execution_id, pointer = begun(bench)
    _, elsewhere = begun(bench, "workflow: [{step: a, tool: {kind: noop}}]")
    with pytest.raises(ForbiddenError, match="worker"):
        ask(bench, pointer, worker="w2")
    with pytest.raises(ForbiddenError, match="declares no"):
        ask(bench, elsewhere)
    with pytest.raises(ForbiddenError, match="declares no"):
        ask(bench, pointer, name="other")
    with pytest.raises(ForbiddenError, match="pool"):
        ask(bench, pointer, pool="gpu")
    with pytest.raises(ForbiddenError):
        ask(bench, pointer._replace(attempt=2))
    bench.report(pointer)
    with pytest.raises(ForbiddenError):
        ask(bench, pointer)
    bench.advance(execution_id)
    with pytest.raises(ForbiddenError):
        ask(bench, pointer)


@pytest.mark.parametrize(
    ("scope", "shared"), [("global", True), ("local", False), ("shared", False)]
)
def test_another_execution_of_the_same_version(scope: str, shared: bool, bench: Bench) -> None:
    _, one = begun(bench)
    _, two = begun(bench)
    fetched(bench, one, scope=scope)
    state = take(bench, two, scope=scope, holder="w1:2").state
    assert state == ("kept" if shared else "yours")


def test_a_new_version_begins_anew(bench: Bench) -> None:
    _, one = begun(bench)
    fetched(bench, one)
    _, two = begun(bench, DECLARES + "# changed\n")
    assert take(bench, two, holder="w1:2").state == "yours"


def test_a_shared_value_is_for_all_of_one_family(bench: Bench) -> None:
    bench.register(DECLARES, name="child")
    parent = bench.start(
        "workflow:\n- {step: a, tool: {kind: playbook, path: child}, next: {arcs: [{step: b}]}}\n"
        "- {step: b, tool: {kind: playbook, path: child}}"
    )
    bench.advance(parent)
    first = step_of(bench, bench.children(parent)[0])
    fetched(bench, first, scope="shared")
    fetched(bench, first, scope="local", holder="w1:l")
    assert bench.report(first).accepted
    bench.advance(first.execution_id)
    bench.advance(parent)
    second = step_of(bench, bench.children(parent)[1])
    assert take(bench, second, scope="shared", holder="w1:2").state == "kept"
    assert take(bench, second, scope="local", holder="w1:3").state == "yours"


def step_of(bench: Bench, execution_id: int) -> Pointer:
    """The first step of an execution, claimed."""
    bench.advance(execution_id)
    sent = [each.pointer for each in bench.dispatcher.sent]
    pointer = next(each for each in sent if each.execution_id == execution_id)
    assert bench.claim(pointer).granted
    return pointer


def test_a_pool_of_its_own_has_values_of_its_own(bench: Bench) -> None:
    """A credential may be for one pool only: what it opened must not reach another."""
    text = DECLARES.replace("step: a,", "step: a, spec: {pool: gpu},")
    _, pointer = begun(bench, text)
    fetched(bench, pointer, pool="gpu")
    (row,) = bench.ports.custody.tokens.rows(_catalog_id(bench))
    assert row.cache_key.endswith(":global:pool:gpu")


def test_what_the_default_pool_fetched_is_not_for_another(bench: Bench) -> None:
    execution_id, first = begun(bench, TWO_POOLS)
    fetched(bench, first)
    bench.report(first)
    (second,) = bench.advance(execution_id)
    assert bench.claim(second).granted
    answer = take(bench, second, pool="gpu", holder="w1:2")
    assert (answer.state, answer.data) == ("yours", None)


def test_values_of_two_workloads_are_apart(bench: Bench) -> None:
    _, pointer = begun(bench)
    fetched(bench, pointer, digest="a" * 24)
    assert take(bench, pointer, digest="b" * 24, holder="w1:2").state == "yours"
    assert take(bench, pointer, digest="a" * 24, holder="w1:3").state == "kept"


# ---------------------------------------------------------------------- what is kept
def _catalog_id(bench: Bench) -> int:
    return bench.control.catalog.entry("t").catalog_id


def test_a_value_is_sealed_for_its_key(bench: Bench) -> None:
    _, pointer = begun(bench)
    with capture_logs() as told:
        fetched(bench, pointer)
        fetched(bench, pointer, scope="local", holder="w1:2")
    store = bench.ports.custody.tokens
    rows = store.rows(_catalog_id(bench))
    assert len(rows) == 2
    assert "canary" not in str(rows) + str([row.sealed for row in rows]) + str(told)
    # Put in each other's place they do not open, and are fetched anew.
    for row, other in (rows, rows[::-1]):
        store.put(type(row)(row.place, other.sealed, row.expires_at, row.created_at))
    assert take(bench, pointer, holder="w1:3").state == "yours"


def test_what_a_client_keeps_is_given_whatever_the_workload(bench: Bench) -> None:
    _, pointer = begun(bench)
    given = KeychainPut(token_data={"access_token": "canary-given"})
    bench.control.tokens.keep(_catalog_id(bench), "api", given)
    for digest in ("", "a" * 24):
        assert take(bench, pointer, digest=digest).data == {"access_token": "canary-given"}


@pytest.mark.parametrize(
    ("given", "life"),
    [
        ({"ttl_seconds": 60}, 60),
        ({"expires_at": "2027-01-15T08:00:00Z"}, 0),
        ({}, 604_800),
        ({"scope_type": "local", "execution_id": "7"}, 3_600),
    ],
)
def test_how_long_a_clients_value_is_kept(given: dict[str, Any], life: float, bench: Bench) -> None:
    begun(bench)
    put = KeychainPut(token_data={"a": "b"}, **given)
    row = bench.control.tokens.keep(_catalog_id(bench), "api", put)
    assert bench.control.tokens.left(row) == life


@pytest.mark.parametrize(
    "given",
    [
        {"scope_type": "local"},
        {"scope_type": "shared", "execution_id": "x"},
        {"ttl_seconds": 1, "expires_at": "2027-01-15T08:00:00Z"},
        {"token_data": {"a": "x" * 2_000_000}},
    ],
)
def test_what_cannot_be_kept_is_refused(given: dict[str, Any], bench: Bench) -> None:
    begun(bench)
    put = KeychainPut(**{"token_data": {"a": "b"}, **given})
    with pytest.raises(BadRequestError):
        bench.control.tokens.keep(_catalog_id(bench), "api", put)


def test_a_playbook_that_is_not_there_is_not_found(bench: Bench) -> None:
    tokens = bench.control.tokens
    for call in (
        lambda: tokens.values(99),
        lambda: tokens.get(99, "api"),
        lambda: tokens.forget(99, "api", None, None),
        lambda: tokens.keep(99, "api", KeychainPut(token_data={"a": "b"})),
    ):
        with pytest.raises(NotFoundError):
            call()


def test_places_have_the_keys_that_users_know() -> None:
    assert TokenPlace("api", 5).cache_key == "api:5:global"
    assert TokenPlace("api", 5, "local", 7).cache_key == "api:5:7"
    assert TokenPlace("api", 5, "shared", 7).cache_key == "api:5:shared:7"
