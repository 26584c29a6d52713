"""The keychain and the secrets of steps, end to end: real engine, worker, tools and HTTP servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from app.actors.steps import Runner
from app.engine.encoding import dumps
from app.engine.ports import ExecutionFilter, Pointer
from app.keychain.entries import KINDS
from app.services.control import Ports, control
from app.services.desk import Desk
from app.settings import load
from app.store.ids import Snowflake
from app.store.memory import MemoryCatalog, MemoryLog, MemoryRuntime
from app.store.memory_tokens import MemoryTokens
from app.wire import CredentialPut
from app.wiring import ToolKinds, memory_custody
from tests.keychain.authority import CLIENT_SECRET, SECRETS, VAULT_TOKEN, Authority
from tests.keychain.authority import authority as serve
from tests.services.conftest import Bench, Recorder
from tests.waits import until

PASSWORD = SECRETS["app/db"]["password"]

API = """
keychain:
- {name: api, kind: oauth2, auth: client, auto_renew: true}
- {name: unused, kind: secrets, provider: vault, auth: nobody, map: {a: b/c}}
workload: {url: ''}
workflow:
- step: start
  tool:
    kind: http
    method: POST
    url: "{{ url }}/echo"
    headers: {authorization: "Bearer {{ keychain.api.access_token }}"}
    json: {token: "{{ keychain.api.access_token }}"}
"""


@pytest.fixture
def authority() -> Iterator[Authority]:
    with serve() as state:
        yield state


@pytest.fixture
def bench(authority: Authority, tmp_path: Path) -> Bench:
    """A control plane with all tools, and the credentials that the playbooks below name."""
    now = [time.time()]
    clock = lambda: now[0]  # noqa: E731 (one clock for everything)
    runtime, recorder = MemoryRuntime(clock=clock), Recorder()
    ports = Ports(
        events=MemoryLog(runtime, clock=clock),
        catalog=MemoryCatalog(clock=clock),
        runtime=runtime,
        dispatcher=recorder,
        kinds=ToolKinds(),
        clock=clock,
        new_id=Snowflake(clock=clock),
        custody=replace(memory_custody(), tokens=MemoryTokens(clock=clock)),
    )
    plane = control(ports, load({}, home=tmp_path, eager=False).settings)
    token_url = f"{authority.url}/token"
    client = {"client_id": "me", "client_secret": CLIENT_SECRET, "token_url": token_url}
    plane.credentials.put(CredentialPut(name="client", type="oauth2", data=client))
    vault = {"address": authority.url, "token": VAULT_TOKEN}
    plane.credentials.put(CredentialPut(name="vault", type="vault", data=vault))
    return Bench(plane, ports, recorder, now)


def runner_of(bench: Bench, name: str = "w1", **secrets: str) -> Runner:
    """A worker process of its own."""
    return Runner(Desk(bench.control), load({}).settings, ToolKinds(), secrets, name=name)


def ran(bench: Bench, runner: Runner, text: str, **payload: Any) -> Any:
    """The last step's event of a playbook, run to its end."""
    return finished(bench, runner, start(bench, text, payload))


def start(bench: Bench, text: str, payload: dict[str, Any]) -> int:
    """An execution of the playbook; the same text is the same version."""
    known = bench.control.catalog.find("t")
    if known is None or not known.content.endswith(text):
        known = bench.register(text)
    return bench.control.executions.start(catalog_id=known.catalog_id, payload=payload).execution_id


def finished(bench: Bench, runner: Runner, execution_id: int) -> Any:
    for _ in range(20):
        pointers = bench.advance(execution_id)
        for pointer in pointers:
            runner.run(pointer)
        if not pointers:
            break
    steps = [
        e.event for e in bench.log(execution_id) if e.event.type in {"step.done", "step.failed"}
    ]
    return steps[-1]


def begun(bench: Bench, text: str, **payload: Any) -> tuple[int, Pointer]:
    execution_id = start(bench, text, payload)
    (pointer,) = bench.advance(execution_id)
    return execution_id, pointer


def logs(bench: Bench) -> str:
    """All that any log of an execution holds."""
    ids = [row.execution_id for row in bench.ports.events.executions(ExecutionFilter())]
    assert ids
    return "".join(
        dumps({"event": entry.event.__class__.__name__, "data": _plain(entry.event)}).decode()
        for execution_id in ids
        for entry in bench.log(execution_id)
    )


