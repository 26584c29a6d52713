"""``callboard db``: the schema of the log's database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from app.cli.output import print_json
from app.cli.session import Commands, Failure, Session, json_option, pass_session
from app.settings import Settings


@click.group(
    cls=Commands,
    epilog="""\b
Examples:
  callboard db upgrade                            before new processes start
  DATABASE_URL=postgresql://… callboard db status""",
)
def db() -> None:
    """Create, upgrade and look at the database schema.

    Works on DATABASE_URL or POSTGRES_HOST; without them on the embedded Postgres of the home.
    """


@db.command("init")
@json_option
@pass_session
def init(session: Session, as_json: bool) -> None:
    """Create the schema, or bring it up to date; the same as upgrade."""
    _upgrade(session.settings, as_json=as_json)


@db.command("upgrade")
@json_option
@pass_session
def upgrade(session: Session, as_json: bool) -> None:
    """Bring the schema to the revision this version needs; safe to repeat."""
    _upgrade(session.settings, as_json=as_json)


@db.command("status")
@json_option
@pass_session
def status(session: Session, as_json: bool) -> None:
    """Show the revision of the schema. Exit code 1 where it is not the one needed."""
    from app.store import migrations

    with database(session.settings) as url:
        current = migrations.current(url)
    head = migrations.head()
    if as_json:
        print_json({"current": current, "head": head, "up_to_date": current == head})
    else:
        click.echo(f"at revision {current or '(none)'}, needed is {head}")
    if current != head:
        raise Failure("the schema is not up to date (run 'callboard db upgrade')")


def _upgrade(settings: Settings, *, as_json: bool) -> None:
    from app.store import migrations

    with database(settings) as url:
        before = migrations.current(url)
        migrations.upgrade(url)
    head = migrations.head()
    if as_json:
        print_json({"before": before, "current": head})
    elif before == head:
        click.echo(f"the schema is up to date (revision {head})")
    else:
        click.echo(f"the schema is now at revision {head} (was {before or 'not there'})")


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """URL of the database; the embedded one is started for as long as needed if nobody runs it."""
    from app.embedded.postgres import EmbeddedPostgres
    from app.embedded.private import make_folder
    from app.embedded.stack import running_stack

    if settings.external_database_url:
        yield settings.external_database_url
        return
    running = running_stack(settings.home)
    if running is not None:
        yield running.database_url
        return
    make_folder(settings.home)
    with EmbeddedPostgres(settings.home / "postgres") as postgres:
        yield postgres.url
