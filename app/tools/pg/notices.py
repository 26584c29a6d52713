"""What a Postgres server says while a step's statements run: NOTICE, WARNING and the like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg.errors import Diagnostic

from app.tools import Context
from app.tools.pg.connections import Connection

#: Notices kept in the result, and characters of each; the step's log has all.
MOST = 20
LONGEST = 500


class Notices:
    """The notices of one call, in order."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._kept: list[str] = []
        self._count = 0

    @classmethod
    @contextmanager
    def of(cls, connection: Connection, context: Context) -> Iterator[Notices]:
        """Those that *connection* hears inside the block."""
        notices = cls(context)
        connection.add_notice_handler(notices.hear)
        try:
            yield notices
        finally:
            connection.remove_notice_handler(notices.hear)

    def hear(self, about: Diagnostic) -> None:
        """Keep it, and write it to the step's log."""
        text = f"{about.severity}: {about.message_primary}"
        self._context.log("stderr", text + "\n")
        self._count += 1
        if len(self._kept) < MOST:
            self._kept.append(text[:LONGEST])

    def told(self) -> dict[str, Any]:
        """``{notices: […]}``, or nothing where there were none."""
        if not self._count:
            return {}
        dropped = self._count - len(self._kept)
        return {"notices": [*self._kept, *([f"and {dropped} more"] if dropped else [])]}
