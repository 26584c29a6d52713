"""What went wrong in Postgres, by SQLSTATE."""

from __future__ import annotations

import psycopg

from app.errors import ToolError

#: The longest matching prefix decides: kind, and whether the same statement may succeed later.
KINDS: dict[str, tuple[str, bool]] = {
    "08": ("db_connection", True),
    "0A": ("schema", False),
    "21": ("schema", False),
    "22": ("client_error", False),
    "23": ("db_constraint", False),
    "25": ("client_error", False),
    "25P03": ("db_connection", True),
    "28": ("auth", False),
    "3D": ("not_found", False),
    "3F": ("schema", False),
    "40": ("db_deadlock", True),
    "44": ("db_constraint", False),
    "42": ("schema", False),
    "42501": ("auth", False),
    "42601": ("parse", False),
    "53": ("resource", True),
    "53300": ("db_connection", True),
    "54": ("resource", False),
    "55006": ("db_deadlock", True),
    "55P03": ("db_deadlock", True),
    "57": ("db_connection", True),
    "57P04": ("not_found", False),
    "57014": ("db_timeout", True),
    "58": ("server_error", True),
    "P0": ("client_error", False),
    "XX": ("server_error", False),
}
_REFUSED = ("authentication failed", "no pg_hba.conf entry", "does not exist", "no password")


def classify(exc: psycopg.Error, *, secret: str | None = None) -> ToolError:
    """The ``ToolError`` for *exc*; *secret* is taken out of its message."""
    sqlstate = exc.sqlstate
    kind, retryable = _kind(exc, sqlstate)
    message = exc.diag.message_primary or str(exc).strip() or type(exc).__name__
    extra = [text for text in (exc.diag.message_detail, exc.diag.message_hint) if text]
    text = " ".join([message, *extra])
    return ToolError(
        text.replace(secret, "********") if secret else text,
        kind=kind,
        retryable=retryable,
        error_code=sqlstate,
        details={"pg": {"code": sqlstate, "sqlstate": sqlstate}},
    )


def _kind(exc: psycopg.Error, sqlstate: str | None) -> tuple[str, bool]:
    if sqlstate:
        for length in (5, 2):
            if found := KINDS.get(sqlstate[:length]):
                return found
        return "unknown", False
    # A connection that was refused has no SQLSTATE, only libpq's words.
    if isinstance(exc, psycopg.OperationalError):
        refused = any(words in str(exc) for words in _REFUSED)
        return ("auth", False) if refused else ("db_connection", True)
    return "schema", False
