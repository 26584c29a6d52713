"""Postgres' errors in the project's words. Only the adapters of this package see psycopg's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.errors import BadRequestError, CallboardError, StartupError, UnavailableError

#: SQLSTATE classes that say nothing about the request: it may succeed when tried again.
_PASSING = {
    "08": "the connection to Postgres broke",
    "25": "Postgres is read-only or gave the transaction up",
    "40": "Postgres rolled the transaction back in favour of another one",
    "53": "Postgres ran out of a resource",
    "55": "another transaction holds what this one needs",
    "57": "Postgres is shutting down, starting up, or cancelled the statement",
    "58": "Postgres met an error of its system",
}
#: What to do about them, by SQLSTATE and, for the rest of a class, by its two characters.
DISK_FULL, READ_ONLY = "53100", "25006"
_REMEDIES = {
    DISK_FULL: "free space on the disk of Postgres; work goes on by itself then",
    READ_ONLY: "is DATABASE_URL a standby, or default_transaction_read_only on? name the primary",
    "53300": "raise max_connections or the limit of the role, or lower CALLBOARD_POOL_SIZE",
    "57": "is it restarted, or was the connection ended by hand? its log tells; else try again",
}
_TRY_AGAIN = "try again; where it lasts, the log of Postgres tells more"
#: What a database says that was never migrated: undefined schema, table, column, function.
_NOT_MIGRATED = {"3F000", "42P01", "42703", "42883"}

#: How libpq says why it could not connect (it gives no SQLSTATE), and what to do about it.
_REFUSALS = (
    (r"password authentication failed", "check user and password of DATABASE_URL"),
    (r"no password supplied", "put a password into DATABASE_URL"),
    (r"no pg_hba.conf entry", "allow this host and user in pg_hba.conf of the server"),
    (r'role "[^"]*" does not exist', "create the role, or name another one in DATABASE_URL"),
    (
        r'database "[^"]*" does not exist',
        "create it with CREATE DATABASE, or name another one in DATABASE_URL",
    ),
)


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of psycopg, SQLAlchemy and its pool into ours; others pass as they are."""
    try:
        yield
    except PoolTimeoutError as exc:
        raise UnavailableError(
            "every database connection of this process is busy",
            remedy="raise CALLBOARD_POOL_SIZE, or start more processes",
        ) from exc
    except DBAPIError as exc:
        if not isinstance(exc.orig, psycopg.Error):
            raise
        raise translation(exc.orig) from exc.orig
    except psycopg.Error as exc:
        raise translation(exc) from exc
    except UnicodeEncodeError as exc:
        raise BadRequestError(f"Postgres cannot store the text: {exc}") from exc


def translation(exc: psycopg.Error) -> CallboardError | psycopg.Error:
    """The error to raise for *exc*: ours where we know what it means, itself where it is a bug."""
    state = exc.sqlstate or ""
    said = text_of(exc)
    if state in _NOT_MIGRATED:
        return UnavailableError(
            f"the database lacks something this version needs: {said}",
            remedy="run 'callboard db upgrade'",
        )
    if state[:2] in _PASSING:
        return UnavailableError(
            f"{_PASSING[state[:2]]}: {said}",
            remedy=_REMEDIES.get(state) or _REMEDIES.get(state[:2], _TRY_AGAIN),
        )
    if not state and isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError):
        remedy = refusal_remedy(said)
        if remedy is not None:
            return UnavailableError(f"Postgres refuses the connection: {said}", remedy=remedy)
        return UnavailableError(
            f"Postgres does not answer: {said}", remedy="is Postgres running? see DATABASE_URL"
        )
    if isinstance(exc, psycopg.DataError) or state[:2] == "54":
        return BadRequestError(f"Postgres cannot store the value: {said}")
    return exc


def startup_error(exc: BaseException | None) -> StartupError:
    """Why Postgres cannot be used at all, with what to do about it."""
    said = text_of(exc)
    if isinstance(exc, psycopg.errors.InsufficientPrivilege):
        return StartupError(
            f"the database refuses the migration: {said}",
            remedy="grant the role CREATE on the database, or migrate as its owner",
        )
    if not isinstance(exc, psycopg.OperationalError):
        return StartupError(f"Postgres cannot be used: {said}", remedy="check DATABASE_URL")
    remedy = refusal_remedy(said)
    if remedy is not None:
        return StartupError(f"Postgres refuses the connection: {said}", remedy=remedy)
    return StartupError(
        f"Postgres cannot be reached: {said}",
        remedy="check that it runs, and host and port in DATABASE_URL",
    )


def refusal_remedy(said: str) -> str | None:
    """What to do where the server refuses the connection and says *said*; None for anything else."""
    return next((remedy for sign, remedy in _REFUSALS if re.search(sign, said)), None)


def text_of(exc: BaseException | None) -> str:
    """What the server or libpq said, on one line."""
    return " · ".join(line.strip() for line in str(exc).splitlines() if line.strip())
