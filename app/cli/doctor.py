"""``callboard doctor``: what is wrong here, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from app.cli.output import print_json
from app.cli.session import Failure, Session, api_options, json_option, pass_session
from app.errors import CallboardError, UnavailableError
from app.services.health import Check
from app.version import software_version

if TYPE_CHECKING:
    from app.settings import Settings

#: Seconds for the API's answer: it gives itself five.
PATIENCE = 10.0
#: Seconds for NATS, where we ask it ourselves.
NATS_PATIENCE = 3.0

Row = dict[str, Any]


@click.command(
    epilog="""\b
Examples:
  callboard doctor
  callboard doctor --json | jq '.checks[] | select(.ok | not)'"""
)
@json_option
@api_options
@pass_session
def doctor(session: Session, as_json: bool) -> None:
    """What is wrong with the installation, and what to do. Exit code 1 where something is.

    Asks the API; where none answers, looks at the home and the servers from here.
    """
    found = _diagnosis(session)
    wrong = [check for check in found["checks"] if not check["ok"]]
    if as_json:
        print_json(found)
    else:
        click.echo(_text(found))
    if wrong:
        raise Failure(f"{len(wrong)} {'thing is' if len(wrong) == 1 else 'things are'} wrong")


def _diagnosis(session: Session) -> Row:
    """``{status, version, url, checks}``, from the API, or from here."""
    from app.client import Client

    url = session.url
    try:
        with Client(url, session.settings.api_token, timeout=PATIENCE, patience=0.0) as client:
            found = client.doctor()
        checks = [*found["checks"], *map(asdict, _own_version(found["version"]))]
        version = found["version"]
    except CallboardError as exc:
        away = isinstance(exc, UnavailableError)
        checks = [asdict(_trouble("api", exc.message, exc.remedy))]
        checks += map(asdict, _here(session.settings) if away else [])
        version = None
    well = all(check["ok"] for check in checks)
    status = "well" if well else "trouble"
    return {"status": status, "version": version, "url": url, "checks": checks}


def _text(found: Row) -> str:
    who = f"Callboard {found['version']} at {found['url']}" if found["version"] else "From here:"
    width = max(len(check["name"]) for check in found["checks"])
    lines = [line for check in found["checks"] for line in _lines(check, width)]
    closing_line = ["", "All is well."] if found["status"] == "well" else []
    return "\n".join([who, "", *lines, *closing_line])


def _lines(check: Row, width: int) -> Iterator[str]:
    """A line for what is well, and one more for the remedy of what is not."""
    word, colour = "ok", "green"
    if not check["ok"]:
        word, colour = (
            ("wrong", "red") if check.get("severity") != "warning" else ("look", "yellow")
        )
    told = f"{check['name']:<{width}}  {check['message']}"
    yield f"  {click.style(f'{word:<5}', fg=colour)}  {told}".rstrip()
    if not check["ok"] and check["remedy"]:
        yield f"  {'':<{width + 9}}→ {check['remedy']}"


def _own_version(theirs: str) -> Iterator[Check]:
    ours = software_version()
    if ours != theirs:
        message = f"this command line is version {ours}, the server {theirs}"
        yield _trouble("command line", message, f"pip install callboard=={theirs}")


# ---------------------------------------------------------------------- where no API answers
def _here(settings: Settings) -> list[Check]:
    """What can be seen without the API."""
    looks: Sequence[tuple[str, Callable[[Settings], Iterator[Check]]]] = (
        ("home", _home),
        ("port", _port),
        ("disk", _disk),
        ("servers", _servers),
    )
    checks: list[Check] = []
    for name, look in looks:
        try:
            checks += look(settings)
        except CallboardError as exc:
            checks.append(_trouble(name, exc.message, exc.remedy))
    return checks


def _home(settings: Settings) -> Iterator[Check]:
    """The folder itself, and who uses it."""
    from app.cli.pidfile import PidFile

    home = settings.home
    if not home.exists():
        yield Check("home", ok=True, message=f"{home} is not there yet; 'callboard up' makes it")
        return
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        yield _trouble("home", f"{home} cannot be read and written", "give it to this user")
        return
    running = PidFile.of(settings, "up").read()
    if running is not None:
        where = f" at {running.url}" if running.url else ""
        message = (
            f"'callboard up' of {home} runs (process {running.pid}), and no API{where} answers"
        )
        yield _trouble("home", message, "see what it prints; stop it and start it again")
        return
    yield Check("home", ok=True, message=f"{home}; 'callboard up' does not run")
    yield from _locks(settings)


def _locks(settings: Settings) -> Iterator[Check]:
    """Servers of the home that outlived whoever started them keep their folders locked."""
    from app.embedded.lock import owner_of

    for name in ("postgres", "nats"):
        folder = settings.home / name
        owner = owner_of(folder)
        if owner is not None:
            message = f"{folder} is in use by process {owner}, which is no 'callboard up'"
            yield _trouble("home", message, f"stop it: kill {owner}")


def _port(settings: Settings) -> Iterator[Check]:
    from app.cli.ready import claim_port

    claim_port(settings.host, settings.port)
    yield Check("port", ok=True, message=f"{settings.host}:{settings.port} is free")


def _disk(settings: Settings) -> Iterator[Check]:
    from app.readiness import disk_checks

    yield from list(disk_checks(settings)) or [Check("disk", ok=True)]


def _servers(settings: Settings) -> Iterator[Check]:
    """Postgres and NATS, where the settings or a running stack of the home say where they are."""
    from app.embedded.stack import running_stack
    from app.readiness import nats_checks
    from app.wiring import nats_broker

    stack = running_stack(settings.home)
    database = settings.external_database_url or (stack.database_url if stack else None)
    nats = settings.nats_url or (stack.nats_url if stack else None)
    if database:
        yield from _postgres(database)
    if nats:
        with closing(nats_broker(settings, nats)) as broker:
            yield from nats_checks(broker, timeout=NATS_PATIENCE)


def _postgres(url: str) -> Iterator[Check]:
    from app.readiness import postgres_checks
    from app.store.database import Database

    with closing(Database(url, pool_size=1, application_name="callboard doctor")) as database:
        try:
            yield from postgres_checks(database)
        except CallboardError as exc:
            yield _trouble("postgres", exc.message, exc.remedy)


def _trouble(name: str, message: str, remedy: str | None) -> Check:
    return Check(name, ok=False, message=message, remedy=remedy)
