"""Both servers together, and how other processes find them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from app.embedded.nats import greet
from app.embedded.stack import NOTE, EmbeddedStack, running_stack
from app.errors import StartupError
from app.settings import Settings, load
from tests.embedded.conftest import Run, ended, line_of


@pytest.fixture(scope="module")
def stack(shared_home: Path, made_before: Path) -> Iterator[EmbeddedStack]:
    """A running stack of this module."""
    shutil.copytree(made_before, shared_home / "home" / "postgres")
    with EmbeddedStack(shared_home / "home", durable=False) as stack:
        yield stack


def answer(url: str) -> str:
    """Which data directory is behind *url*."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
        assert row is not None
        return str(row[0])


def reaches_nats(stack: EmbeddedStack) -> bool:
    login, _, port = stack.nats_url.removeprefix("nats://").rpartition(":")
    user, _, password = login.partition("@")[0].partition(":")
    return greet(int(port), user, password).get("jetstream") is True


def test_it_tells_child_processes_where_the_servers_are(stack: EmbeddedStack) -> None:
    variables = stack.environment()
    settings = load(variables).settings
    assert settings.external_database_url == stack.database_url
    assert settings.nats_url == stack.nats_url
    with psycopg.connect(variables["NOETL_SECRET_WAREHOUSE"]) as connection:
        assert connection.info.dbname == "warehouse"
    assert reaches_nats(stack)


def test_workers_get_no_credentials_of_the_log(stack: EmbeddedStack) -> None:
    variables = stack.worker_environment()
    assert "DATABASE_URL" not in variables
    assert stack.database_url not in variables.values()
    assert variables["NATS_URL"] == stack.nats_url


def test_two_stacks_run_side_by_side(stack: EmbeddedStack, home: Path) -> None:
    with EmbeddedStack(home, durable=False) as other:
        assert answer(other.database_url) != answer(stack.database_url)
        assert other.nats_url != stack.nats_url
        assert reaches_nats(other)
        assert reaches_nats(stack)


def test_a_second_stack_on_the_home_is_refused_and_the_first_goes_on(stack: EmbeddedStack) -> None:
    second = EmbeddedStack(stack.home)
    with pytest.raises(StartupError, match=f"is in use by process {os.getpid()}"):
        second.start()
    second.stop()
    assert running_stack(stack.home) is not None
    assert stack.alive("postgres")
    assert stack.alive("nats")


@pytest.mark.parametrize("name", ["postgres", "nats"])
def test_a_killed_server_comes_back_under_its_url(stack: EmbeddedStack, name: str) -> None:
    before = stack.environment()
    stack.kill(name)
    assert not stack.alive(name)
    stack.restart(name)
    assert stack.alive(name)
    assert stack.environment() == before
    assert answer(stack.database_url)
    assert reaches_nats(stack)


def test_other_processes_find_it_while_it_runs(stack: EmbeddedStack) -> None:
    found = running_stack(stack.home)
    assert found is not None
    assert (found.pid, found.database_url, found.nats_url, found.warehouse_url) == (
        os.getpid(),
        stack.database_url,
        stack.nats_url,
        stack.warehouse_url,
    )
    assert (stack.home / NOTE).stat().st_mode & 0o777 == 0o600


def test_there_is_nothing_to_find_before_and_after(old_home: Path) -> None:
    assert running_stack(old_home) is None
    with EmbeddedStack(old_home, durable=False):
        assert running_stack(old_home) is not None
    assert running_stack(old_home) is None
    assert not (old_home / NOTE).exists()


def test_the_note_of_a_killed_owner_is_not_believed(old_home: Path, other_process: Run) -> None:
    program = (
        "import sys; from pathlib import Path; from app.embedded.stack import EmbeddedStack\n"
        "stack = EmbeddedStack(Path(sys.argv[1]), durable=False); stack.start()\n"
        "print('up', flush=True); sys.stdin.read()"
    )
    owner = other_process(program, str(old_home))
    assert line_of(owner) == "up"
    assert running_stack(old_home) is not None
    owner.kill()
    owner.wait()
    assert running_stack(old_home) is None
    note = old_home / NOTE
    # Another process that got the same id later is not the owner either.
    note.write_text(json.dumps({**json.loads(note.read_text()), "pid": os.getpid()}))
    assert running_stack(old_home) is None
    with EmbeddedStack(old_home, durable=False) as stack:
        assert running_stack(old_home) is not None
        assert answer(stack.database_url)


def test_what_is_external_is_not_started(home: Path, stack: EmbeddedStack) -> None:
    nothing = EmbeddedStack.for_settings(
        Settings(home=home, database_url="postgres://u:p@db/x", nats_url="nats://bus")
    )
    with nothing:
        assert nothing.environment() == {
            "DATABASE_URL": "postgresql://u:p@db/x",
            "NATS_URL": "nats://bus",
        }
        assert nothing.warehouse_url is None
        assert running_stack(home) is None
    assert list(home.iterdir()) == []


def test_one_external_server_leaves_the_other_to_us(home: Path) -> None:
    settings = Settings(home=home, postgres_host="db", postgres_password="p")
    with EmbeddedStack.for_settings(settings) as half:
        assert half.database_url == "postgresql://noetl:p@db:5432/noetl"
        assert half.postgres is None
        assert reaches_nats(half)
        found = running_stack(home)
        assert found is not None
        assert found.warehouse_url is None
    assert not (home / "postgres").exists()


def test_where_one_server_fails_the_other_is_stopped(old_home: Path) -> None:
    (old_home / "nats").write_text("a file where the folder of NATS should be")
    stack = EmbeddedStack(old_home, durable=False)
    with pytest.raises((StartupError, FileExistsError)):
        stack.start()
    assert not stack.alive("postgres")
    assert running_stack(old_home) is None
    assert ended(_postmaster(old_home))


def _postmaster(home: Path) -> int:
    """The pid in the log of the last server that ran in *home*."""
    log = (home / "postgres" / "postgres.log").read_text()
    line = next(line for line in reversed(log.splitlines()) if "starting PostgreSQL" in line)
    return int(line.partition("[")[2].partition("]")[0])
