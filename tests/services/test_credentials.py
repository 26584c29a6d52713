"""Credentials: who may have them, where, and what is told of them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.engine.custody import CredentialDraft
from app.engine.ports import Pointer
from app.errors import BadRequestError, CallboardError, ForbiddenError, NotFoundError
from app.services.credentials import TEST
from app.wire import CredentialPut, CredentialScope, SecretRequest
from tests.engine.driver import KINDS, FakeKind
from tests.services.conftest import Bench

PASSWORD = "correct-horse-battery"
DATA = {"host": "db", "user": "etl", "password": PASSWORD}
NAMES_IT = """
workflow:
- {step: a, tool: {kind: noop, auth: pg}, next: {arcs: [{step: b}]}}
- {step: b, tool: {kind: noop}}
"""


def kept(bench: Bench, name: str = "pg", **more: Any) -> None:
    bench.control.credentials.put(CredentialPut(name=name, type="postgres", data=DATA, **more))


def ask(
    bench: Bench,
    pointer: Pointer,
    name: str = "pg",
    *,
    worker: str = "w1",
    pool: str | None = None,
) -> dict[str, Any]:
    request = SecretRequest(**pointer._asdict(), worker=worker, name=name)
    return bench.control.credentials.hand_out(request, pool).data


def begun(
    bench: Bench, workflow: str = NAMES_IT, payload: dict[str, Any] | None = None
) -> tuple[int, Pointer]:
    """An execution whose first step is claimed by w1."""
    execution_id = bench.start(workflow, payload)
    (pointer,) = bench.advance(execution_id)
    assert bench.claim(pointer).granted
    return execution_id, pointer


# ---------------------------------------------------------------------- who
def test_the_worker_of_a_claimed_attempt_gets_it(bench: Bench) -> None:
    kept(bench)
    _, pointer = begun(bench)
    assert ask(bench, pointer) == DATA


def test_before_the_claim_nobody_gets_it(bench: Bench) -> None:
    kept(bench)
    (pointer,) = bench.advance(bench.start(NAMES_IT))
    with pytest.raises(ForbiddenError, match="'pg' is for the worker of an attempt that runs"):
        ask(bench, pointer)


def test_another_worker_does_not_get_it(bench: Bench) -> None:
    kept(bench)
    _, pointer = begun(bench)
    with pytest.raises(ForbiddenError):
        ask(bench, pointer, worker="w2")


def test_after_the_step_has_ended_nobody_gets_it(bench: Bench) -> None:
    kept(bench)
    _, pointer = begun(bench)
    assert bench.report(pointer).accepted
    with pytest.raises(ForbiddenError):
        ask(bench, pointer)


def test_after_the_execution_has_ended_nobody_gets_it(bench: Bench) -> None:
    kept(bench)
    execution_id, pointer = begun(bench)
    bench.control.executions.cancel(execution_id)
    bench.advance(execution_id)
    with pytest.raises(ForbiddenError):
        ask(bench, pointer)


def test_an_attempt_that_was_given_up_does_not_get_it(bench: Bench) -> None:
    kept(bench)
    execution_id, pointer = begun(bench)
    bench.report(pointer, outcome="failed", error={"kind": "x", "message": "x"}, retry_in=0.0)
    with pytest.raises(ForbiddenError):
        ask(bench, pointer)
    (again,) = bench.advance(execution_id)
    assert bench.claim(again, worker="w2").granted
    assert ask(bench, again, worker="w2") == DATA
    with pytest.raises(ForbiddenError):
        ask(bench, pointer)


@pytest.mark.parametrize(
    "changed",
    [{"attempt": 2}, {"visit": 2}, {"iteration": 0}, {"step": "b"}, {"execution_id": 7}],
)
def test_an_attempt_that_there_is_not_gets_nothing(bench: Bench, changed: dict[str, Any]) -> None:
    kept(bench)
    _, pointer = begun(bench)
    with pytest.raises(ForbiddenError):
        ask(bench, pointer._replace(**changed))


def test_a_token_of_another_pool_gets_nothing(bench: Bench) -> None:
    kept(bench)
    _, pointer = begun(bench)
    assert ask(bench, pointer, pool="default") == DATA
    with pytest.raises(ForbiddenError, match="this token is for the pool 'gpu'"):
        ask(bench, pointer, pool="gpu")


# ---------------------------------------------------------------------- what
TEMPLATED = 'auth: "{{ workload.auth }}"'


@pytest.mark.parametrize(
    ("workflow", "payload"),
    [
        pytest.param("workflow: [{step: a, tool: {kind: noop, auth: pg}}]", {}, id="in a step"),
        pytest.param(
            "workflow: [{step: a, tool: {kind: noop, auth: {x: {credential: pg}}}}]",
            {},
            id="under an alias",
        ),
        pytest.param(
            f"workload: {{auth: pg}}\nworkflow: [{{step: a, tool: {{kind: noop, {TEMPLATED}}}}}]",
            {},
            id="in the workload",
        ),
        pytest.param(
            f"workload: {{auth: x}}\nworkflow: [{{step: a, tool: {{kind: noop, {TEMPLATED}}}}}]",
            {"auth": "pg"},
            id="in the payload",
        ),
        pytest.param(
            f"workflow: [{{step: a, tool: {{kind: noop, {TEMPLATED}}}}}]",
            {"deep": {"er": [{"name": "pg"}]}},
            id="deep in the payload",
        ),
        pytest.param(
            "workbook: [{name: w, tool: {kind: noop, auth: pg}}]\n"
            "workflow: [{step: a, tool: {kind: workbook, name: w}}]",
            {},
            id="in the workbook",
        ),
        pytest.param(
            "keychain: [{name: k, kind: credential, ref: pg}]\n"
            "workflow: [{step: a, tool: {kind: noop}}]",
            {},
            id="in the keychain",
        ),
        pytest.param(
            "workflow: [{step: a, tool: {kind: noop, auth: \"{{ db | default('pg') }}\"}}]",
            {},
            id="within a template",
        ),
        pytest.param(
            "workflow: [{step: a, tool: {kind: noop, auth: '{% if x %}a{% else %}{{ \"pg\" }}{% endif %}'}}]",
            {},
            id="within a template of several parts",
        ),
        pytest.param(
            "workflow: [{step: a, tool: {kind: noop, auth: 'p{{ workload.end }}'}}]",
            {"end": "g"},
            id="computed from the workload",
        ),
        pytest.param(
            "workflow: [{step: a, tool: {kind: noop, auth: {x: {credential: 'p{{ end }}'}}}}]",
            {"end": "g"},
            id="computed below an alias",
        ),
        pytest.param(
            "executor: {requires: {credentials: [pg]}}\n"
            "workflow: [{step: a, tool: {kind: noop, auth: '{{ x }}'}}]",
            {},
            id="as required",
        ),
    ],
)
def test_a_playbook_names_it(bench: Bench, workflow: str, payload: dict[str, Any]) -> None:
    kept(bench)
    _, pointer = begun(bench, workflow, payload)
    assert ask(bench, pointer) == DATA


@pytest.mark.parametrize(
    ("workflow", "payload"),
    [
        pytest.param("workflow: [{step: a, tool: {kind: noop}}]", {}, id="not at all"),
        pytest.param(
            "workflow: [{step: a, tool: {kind: noop, auth: 'p{{ ctx.end }}'}}]",
            {},
            id="computed from more than the workload",
        ),
        pytest.param(
            "workflow: [{step: a, tool: {kind: noop}},"
            " {step: b, tool: {kind: noop, auth: 'p{{ workload.end }}'}}]",
            {"end": "g"},
            id="computed for another step",
        ),
        pytest.param("workflow: [{step: a, tool: {kind: noop, auth: pg2}}]", {}, id="as a part"),
        pytest.param(
            "workflow: [{step: a, tool: {kind: noop, message: \"{{ x }} 'pg' {{ y }}\"}}]",
            {},
            id="quoted outside a template",
        ),
        pytest.param("workflow: [{step: a, tool: {kind: noop}}]", {"pg": 1}, id="as a key"),
    ],
)
def test_a_playbook_that_does_not_name_it_gets_nothing(
    bench: Bench, workflow: str, payload: dict[str, Any]
) -> None:
    kept(bench)
    _, pointer = begun(bench, workflow, payload)
    with pytest.raises(ForbiddenError, match=r"'t' does not name .*'pg' .*requires.credentials"):
        ask(bench, pointer)


def test_what_is_named_and_not_kept(bench: Bench) -> None:
    _, pointer = begun(bench)
    with pytest.raises(NotFoundError, match=r"no credential 'pg' .*NOETL_SECRET_PG"):
        ask(bench, pointer)


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        ({}, None),
        ({"paths": ["t"]}, None),
        ({"paths": ["x", "?"]}, None),
        ({"paths": ["*"], "pools": ["def*"]}, None),
        ({"paths": ["etl/*"]}, "the playbook 't'"),
        ({"paths": ["T"]}, "the playbook 't'"),
        ({"pools": ["gpu"]}, "the pool 'default'"),
        ({"paths": ["t"], "pools": ["gpu"]}, "the pool 'default'"),
    ],
)
def test_scopes(bench: Bench, scope: dict[str, Any], told: str | None) -> None:
    kept(bench, scope=CredentialScope(**scope))
    _, pointer = begun(bench)
    if told is None:
        assert ask(bench, pointer) == DATA
    else:
        with pytest.raises(ForbiddenError, match=f"'pg' is not for {re.escape(told)}"):
            ask(bench, pointer)


def test_a_changed_credential_is_handed_out_as_it_is_now(bench: Bench) -> None:
    kept(bench)
    _, pointer = begun(bench)
    ask(bench, pointer)
    bench.control.credentials.put(CredentialPut(name="pg", type="bearer", data={"token": "t"}))
    assert ask(bench, pointer) == {"token": "t"}
    bench.control.credentials.delete("pg")
    with pytest.raises(NotFoundError):
        ask(bench, pointer)


def test_a_hand_out_is_logged_by_name_and_not_by_value(bench: Bench) -> None:
    with capture_logs() as lines:
        kept(bench)
        execution_id, pointer = begun(bench)
        ask(bench, pointer)
    (line,) = [line for line in lines if line["event"] == "credential.handed_out"]
    assert (line["credential"], line["execution_id"], line["worker"]) == ("pg", execution_id, "w1")
    assert PASSWORD not in repr(lines)


# ---------------------------------------------------------------------- keep and show
def test_two_rows_that_were_swapped_do_not_open(bench: Bench) -> None:
    kept(bench)
    bench.control.credentials.put(
        CredentialPut(name="open", type="generic", data={"value": "harmless"})
    )
    store = bench.ports.custody.credentials
    row = store.named("pg")
    assert row is not None
    store.put(CredentialDraft("open", "generic", row.sealed))
    with pytest.raises(CallboardError, match="credential:open fails authentication"):
        bench.control.credentials.shown(bench.control.credentials.get("open"))


def test_found_by_name_and_by_id(bench: Bench) -> None:
    kept(bench)
    row = bench.control.credentials.get("pg")
    assert bench.control.credentials.get(str(row.id)) == row
    for name in ("none", "999", "-1", "9" * 40, "²"):
        with pytest.raises(NotFoundError, match="there is no credential"):
            bench.control.credentials.get(name)


def test_secrets_are_masked_when_shown(bench: Bench) -> None:
    kept(bench)
    shown = bench.control.credentials.shown(bench.control.credentials.get("pg"))
    assert shown == {**DATA, "password": "***"}


@pytest.mark.parametrize("name", [" pg", "pg\n", "123", "a/b", "{{ x }}"])
def test_names_that_nothing_could_mean(bench: Bench, name: str) -> None:
    with pytest.raises(BadRequestError):
        kept(bench, name)


def test_what_does_not_fit_its_type_is_refused_without_its_value(bench: Bench) -> None:
    wrong = CredentialPut(name="pg", type="postgres", data={"port": PASSWORD, "hots": PASSWORD})
    with pytest.raises(BadRequestError) as raised:
        bench.control.credentials.put(wrong)
    told = str(raised.value)
    assert "port must be a whole number" in told
    assert "hots is not known: is it host?" in told
    assert PASSWORD not in told + repr(raised.value.__cause__) + repr(raised.value.__context__)
    assert bench.control.credentials.list() == []


# ---------------------------------------------------------------------- tests of credentials
def test_a_test_is_an_execution_of_one_playbook_that_may_have_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "credential", FakeKind())
    with pytest.raises(NotFoundError):
        bench.control.credentials.test("pg")
    kept(bench)
    first, second = (bench.control.credentials.test("pg") for _ in range(2))
    assert first.entry == second.entry
    assert (first.entry.path, first.entry.version) == ("callboard/credential-test", 1)
    (pointer,) = bench.advance(first.execution_id)
    answer = bench.claim(pointer)
    assert answer.variables is not None
    assert answer.variables.workload == {"credential": "pg"}
    assert ask(bench, pointer) == DATA


def test_a_test_is_no_way_around_a_scope(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "credential", FakeKind())
    kept(bench, scope=CredentialScope(paths=["etl/*"]))
    (pointer,) = bench.advance(bench.control.credentials.test("pg").execution_id)
    assert bench.claim(pointer).granted
    assert ask(bench, pointer) == DATA
    # What was registered over it is a playbook like any other.
    head = TEST.partition("workload")[0]
    forged = bench.control.catalog.register(head + NAMES_IT)
    started = bench.control.executions.start(catalog_id=forged.catalog_id)
    (pointer,) = bench.advance(started.execution_id)
    assert bench.claim(pointer).granted
    with pytest.raises(ForbiddenError, match="the playbook 'callboard/credential-test'"):
        ask(bench, pointer)
    kept(bench, scope=CredentialScope(pools=["gpu"]))
    (pointer,) = bench.advance(bench.control.credentials.test("pg").execution_id)
    assert bench.claim(pointer).granted
    with pytest.raises(ForbiddenError, match="the pool 'default'"):
        ask(bench, pointer)
