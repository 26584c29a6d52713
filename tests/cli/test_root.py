"""The command line as a whole: help, errors, settings."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from app.cli.root import COMMANDS, cli
from app.failpoints import ACTIONS, POINTS
from tests.cli.fakes import Call


def _all_commands() -> list[tuple[str, ...]]:
    names: list[tuple[str, ...]] = []
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        names.append((name,))
        if isinstance(command, click.Group):
            names += [(name, inner) for inner in command.list_commands(context)]
    return names


@pytest.mark.parametrize("words", _all_commands(), ids=" ".join)
def test_every_command_explains_itself(call: Call, words: tuple[str, ...]) -> None:
    result = call(*words, "--help")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Usage: ")
    assert len(result.stdout.splitlines()) > 4


def test_help_lists_all_commands_in_one_line_each(call: Call) -> None:
    help_ = call("--help").stdout
    assert all(f"\n  {name} " in help_ for name in COMMANDS)


def test_no_line_of_a_help_is_cut(call: Call) -> None:
    for words in ((), ("catalog",), ("db",), ("server",), ("worker",)):
        help_ = call(*words, "--help").stdout
        assert "..." not in help_.replace("[ARGS]...", "")


def test_the_help_lists_commands_under_their_titles(call: Call) -> None:
    lines = call("--help").stdout.splitlines()
    titles = [lines.index(f"{title}:") for title in ("Playbooks", "On the servers", "This machine")]
    assert titles == sorted(titles)
    assert titles[0] < lines.index("  run       Run a playbook in this process, without servers.")


def test_the_help_imports_no_command() -> None:
    """It shows at once, whatever the commands need."""
    code = (
        "import sys; from app.cli.root import cli\n"
        "try: cli(['--help'])\n"
        "finally: print(*sorted(n for n in sys.modules if n.startswith('app.')), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    ours = {"app.cli", "app.cli.interrupts", "app.cli.root", "app.cli.session"}
    assert set(done.stderr.split()) == {*ours, "app.errors", "app.settings"}


def test_an_unknown_command_is_a_usage_error_that_knows_better(call: Call) -> None:
    result = call("statsu")
    assert result.exit_code == 2
    assert "No such command 'statsu'. Did you mean 'status'?\n" in result.stderr
    assert result.stderr.count("Did you mean") == 1
    assert call("catalog", "gett").stderr.count("Did you mean 'get'?") == 1
    assert "Did you mean" not in call("xyzzy").stderr


@pytest.mark.parametrize("command", ["status", "events", "result", "cancel", "replay", "verify"])
@pytest.mark.parametrize("word", ["abc", "0", "1.5", "9223372036854775808", "٣"])
def test_what_is_no_execution_id_is_told_before_anybody_is_asked(
    call: Call, command: str, word: str
) -> None:
    result = call("--port", "1", command, word)
    assert result.exit_code == 2
    assert f"{word!r} is not the id of an execution, which is a number; " in result.stderr


def test_execute_status_wants_an_id_too(call: Call) -> None:
    assert "'abc' is not the id of an execution" in call("execute", "status", "abc").stderr


def test_what_is_no_time_is_told(call: Call) -> None:
    result = call("--port", "1", "executions", "--after", "yesterday")
    assert result.exit_code == 2
    assert "'yesterday' is not a time; write 2030-01-31 or 2030-01-31T12:00:00Z" in result.stderr
    assert "no Callboard API" in call("--port", "1", "executions", "--after", "2030-01-31").stderr


@pytest.mark.parametrize(
    "words",
    [
        ("status", "1"),
        ("events", "1"),
        ("result", "1"),
        ("cancel", "1"),
        ("executions",),
        ("execute", "some/path"),
        ("catalog", "list"),
        ("pools",),
    ],
    ids=" ".join,
)
def test_without_an_api_one_line_says_what_to_do(call: Call, words: tuple[str, ...]) -> None:
    result = call("--port", "1", *words)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        "error: no Callboard API at http://127.0.0.1:1 "
        "(start one with 'callboard up', or name the right one with --server-url)\n"
    )


def test_where_the_api_is_may_be_said_before_and_after_the_command(call: Call) -> None:
    for words in (
        ("--host", "localhost", "--port", "2", "pools"),
        ("pools", "--host", "localhost", "--port", "2"),
        ("pools", "-s", "http://localhost:2/api"),
    ):
        assert "no Callboard API at http://localhost:2 " in call(*words).stderr


def test_an_address_on_the_command_line_beats_a_url_of_the_environment(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOETL_SERVER_URL", "http://localhost:3")
    assert "at http://localhost:3 " in call("pools").stderr
    assert "at http://127.0.0.1:2 " in call("pools", "--port", "2").stderr


def test_an_unknown_setting_is_a_warning_once(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOETL_PROT", "1")
    result = call("pools", "--port", "1")
    assert result.stderr.count("warning: unknown setting NOETL_PROT; did you mean NOETL_PORT?") == 1


def test_a_setting_of_the_wrong_form_names_its_variable(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOETL_PORT", "eighty")
    result = call("config")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: NOETL_PORT='eighty' is not a whole number (set ")


def test_config_shows_origin_and_hides_secrets(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://joe:geheim@db.example:5432/noetl")
    monkeypatch.setenv("CALLBOARD_API_TOKEN", "sehrgeheim")
    text, data = call("config"), call("config", "--json")
    assert "geheim" not in text.output + data.output
    rows = {row["name"]: row for row in json.loads(data.stdout)}
    assert rows["database_url"]["origin"] == "DATABASE_URL"
    assert rows["database_url"]["value"] == "postgresql://joe:********@db.example:5432/noetl"
    assert rows["api_token"]["value"] == "********"
    assert rows["port"] == rows["port"] | {"value": 8082, "origin": "default"}
    assert "CALLBOARD_API_TOKEN" in call("config", "--changed").stdout
    assert "CALLBOARD_LEASE" not in call("config", "--changed").stdout


def test_config_lists_the_failpoints(call: Call) -> None:
    text = call("config", "--failpoints").stdout
    data = json.loads(call("config", "--failpoints", "--json").stdout)
    assert (data["points"], data["actions"]) == (POINTS, ACTIONS)
    assert all(name in text for name in (*POINTS, *ACTIONS))


def test_a_bug_is_one_line_too(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.config.describe", lambda _: 1 // 0)
    result = call("config")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: this should not have happened: ZeroDivisionError: ")
    monkeypatch.setenv("CALLBOARD_LOG_LEVEL", "debug")
    assert isinstance(call("config").exception, ZeroDivisionError)


def test_version(call: Call) -> None:
    assert call("version").stdout.startswith("callboard ")
    assert call("--version").stdout == call("version").stdout
    assert json.loads(call("version", "--json").stdout)["version"]