def _plain(event: Any) -> Any:
    return {name: getattr(event, name) for name in event.__slots__}


# ---------------------------------------------------------------------- tokens
def test_a_token_reaches_the_server_and_nothing_of_it_the_log(
    bench: Bench, authority: Authority
) -> None:
    done = ran(bench, runner_of(bench), API, url=authority.url)
    assert done.type == "step.done"
    (token,) = authority.tokens
    (echoed,) = authority.of("/echo")
    assert echoed.headers["authorization"] == f"Bearer {token}"
    assert token in echoed.body
    assert done.result["data"]["headers"]["authorization"] == "Bearer ***"
    text = logs(bench)
    assert token not in text
    assert CLIENT_SECRET not in text


def test_twenty_steps_on_two_workers_ask_once(bench: Bench, authority: Authority) -> None:
    authority.gate.clear()
    pointers = [begun(bench, API, url=authority.url)[1] for _ in range(20)]
    runners = [runner_of(bench, "w1"), runner_of(bench, "w2")]
    threads = [
        threading.Thread(target=runners[number % 2].run, args=(pointer,))
        for number, pointer in enumerate(pointers)
    ]
    for thread in threads:
        thread.start()
    until(lambda: authority.of("/token"))
    authority.gate.set()
    for thread in threads:
        thread.join(60)
    assert len(authority.of("/echo")) == 20
    assert len(authority.of("/token")) == 1
    # It is masked for those, too, who were given what others had asked for.
    text = logs(bench)
    assert text.count("Bearer ***") >= 20
    assert authority.tokens[0] not in text


def test_a_token_is_renewed_ahead_of_its_end_by_one_while_others_use_the_old_one(
    bench: Bench, authority: Authority
) -> None:
    ran(bench, runner_of(bench, "first"), API, url=authority.url)
    bench.now[0] += 3600 - 200  # less than the 300 s of the setting are left
    authority.gate.clear()
    renewing = runner_of(bench, "renewing")
    _, pointer = begun(bench, API, url=authority.url)
    thread = threading.Thread(target=renewing.run, args=(pointer,))
    thread.start()
    until(lambda: len(authority.of("/token")) == 2)
    ran(bench, runner_of(bench, "other"), API, url=authority.url)
    authority.gate.set()
    thread.join(60)
    one, two = authority.tokens
    used = [each.headers["authorization"].removeprefix("Bearer ") for each in authority.of("/echo")]
    assert used == [one, one, two]
    ran(bench, runner_of(bench, "later"), API, url=authority.url)
    assert len(authority.of("/token")) == 2


def test_a_renewal_that_fails_leaves_the_old_token_until_its_end(
    bench: Bench, authority: Authority
) -> None:
    ran(bench, runner_of(bench, "first"), API, url=authority.url)
    authority.instead["/token"] = (503, {})
    bench.now[0] += 3600 - 200
    assert ran(bench, runner_of(bench, "second"), API, url=authority.url).type == "step.done"
    bench.now[0] += 201
    failed = ran(bench, runner_of(bench, "third"), API, url=authority.url)
    assert failed.type == "step.failed"
    assert (failed.error["kind"], failed.error["retryable"]) == ("connection", True)
    assert "'api'" in failed.error["message"]


def test_a_failure_is_asked_for_once_by_those_who_wait(bench: Bench, authority: Authority) -> None:
    authority.gate.clear()
    authority.instead["/token"] = (401, {"error": "invalid_client"})
    begun_ones = [begun(bench, API, url=authority.url) for _ in range(8)]
    runner = runner_of(bench)
    threads = [threading.Thread(target=runner.run, args=(pointer,)) for _, pointer in begun_ones]
    for thread in threads:
        thread.start()
    flights = runner._vaults.held._flights  # nothing outside tells that they wait
    until(lambda: sum(flight.waiting for flight in list(flights.values())) == 8)
    until(lambda: authority.of("/token"))
    authority.gate.set()
    for thread in threads:
        thread.join(60)
    ends: list[Any] = [bench.log(execution_id)[-1].event for execution_id, _ in begun_ones]
    assert [(end.type, end.error["kind"]) for end in ends] == [("step.failed", "auth")] * 8
    assert len(authority.of("/token")) == 1


