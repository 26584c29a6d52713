"""The life of an attempt on a worker, with the real control plane in memory and the real tools."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from app.actors.fetching import Asker
from app.actors.reporting import printable
from app.actors.sequence import Outcome
from app.actors.steps import Runner, _tried_again
from app.actors.vault import Vault, Vaults
from app.engine.language.parse import parse_step
from app.engine.ports import Pointer
from app.engine.templates.scope import Scope
from app.errors import BadRequestError, NotFoundError, ToolError, UnavailableError
from app.services.desk import Desk
from app.services.work import Worked
from app.settings import load
from app.wire import (
    ArtifactAnswer,
    ArtifactRequest,
    Exchange,
    ExchangeAnswer,
    LogAnswer,
    LogBatch,
    PointerWire,
    SecretAnswer,
    SecretRequest,
    TokenAnswer,
    TokenPut,
    TokenPutAnswer,
    TokenRequest,
    ValueRequest,
)
from app.wiring import ToolKinds
from tests.services.conftest import Bench, bench, make_bench  # noqa: F401 (fixtures)


def runner_of(bench: Bench, **settings: Any) -> Runner:  # noqa: F811 (the fixture's value)
    return Runner(Desk(bench.control), load({}, **settings).settings, ToolKinds(), {}, name="w1")


def step(tool: str) -> str:
    return f"workflow: [{{step: start, tool: {tool}}}]"


def ended(bench: Bench, tool: str, **settings: Any) -> Any:  # noqa: F811 (the fixture's value)
    """How the only step of a playbook ended: its last event."""
    execution_id = bench.start(step(tool))
    (pointer,) = bench.advance(execution_id)
    runner_of(bench, **settings).run(pointer)
    return bench.log(execution_id)[-1].event


def test_a_step_runs_and_its_result_is_in_the_log(bench: Bench) -> None:  # noqa: F811
    event = ended(bench, '{kind: python, code: \'print("hello"); result = {"n": 1}\'}')
    assert (event.type, event.result) == ("step.done", {"n": 1})
    assert "hello" in event.tail


@pytest.mark.parametrize(
    ("code", "said"),
    [
        pytest.param('result = "a" + chr(0)', "NUL", id="NUL"),
        pytest.param('result = {"deep": ["x" + chr(0)]}', "NUL", id="NUL inside"),
        pytest.param('result = "x" * 200000', "CALLBOARD_RESULT_BYTES", id="too large"),
    ],
)
def test_a_result_that_cannot_be_kept_fails_the_step(bench: Bench, code: str, said: str) -> None:  # noqa: F811
    event = ended(bench, f"{{kind: python, code: '{code}'}}", result_bytes=100_000)
    assert event.type == "step.failed"
    assert said in event.error["message"]


def test_an_error_with_odd_characters_is_still_told(bench: Bench) -> None:  # noqa: F811
    event = ended(bench, "{kind: python, code: 'raise ValueError(\"bad\" + chr(0) + chr(0xd800))'}")
    assert event.type == "step.failed"
    assert "bad" in event.error["message"]
    assert "\0" not in event.error["message"]


def test_a_crash_of_a_tool_ends_the_step(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def crash(*_: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr("app.actors.steps.TaskSequence.run", crash)
    event = ended(bench, "{kind: noop}")
    assert (event.type, event.error["kind"]) == ("step.failed", "internal")


def test_an_outcome_that_cannot_be_reported_ends_the_step(
    bench: Bench,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("a bug of ours that tells a secret")

    monkeypatch.setattr("app.actors.steps.masked", crash)
    event = ended(bench, "{kind: noop}")
    assert (event.type, event.error["kind"]) == ("step.failed", "internal")
    assert "secret" not in event.error["message"]


def test_a_refused_claim_runs_nothing(bench: Bench) -> None:  # noqa: F811
    execution_id = bench.start(step("{kind: noop}"))
    (pointer,) = bench.advance(execution_id)
    assert bench.claim(pointer, worker="another").granted
    runner_of(bench).run(pointer)
    assert bench.types(execution_id)[-1] == "step.started"


class Flaky:
    """A control plane whose answers get lost: it does what it is asked, and the caller hears nothing."""

    def __init__(self, exchange: Callable[[Exchange], ExchangeAnswer], losses: int) -> None:
        self.exchange_really = exchange
        self.losses = losses
        self.calls = 0

    def exchange(self, request: Exchange) -> ExchangeAnswer:
        self.calls += 1
        answer = self.exchange_really(request)
        if self.calls <= self.losses or (self.calls == self.losses + 2):
            raise UnavailableError("the answer was lost")
        return answer

    def value(self, request: ValueRequest) -> bytes:
        raise NotFoundError(f"nothing here refers to {request.ref}")

    def secret(self, request: SecretRequest) -> SecretAnswer:
        raise NotFoundError(f"there is no credential {request.name!r}")

    def artifact(
        self, request: ArtifactRequest, pieces: Callable[[], Iterable[bytes]]
    ) -> ArtifactAnswer:
        raise NotFoundError(f"nothing keeps {request.name!r}")

    def take_token(self, request: TokenRequest) -> TokenAnswer:
        raise NotFoundError(f"there is no keychain entry {request.name!r}")

    def put_token(self, request: TokenPut) -> TokenPutAnswer:
        raise NotFoundError(f"there is no keychain entry {request.name!r}")

    def logs(self, batch: LogBatch) -> LogAnswer:
        return LogAnswer(accepted=len(batch.chunks))


def test_lost_answers_of_claims_and_reports_are_asked_for_again(bench: Bench) -> None:  # noqa: F811
    execution_id = bench.start(step("{kind: noop}"))
    (pointer,) = bench.advance(execution_id)
    flaky = Flaky(bench.control.work.exchange, losses=2)
    Runner(flaky, load({}).settings, ToolKinds(), {}, name="w1").run(pointer)
    assert flaky.calls == 5
    assert bench.types(execution_id) == [
        "execution.started",
        "step.scheduled",
        "step.started",
        "step.done",
    ]


class Refusing:
    """A control plane that answers some reports with an error of its own, batch and all."""

    def __init__(self, exchange: Callable[[Exchange], ExchangeAnswer]) -> None:
        self.exchange_really = exchange
        self.sizes: list[int] = []

    def exchange(self, request: Exchange) -> ExchangeAnswer:
        self.sizes.append(len(request.reports))
        if any(report.result == "poison" for report in request.reports):
            raise BadRequestError("not this one")
        return self.exchange_really(request)

    def value(self, request: ValueRequest) -> bytes:
        raise NotFoundError(f"nothing here refers to {request.ref}")

    def secret(self, request: SecretRequest) -> SecretAnswer:
        raise NotFoundError(f"there is no credential {request.name!r}")

    def artifact(
        self, request: ArtifactRequest, pieces: Callable[[], Iterable[bytes]]
    ) -> ArtifactAnswer:
        raise NotFoundError(f"nothing keeps {request.name!r}")

    def take_token(self, request: TokenRequest) -> TokenAnswer:
        raise NotFoundError(f"there is no keychain entry {request.name!r}")

    def put_token(self, request: TokenPut) -> TokenPutAnswer:
        raise NotFoundError(f"there is no keychain entry {request.name!r}")

    def logs(self, batch: LogBatch) -> LogAnswer:
        return LogAnswer(accepted=len(batch.chunks))


def test_a_report_that_is_refused_again_and_again_becomes_a_failure(
    bench: Bench,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.actors.settling.REFUSALS", 2)
    refusing = Refusing(bench.control.work.exchange)
    runner = Runner(refusing, load({}).settings, ToolKinds(), {}, name="w1")
    execution_id = bench.start(step("{kind: noop, result: poison}"))
    (pointer,) = bench.advance(execution_id)
    runner.run(pointer)
    event: Any = bench.log(execution_id)[-1].event
    assert event.type == "step.failed"
    assert "not this one" in event.error["message"]


def test_nothing_is_begun_while_shutting_down(bench: Bench) -> None:  # noqa: F811
    runner = runner_of(bench)
    execution_id = bench.start(step("{kind: noop}"))
    (pointer,) = bench.advance(execution_id)
    runner.begin_shutdown()
    with pytest.raises(UnavailableError):
        runner.run(pointer)
    assert bench.types(execution_id)[-1] == "step.scheduled"


def running_in_thread(bench: Bench, runner: Runner) -> tuple[int, Pointer, threading.Thread]:  # noqa: F811
    execution_id = bench.start(step("{kind: python, code: 'import time; time.sleep(600)'}"))
    (pointer,) = bench.advance(execution_id)
    thread = threading.Thread(target=runner.run, args=(pointer,))
    thread.start()
    while "step.started" not in bench.types(execution_id):
        thread.join(0.01)
    return execution_id, pointer, thread


def test_a_fenced_attempt_is_stopped_and_not_reported(bench: Bench) -> None:  # noqa: F811
    runner = runner_of(bench)
    execution_id, pointer, thread = running_in_thread(bench, runner)
    assert runner.running() == [PointerWire(**pointer._asdict())]
    runner.fence([PointerWire(**pointer._asdict())])
    thread.join(20)
    assert not thread.is_alive()
    assert bench.types(execution_id)[-1] == "step.started"


def test_an_interrupted_attempt_is_given_back(bench: Bench) -> None:  # noqa: F811
    runner = runner_of(bench)
    execution_id, _, thread = running_in_thread(bench, runner)
    runner.begin_shutdown()
    assert runner.interrupt() == 1
    thread.join(20)
    assert bench.types(execution_id)[-1] == "attempt.interrupted"


def test_the_same_pointer_at_once_is_run_once(bench: Bench) -> None:  # noqa: F811
    runner = runner_of(bench)
    execution_id, pointer, thread = running_in_thread(bench, runner)
    runner.run(pointer)  # returns at once
    assert thread.is_alive()
    runner.fence(runner.running())
    thread.join(20)
    assert bench.types(execution_id).count("step.started") == 1


def vault_of(work: Worked, **environment: str) -> Vault:
    asker = Asker(Pointer(1, "s", 1, -1, 1), threading.Event(), time.monotonic() + 5)
    return Vaults(work, "w1", environment).opened(asker, "1")


def test_a_secret_is_found_by_any_case_and_its_absence_names_the_variable(bench: Bench) -> None:  # noqa: F811
    vault = vault_of(Desk(bench.control), warehouse="x")
    assert vault.variable("WAREHOUSE") == "x"
    with pytest.raises(ToolError, match="NOETL_SECRET_OTHER"):
        vault.variable("other")


def test_printable_replaces_only_what_cannot_be_kept() -> None:
    assert printable({"a": ["x\0y", 1, None, True, 1.5], "b": "\ud800"}) == {
        "a": ["x\ufffdy", 1, None, True, 1.5],
        "b": "?",
    }


@pytest.mark.parametrize(
    ("asked", "tries", "expected"),
    [
        pytest.param(None, 0, 0.0, id="tried again at once"),
        pytest.param(60.0, 0, 60.0, id="when a policy rule says"),
        pytest.param(None, 2, None, id="not beyond its attempts"),
    ],
)
def test_a_body_of_a_frame_is_tried_again(
    asked: float | None, tries: int, expected: float | None
) -> None:
    cursor = {"kind": "postgres", "auth": "db", "claim": "SELECT 1"}
    spec = {"mode": "cursor", "frame": {"max_attempts": 3}}
    loop = {"cursor": cursor, "iterator": "row", "spec": spec}
    body = parse_step({"step": "s", "loop": loop, "tool": {"kind": "noop"}}, ToolKinds())
    failed = Outcome(error={"message": "no"}, retry_in=asked)
    scope = Scope(local={"_tries": tries})
    assert _tried_again(body, Pointer(1, "s", 1, 0, 1), scope, failed).retry_in == expected
