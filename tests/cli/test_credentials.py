"""``callboard credential`` and its neighbours, on the real API."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.engine.custody import CredentialDraft, for_credential
from app.keychain.keys import FILE, keyring
from app.settings import load, process_environment
from app.store.credentials import PostgresCredentials
from app.store.database import Database
from app.store.sealed import PostgresSealed
from tests.cli.fakes import Call, serving

PASSWORD = "correct-horse-battery"
PG = {"type": "postgres", "data": {"host": "db", "user": "etl", "password": PASSWORD}}
HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: t, path: test/t}\n"
USES = HEAD + (
    "workflow:\n"
    "- {step: start, tool: {kind: python, auth: pg, code: \"result = '{{ auth.user }}:"
    "{{ auth.password }}'\"}}\n"
)


@pytest.fixture
def at_api(
    call: Call, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Call]:
    """The command line, pointed at an API that holds no credential yet."""
    home = tmp_path_factory.mktemp("api")
    with serving(load({}, home=home).settings) as url:
        monkeypatch.setenv("NOETL_SERVER_URL", url)
        yield call


def shown(call: Call, *words: str) -> Any:
    result = call(*words, "--json")
    assert result.exit_code == 0, result.output
    assert PASSWORD not in result.output
    return json.loads(result.stdout)


def test_a_credential_from_its_birth_to_its_end(at_api: Call) -> None:
    fields = ("--set", "host=db", "--set", "port:=5432", "--set", "user=etl")
    added = at_api("credential", "add", "pg", "--type", "postgres", *fields, "--tag", "prod")
    assert (added.exit_code, added.stdout) == (0, "credential pg (postgres) kept\n")
    assert added.stderr == ""
    listed = at_api("credential", "list").stdout.splitlines()
    assert listed[0].split() == ["name", "type", "tags", "description", "changed"]
    assert listed[2].split()[:3] == ["pg", "postgres", "prod"]
    assert at_api("list", "credentials").stdout.splitlines() == listed
    assert [item["name"] for item in shown(at_api, "credential", "list", "-q", "PRO")["items"]] == [
        "pg"
    ]
    assert "no such credential is kept" in at_api("credential", "list", "--type", "nats").stderr
    data = shown(at_api, "credential", "get", "pg", "--include-data")["data"]
    assert data == {"host": "db", "port": 5432, "user": "etl"}
    assert "data" not in at_api("credential", "get", "pg").stdout
    assert shown(at_api, "get", "credential", "pg", "--include-data")["data"] == data
    assert at_api("credential", "delete", "pg").stdout == "credential pg deleted\n"
    gone = at_api("credential", "get", "pg")
    assert gone.exit_code == 1
    assert "there is no credential 'pg'" in gone.stderr


def test_a_secret_on_the_command_line_is_warned_of(at_api: Call) -> None:
    words = ("credential", "add", "pg", "--type", "postgres", "--set", "host=db")
    added = at_api(*words, "--set", f"password={PASSWORD}")
    assert added.stderr.startswith("warning: password is now in the history of your shell")
    assert PASSWORD not in added.output
    assert shown(at_api, "credential", "get", "pg", "--include-data")["data"]["password"] == "***"
    given = at_api("credential", "add", "pg", "--data", json.dumps(PG["data"]))
    assert "warning: password" in given.stderr


@pytest.mark.parametrize(
    ("type_", "given", "data"),
    [
        pytest.param("bearer", f"{PASSWORD}\n", {"token": "***"}, id="the secret itself"),
        pytest.param("generic", f"{PASSWORD}\n", {"value": "***"}, id="the secret of no type"),
        pytest.param(
            "basic", json.dumps(PG["data"]), {"host": "db", "user": "etl", "password": "***"},
            id="fields as JSON",
        ),
    ],
)  # fmt: skip
def test_from_standard_input(at_api: Call, type_: str, given: str, data: dict[str, Any]) -> None:
    words = ["credential", "add", "api", "--type", type_, "--stdin"]
    done = spoken(words, given)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown(at_api, "credential", "get", "api", "--include-data")["data"] == data


def spoken(words: list[str], given: str) -> subprocess.CompletedProcess[str]:
    """A command of its own process, which hears *given*."""
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *words],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=process_environment(),
    )


def test_on_a_terminal_a_secret_is_asked_for_and_not_shown(at_api: Call) -> None:
    ours, theirs = pty.openpty()
    words = ["credential", "add", "pg", "--type", "postgres", "--set", "host=db"]
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=process_environment(),
    )
    os.close(theirs)
    try:
        screen = _read_until(ours, "none):")
        os.write(ours, f"{PASSWORD}\n".encode())
        screen += _read_until(ours, "kept")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert "password (not shown; empty for none):" in screen
    assert PASSWORD not in screen
    data = shown(at_api, "credential", "get", "pg", "--include-data")["data"]
    assert data == {"host": "db", "password": "***"}


def _read_until(terminal: int, text: str) -> str:
    screen = ""
    while text not in screen:
        piece = os.read(terminal, 1024).decode()
        assert piece, screen
        screen += piece
    return screen


# ---------------------------------------------------------------------- files
def written(folder: Path, name: str, data: Any) -> Path:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(data))
    return file


@pytest.mark.parametrize(
    "words",
    [
        ("credential", "add", "-f"),
        ("register", "credential", "-f"),
        ("register", "credential"),
        ("register", "-f"),
        ("register",),
        ("catalog", "register"),
    ],
    ids=" ".join,
)
def test_a_file_is_a_credential(at_api: Call, words: tuple[str, ...], tmp_path: Path) -> None:
    file = written(tmp_path, "pg.json", {"name": "warehouse", "tags": ["a"], **PG})
    kept = shown(at_api, *words, str(file))
    assert (kept["name"], kept["type"], kept["tags"]) == ("warehouse", "postgres", ["a"])


def test_a_folder_of_credentials(at_api: Call, tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    written(folder, "api.json", {"type": "bearer", "data": {"token": PASSWORD}})
    written(folder, "bad.json", {"type": "bearer", "data": {"tokn": PASSWORD}})
    written(folder, "pg.json", PG)
    done = at_api("register", "credential", "-d", str(folder))
    assert done.exit_code == 1
    assert done.stdout == "credential api (bearer) kept\ncredential pg (postgres) kept\n"
    assert "error: bad: " in done.stderr
    assert "tokn is not known" in done.stderr
    assert PASSWORD not in done.output


def test_a_key_file_of_google_is_a_service_account(at_api: Call, tmp_path: Path) -> None:
    key = {"type": "service_account", "client_email": "a@b.c", "private_key": PASSWORD}
    file = written(tmp_path, "key.json", key)
    kept = shown(at_api, "credential", "add", "gcp_sa", "-f", str(file))
    assert (kept["name"], kept["type"]) == ("gcp_sa", "google_service_account")


def test_a_playbook_in_json_is_a_playbook(at_api: Call, tmp_path: Path) -> None:
    playbook = {
        "apiVersion": "noetl.io/v2",
        "kind": "Playbook",
        "metadata": {"name": "j", "path": "cli/j"},
        "workflow": [{"step": "start", "tool": {"kind": "noop"}}],
    }
    assert shown(at_api, "register", str(written(tmp_path, "j.json", playbook)))["path"] == "cli/j"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("credential", "add"), "give the credential a NAME"),
        (("credential", "add", "x", "--set", "nothing"), "--set number 1 is not KEY=TEXT"),
        (("credential", "add", "x", "--set", f"k:={PASSWORD}"), "--set k:= is not JSON"),
        (("credential", "add", "x", "--data", f'"{PASSWORD}"'), "--data is not a JSON object"),
        (("credential", "add", "x", "--data", "{}", "--stdin"), "give one of"),
        (("credential", "add", "x", "--type", "postgres"), "one of host"),
        (("credential", "add", "1"), "looks like an id"),
        (("credential", "types", "nope"), "no credential type 'nope'"),
    ],
)
def test_what_is_wrong_is_said(at_api: Call, words: tuple[str, ...], told: str) -> None:
    done = at_api(*words)
    assert done.exit_code in {1, 2}
    assert told in done.stderr
    assert PASSWORD not in done.output


def test_types(call: Call) -> None:
    listed = call("credential", "types").stdout
    assert "google_service_account" in listed
    assert "httpBearerAuth" in listed
    schema = shown(call, "credential", "types", "basic")
    assert schema["properties"]["password"]["writeOnly"] is True


# ---------------------------------------------------------------------- runs
def test_a_run_here_takes_credentials_from_files(call: Call, tmp_path: Path) -> None:
    playbook = tmp_path / "uses.yaml"
    playbook.write_text(USES)
    written(tmp_path / "keys", "pg.json", PG)
    file = tmp_path / "keys" / "pg.json"
    for place in (file, file.parent):
        assert shown(call, "run", str(playbook), "--credential", str(place))["result"] == "etl:***"
    missing = call("run", str(playbook))
    assert missing.exit_code == 1
    assert "there is no credential 'pg'" in missing.stderr
    refused = call("run", "test/t", "--credential", str(file))
    assert refused.exit_code == 2
    assert "--credential is for a run here" in refused.stderr


def test_on_the_servers_a_step_gets_it(at_api: Call, tmp_path: Path) -> None:
    playbook = tmp_path / "uses.yaml"
    playbook.write_text(USES)
    assert at_api("register", str(playbook)).exit_code == 0
    shown(at_api, "credential", "add", "-f", str(written(tmp_path, "pg.json", PG)))
    assert shown(at_api, "execute", "test/t", "--watch")["result"] == "etl:***"


def test_a_test_connects_for_real(at_api: Call, postgres: str) -> None:
    fields = json.dumps({"url": postgres})
    assert (
        spoken(["credential", "add", "pg", "--type", "postgres", "--stdin"], fields).returncode == 0
    )
    done = at_api("credential", "test", "pg")
    assert done.exit_code == 0, done.output
    assert "status" in done.stdout
    assert "COMPLETED in " in done.stderr
    assert shown(at_api, "credential", "test", "pg")["result"]["type"] == "postgres"

    nobody = ("--set", "host=127.0.0.1", "--set", "port:=1")
    assert at_api("credential", "add", "down", "--type", "postgres", *nobody).exit_code == 0
    failed = at_api("credential", "test", "down")
    assert failed.exit_code == 1
    assert "FAILED in " in failed.stderr
    assert at_api("credential", "test", "none").exit_code == 1


# ---------------------------------------------------------------------- rotation
def test_a_new_key_for_everything(
    call: Call, database: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load({}, home=home).settings
    running = keyring(settings)
    pool = Database(database, pool_size=1)
    store = PostgresCredentials(pool)
    store.put(CredentialDraft("pg", "generic", running.seal(b"{}", for_credential("pg"))))
    monkeypatch.setenv("DATABASE_URL", database)
    done = shown(call, "credential", "rotate", "--new-key")
    assert (done["renewed"], done["left"]) == (1, 0)
    assert done["key"] != running.sealing
    assert PostgresSealed(pool).key_ids() == {done["key"]: 1}
    row = store.named("pg")
    assert row is not None
    assert running.open(row.sealed, for_credential("pg")) == b"{}"
    pool.close()
    assert (home / FILE).read_text().count("=") >= 2


def test_without_a_key_there_is_nothing_to_go_over_to(
    call: Call, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    done = call("credential", "rotate")
    assert done.exit_code == 1
    assert "no encryption key is configured" in done.stderr