def test_a_turn_ends_whatever_happens_in_it(
    bench: Bench, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> NoReturn:
        raise TypeError("a bug")

    with monkeypatch.context() as patch:
        patch.setitem(KINDS, "oauth2", replace(KINDS["oauth2"], resolve=crash))
        assert ran(bench, runner_of(bench), API, url=authority.url).type == "step.failed"
    # The clock stands still, so a turn that was not given back would never run out.
    assert ran(bench, runner_of(bench, "other"), API, url=authority.url).type == "step.done"


def test_different_workloads_do_not_share_a_secret(bench: Bench, authority: Authority) -> None:
    text = """
keychain:
- {name: db, kind: secrets, provider: vault, auth: vault, map: {one: "secret/app/{{ which }}"}}
workload: {which: '', url: ''}
workflow:
- step: start
  tool: {kind: http, method: POST, url: "{{ url }}/echo", body: "{{ keychain.db.one }}"}
"""
    runner = runner_of(bench)
    for which in ("db#username", "plain#value", "db#username"):
        ran(bench, runner, text, which=which, url=authority.url)
    bodies = [each.body for each in authority.of("/echo")]
    assert bodies == ["app", SECRETS["app/plain"]["value"], "app"]
    assert len(authority.of("/v1/secret/data/app/db")) == 1


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        pytest.param("keychain.none.x", "no entry 'none'", id="no entry"),
        pytest.param("keychain.api.none", "no field 'none'", id="no field"),
        pytest.param("keychain.unused.a", "'unused'", id="cannot be resolved"),
        pytest.param("keychain['none'] | default('x')", "no entry 'none'", id="default"),
    ],
)
@pytest.mark.parametrize("frame", ["{{ %s }}", "Bearer {{ %s }}"])
def test_what_cannot_be_resolved_fails_the_step_and_names_it(
    expression: str, said: str, frame: str, bench: Bench, authority: Authority
) -> None:
    text = API.replace("Bearer {{ keychain.api.access_token }}", frame % expression)
    failed = ran(bench, runner_of(bench), text, url=authority.url)
    assert failed.type == "step.failed"
    assert failed.error["kind"] == "auth"
    assert said in failed.error["message"]
    assert authority.of("/echo") == []


def test_a_keychain_that_is_not_there_is_no_empty_text(bench: Bench, authority: Authority) -> None:
    text = API[API.index("workload") :]
    failed = ran(bench, runner_of(bench), text, url=authority.url)
    assert (failed.type, failed.error["kind"]) == ("step.failed", "auth")
    assert "no entry 'api'" in failed.error["message"]


def test_data_may_be_called_keychain(bench: Bench) -> None:
    text = """
workload: {keychain: {a: 1}}
workflow: [{step: start, tool: {kind: noop, result: "{{ keychain.a }}"}}]
"""
    assert ran(bench, runner_of(bench), text).result == 1


# ---------------------------------------------------------------------- the tool secrets
SINGLE = """
workload: {url: ''}
workflow:
- step: secret
  tool: {kind: secrets, provider: vault, auth: vault, name: secret/app/db, field: password}
  next: {arcs: [{step: use}]}
- step: use
  tool: {kind: http, method: POST, url: "{{ url }}/echo", body: "{{ secret.value }}"}
"""
SEQUENCE = """
workload: {url: ''}
workflow:
- step: secret
  tool:
  - before: {kind: python, code: "return {'_secret': {'provider': 'env', 'name': 'other'}}"}
  - look: {kind: secrets, provider: vault, auth: vault, name: secret/app/db, field: password}
  - use: {kind: http, method: POST, url: "{{ url }}/echo", body: "{{ look.value }}"}
  next: {arcs: [{step: use}]}
- step: use
  tool: {kind: http, method: POST, url: "{{ url }}/echo", body: "{{ secret.look.value }}"}
  next: {arcs: [{step: flat}]}
- step: flat
  tool: {kind: http, method: POST, url: "{{ url }}/echo", body: "{{ secret.value }}"}
"""
LOOP = """
workload: {url: ''}
workflow:
- step: secret
  loop: {in: [username, password], iterator: field}
  tool: {kind: secrets, provider: vault, auth: vault, name: secret/app/db, field: "{{ iter.field }}"}
  next: {arcs: [{step: use}]}
- step: use
  tool: {kind: http, method: POST, url: "{{ url }}/echo", body: "{{ secret.results[1].value }}"}
"""


