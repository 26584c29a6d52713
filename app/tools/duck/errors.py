"""What went wrong in DuckDB, by the class of its error."""

from __future__ import annotations

import duckdb

from app.errors import ToolError

#: The first class that matches decides.
KINDS: tuple[tuple[type[duckdb.Error], str], ...] = (
    (duckdb.ParserException, "parse"),
    (duckdb.SyntaxException, "parse"),
    (duckdb.CatalogException, "schema"),
    (duckdb.BinderException, "schema"),
    (duckdb.ConversionException, "schema"),
    (duckdb.InvalidInputException, "schema"),
    (duckdb.OutOfMemoryException, "resource"),
    (duckdb.ConstraintException, "db_constraint"),
    (duckdb.TransactionException, "db_deadlock"),
    (duckdb.HTTPException, "connection"),
    (duckdb.PermissionException, "auth"),
    (duckdb.IOException, "not_found"),
)
RETRYABLE = frozenset({"db_deadlock", "connection"})


def classify(exc: duckdb.Error) -> ToolError:
    """The ``ToolError`` for *exc*."""
    if "pytz" in str(exc):
        return ToolError(
            "what a statement other than a query returns may not have times with a zone; cast them "
            "to VARCHAR or TIMESTAMP",
            kind="schema",
            error_code=type(exc).__name__,
        )
    kind = next((kind for cls, kind in KINDS if isinstance(exc, cls)), "unknown")
    return ToolError(
        str(exc), kind=kind, retryable=kind in RETRYABLE, error_code=type(exc).__name__
    )
