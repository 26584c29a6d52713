"""The head of a document: the executor and the keychain."""

from __future__ import annotations

import pytest

from app.engine.playbook import Executor
from tests.engine.language.parsing import HEAD, playbook

FLOW = "- step: a\n- step: b\n"


def executor(text: str) -> Executor:
    return playbook(FLOW, f"{HEAD}executor: {text}\n").executor


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", Executor()),
        ("{version: noetl-runtime/1, spec: {policy: {defaults: {a: 1}, results: {b: 2}}}}", Executor()),
        ("{profile: distributed}", Executor(profile="distributed")),
        ("{spec: {final_step: b}}", Executor(final_step="b")),
        ("{spec: {no_next_is_error: true}}", Executor(no_next_is_error=True)),
        ("{spec: {no_next_is_error: 'false'}}", Executor()),
        ("{spec: {timeout: 5m}}", Executor(timeout=300.0)),
        ("{spec: {policy: {limits: {timeout: 90}}}}", Executor(timeout=90.0)),
        ("{spec: {policy: {limits: {timeout_seconds: 2}}}}", Executor(timeout=2.0)),
        ("{spec: {timeout: 1, policy: {limits: {timeout: 2}}}}", Executor(timeout=1.0)),
        ("{spec: {policy: {limits: {max_visits: 7}}}}", Executor(max_visits=7)),
        (
            "{requires: {tools: [python, workbook], features: [joins]}}",
            Executor(tools=("python", "workbook"), features=("joins",)),
        ),
    ],
)  # fmt: skip
def test_the_executor(text: str, expected: Executor) -> None:
    assert executor(text) == expected


def test_the_entry_step_wins_over_start() -> None:
    book = playbook("- step: start\n- step: b", f"{HEAD}executor: {{spec: {{entry_step: b}}}}\n")
    assert book.entry == "b"


def test_keychain_entries_are_kept_as_written_for_the_worker() -> None:
    head = (
        "keychain:\n- {name: one, kind: secrets, map: {token: '{{ keychain.two.token }}'}}\n"
        "- {name: two, type: oauth2, scope: global}\n"
    )
    assert playbook(FLOW, HEAD + head).keychain == (
        {"name": "one", "kind": "secrets", "map": {"token": "{{ keychain.two.token }}"}},
        {"name": "two", "kind": "oauth2", "scope": "global"},
    )


def test_unknown_keys_at_the_top_are_ignored() -> None:
    assert playbook(FLOW, f"{HEAD}tracing: {{a: 1}}\nspec: [1]\n").entry == "a"
