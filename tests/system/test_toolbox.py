"""Every tool through the servers, with credentials and a keychain; and none of their secrets anywhere."""

from __future__ import annotations

import base64
import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
import pytest
from psycopg import sql

from app.engine.masking import MASK, Masker
from tests.system.plane import QUICK, System, readable_home
from tests.system.toolbox import PLAYBOOKS, Toolbox, toolbox

TOOLS = {
    "agent", "artifact", "credential", "duckdb", "http", "mcp", "nats", "noop", "playbook",
    "postgres", "python", "script", "secrets", "shell", "transfer",
}  # fmt: skip


#: What the credentials are sealed with.
KEY = base64.b64encode(b"canary-encryption-key-32-bytes-!").decode()


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cb-") as folder:
        yield readable_home(Path(folder))


@pytest.fixture(scope="module")
def tools(home: Path) -> Iterator[Toolbox]:
    with toolbox(home / "tools") as servers:
        yield servers


@pytest.fixture(scope="module")
def whole(home: Path, tools: Toolbox) -> Iterator[System]:
    (home / "callboard").mkdir()
    settings = {**QUICK, "CALLBOARD_ENCRYPTION_KEYS": f"main={KEY}"}
    with System(readable_home(home / "callboard"), settings=settings) as running:
        tools.register(running)
        yield running


def test_a_playbook_that_uses_every_tool(whole: System, tools: Toolbox) -> None:
    status = whole.run((PLAYBOOKS / "toolbox.yaml").read_text(), tools.payload, seconds=120)
    assert status["status"] == "COMPLETED", json.dumps(status["error"])
    assert whole.client.result(status["execution_id"], "end") == {
        "shell": "one\ntwo\n",
        "script": {"said": "counted"},
        "http": 200,
        "loaded": 50,
        "transferred": 50,
        "total": 1225,
        "kept": 50,
        "lengths": [len("canary-vault-plain-1b3f"), len("canary-vault-password-77d0")],
        "artifact": 50,
        "agent": 2,
        "mcp": "ok",
        "doubled": 10,
        "credential": "ok",
    }
    used = whole.client.result(status["execution_id"], "uses_secret")
    assert used == {"lengths": [23, 26], "leak": MASK, "reversed": False}


def test_the_playbook_names_every_tool_there_is() -> None:
    import yaml

    from app.tools import kinds

    book = yaml.safe_load((PLAYBOOKS / "toolbox.yaml").read_text())
    tools = [step["tool"] for step in [*book["workflow"], *book["workbook"]]]
    used = {t["kind"] for tool in tools for t in (tool if isinstance(tool, list) else [tool])}
    assert used - {"workbook"} == set(kinds()) == TOOLS


@pytest.fixture(scope="module")
def leaked(whole: System, tools: Toolbox) -> tuple[str, set[str]]:
    """The execution of the playbook whose tools all fail, and the command lines seen meanwhile."""
    seen: set[str] = set()
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(whole, seen, done))
    watcher.start()
    try:
        status = whole.run((PLAYBOOKS / "leaky.yaml").read_text(), tools.payload, seconds=120)
    finally:
        done.set()
        watcher.join()
    assert status["status"] == "COMPLETED", (status["error"], status["current_step"])
    assert whole.client.result(status["execution_id"], "end") == {"reached": True}
    return status["execution_id"], seen


def _watch(system: System, seen: set[str], done: threading.Event) -> None:
    while not done.wait(0.02):
        for process in system.processes.values():
            try:
                family = psutil.Process(process.pid).children(recursive=True)
                seen.update(" ".join(each.cmdline()) for each in family)
            except psutil.Error:
                continue


class Search:
    """Looks for secrets, in every form that the masker knows."""

    def __init__(self, secrets: list[str]) -> None:
        self._maskers = {secret: Masker() for secret in secrets}
        for secret, masker in self._maskers.items():
            masker.add(secret)

    def found(self, text: str) -> list[str]:
        return [secret for secret, each in self._maskers.items() if each.text(text) != text]

    def found_in(self, content: bytes) -> list[str]:
        """The same in a file of any size, for the forms that programs really write."""
        return [secret for secret in self._maskers if any(f in content for f in _written(secret))]


def _written(secret: str) -> Iterator[bytes]:
    yield secret.encode()
    yield quote(secret, safe="").encode()
    yield json.dumps(secret)[1:-1].encode()
    for before in range(3):
        # What base64 makes of it, whatever stands before it.
        text = base64.b64encode(b"\0" * before + secret.encode()).rstrip(b"=")
        yield text[(0, 2, 3)[before] : -1]


@pytest.fixture(scope="module")
def search(tools: Toolbox, leaked: Any) -> Search:
    secrets = [*tools.secrets(), KEY]
    search = Search(secrets)
    assert search.found(json.dumps(secrets)) == secrets, "it finds what there is"
    return search


def test_no_secret_is_in_the_database(whole: System, search: Search) -> None:
    with psycopg.connect(whole.stack.database_url) as connection:
        names = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'noetl'"
        ).fetchall()
        assert {"event", "credential", "keychain", "transient", "step_log"} <= {n for (n,) in names}
        for (name,) in names:
            table = sql.Identifier("noetl", name)
            rows = connection.execute(sql.SQL("SELECT t::text FROM {} t").format(table)).fetchall()
            for (row,) in rows:
                assert not search.found(row), (name, row[:500])


def test_no_secret_is_in_an_answer(
    whole: System, search: Search, leaked: tuple[str, set[str]]
) -> None:
    client, execution_id = whole.client, leaked[0]
    answers = [
        client.status(execution_id, full=True),
        client.events(execution_id),
        client.credentials(),
        *(client.credential(row["name"], include_data=True) for row in client.credentials()),
        client.output(execution_id),
        client.verify(execution_id),
    ]
    text = json.dumps(answers, default=str)
    assert not search.found(text), search.found(text)
    assert MASK in text
    assert "it is" in text, "the error is there all the same"


def test_no_secret_is_on_a_command_line(search: Search, leaked: tuple[str, set[str]]) -> None:
    _, lines = leaked
    assert lines
    assert not search.found("\n".join(lines))


def test_no_secret_is_in_a_file(whole: System, search: Search, home: Path) -> None:
    """Logs, streams, blobs, workspaces, the database's own files and its journal."""
    looked = 0
    for folder in (home / "callboard", *Path(tempfile.gettempdir()).glob("callboard-*")):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                looked += 1
                found = search.found_in(path.read_bytes())
                assert not found, (str(path), found)
    assert looked > 100