@pytest.mark.parametrize("text", [SINGLE, SEQUENCE, LOOP], ids=["single", "sequence", "loop"])
def test_later_steps_read_a_secret_that_the_log_does_not_hold(
    text: str, bench: Bench, authority: Authority
) -> None:
    done = ran(bench, runner_of(bench, other="canary-other"), text, url=authority.url)
    assert done.type == "step.done"
    assert {each.body for each in authority.of("/echo")} == {PASSWORD}
    assert PASSWORD not in logs(bench)
    assert "canary-other" not in logs(bench)


def test_a_step_of_another_process_asks_again(bench: Bench, authority: Authority) -> None:
    execution_id, pointer = begun(bench, SINGLE, url=authority.url)
    runner_of(bench, "first").run(pointer)
    done = finished(bench, runner_of(bench, "second"), execution_id)
    assert done.type == "step.done"
    assert authority.of("/echo")[0].body == PASSWORD
    assert len(authority.of("/v1/secret/data/app/db")) == 2


def test_a_question_in_other_data_is_not_asked(bench: Bench, authority: Authority) -> None:
    text = """
workload: {url: ''}
workflow:
- step: secret
  tool:
    kind: python
    code: "return {'value': '***', '_secret': {'provider': 'env', 'name': 'other'}}"
  next: {arcs: [{step: use}]}
- step: use
  tool: {kind: http, method: POST, url: "{{ url }}/echo", body: "{{ secret.value }}"}
"""
    ran(bench, runner_of(bench, other="canary-other"), text, url=authority.url)
    assert authority.of("/echo")[0].body == "***"


def test_a_question_under_the_name_of_a_task_that_did_not_run_is_not_asked(
    bench: Bench, authority: Authority
) -> None:
    text = """
workload: {url: ''}
workflow:
- step: secret
  tool:
  - forge:
      kind: python
      code: "return {'look': {'value': '***', '_secret': {'provider': 'env', 'name': 'other'}}}"
      spec: {policy: {rules: [{else: {then: {do: break}}}]}}
  - look: {kind: secrets, provider: env, secret: mine}
  next: {arcs: [{step: use}]}
- step: use
  tool: {kind: http, method: POST, url: "{{ url }}/echo", body: "{{ secret.look | default('') }}"}
"""
    ran(bench, runner_of(bench, other="canary-other"), text, url=authority.url)
    assert "canary" not in authority.of("/echo")[0].body


def test_a_secret_survives_being_parked(bench: Bench, authority: Authority) -> None:
    bench.register("workflow: [{step: start, tool: {kind: noop}}]", name="child")
    text = """
workload: {url: ''}
workflow:
- step: secret
  tool:
  - look: {kind: secrets, provider: vault, auth: vault, name: secret/app/db, field: password}
  - wait: {kind: playbook, path: child}
  - use: {kind: http, method: POST, url: "{{ url }}/echo", body: "{{ look.value }}"}
"""
    execution_id, pointer = begun(bench, text, url=authority.url)
    runner_of(bench, "first").run(pointer)
    assert bench.types(execution_id)[-1] == "step.parked"
    bench.advance(execution_id)
    (child,) = bench.children(execution_id)
    bench.settle(child)
    sent = [each.pointer for each in bench.dispatcher.sent]
    again = [each for each in sent if each.execution_id == execution_id and each != pointer]
    runner_of(bench, "second").run(again[-1])
    done: Any = bench.log(execution_id)[-1].event
    assert done.type == "step.done"
    assert authority.of("/echo")[0].body == PASSWORD
    assert PASSWORD not in logs(bench)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("127.0.0.1:8082", id="our own API"),
        pytest.param("0.0.0.0:8082", id="in other words"),
        pytest.param("[64:ff9b::a9fe:a9fe]", id="metadata through NAT64"),
        pytest.param("[::a9fe:a9fe]", id="metadata inside IPv6"),
        pytest.param("168.63.129.16", id="metadata of Azure"),
    ],
)
def test_an_endpoint_from_data_leads_nowhere_that_http_may_not_go(bench: Bench, place: str) -> None:
    text = API.replace("auth: client, auto_renew: true", "endpoint: 'http://{{ url }}/api/x'")
    error = ran(bench, runner_of(bench), text, url=place).error
    assert (error["kind"], error["code"]) == ("auth", "refused_address")
    assert "may not be asked" in error["message"]
