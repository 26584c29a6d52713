"""A connection on which several statements take one write and one wait.

psycopg's own pipeline sends each statement when it comes and looks at the socket every time. For the
seven statements of an ordinary transaction that is five times the CPU of what is done here, on
the same libpq (``psycopg.pq``), and a quarter of a millisecond.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.waiting import Ready, Wait

Row = tuple[Any, ...]

_PLACE = re.compile(r"%s|%\((\w+)\)s")
_numbers = itertools.count(1)


class Statement:
    """SQL that each connection prepares once. Its places are numbered as they come: ``%s``, or by name."""

    __slots__ = ("name", "sql")

    def __init__(self, text: str) -> None:
        names: dict[str, int] = {}

        def numbered(place: re.Match[str]) -> str:
            return f"${names.setdefault(place[1] or str(len(names)), len(names) + 1)}"

        self.sql = _PLACE.sub(numbered, text).encode()
        self.name = f"callboard_{next(_numbers)}".encode()


class Call(NamedTuple):
    """A statement with its parameters, as Postgres reads them."""

    statement: Statement
    parameters: Sequence[str | int] = ()


_FORGET = Call(Statement("DEALLOCATE ALL"))


class Pipelined(psycopg.Connection[Any]):
    """A psycopg connection, and ``together``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known: set[bytes] = set()

    def rollback(self) -> None:
        """Undo what is open, if anything is."""
        undone = not self._is_idle
        super().rollback()
        if undone:
            # psycopg did so if it had prepared something; whether it had, is not for us to know.
            self.together([_FORGET])
            self._known.clear()

    def together(
        self, calls: Iterable[Call], *, meanwhile: Callable[[], object] | None = None
    ) -> list[list[Row]]:
        """The rows of each call, in order. Raises ``psycopg.Error``: of the first that failed; those
        after it were not done. Outside of a transaction they are one: all of them, or none.

        *meanwhile* is called when all are sent, before the answers are waited for.
        """
        listed, begins = list(calls), self._is_idle
        with self.lock:
            try:
                return self._at_once(listed, meanwhile)
            except psycopg.errors.InvalidSqlStatementName:
                # Somebody's DEALLOCATE ALL: psycopg sends one some time after DDL, too.
                self._known.clear()
                if not (begins and self._is_idle):
                    raise
                # Nothing was done.
                return self._at_once(listed)

    @property
    def _is_idle(self) -> bool:
        return self.pgconn.transaction_status == pq.TransactionStatus.IDLE

    def _at_once(
        self, calls: Sequence[Call], meanwhile: Callable[[], object] | None = None
    ) -> list[list[Row]]:
        try:
            self.pgconn.enter_pipeline_mode()
            sent = self._send(calls)
            if meanwhile is not None:
                meanwhile()
            results = self.wait(_results(self.pgconn))
            self.pgconn.exit_pipeline_mode()
        except BaseException:
            # Nobody knows what is still to come.
            self.close()
            raise
        return self._rows(sent, results)

    def _send(self, calls: Iterable[Call]) -> list[Statement | None]:
        """Put *calls* into libpq's buffer. What each result will be of: a statement to prepare, or a call."""
        sent: list[Statement | None] = []
        for statement, parameters in calls:
            if statement.name not in self._known and statement not in sent:
                self.pgconn.send_prepare(statement.name, statement.sql)
                sent.append(statement)
            texts = [str(parameter).encode() for parameter in parameters]
            self.pgconn.send_query_prepared(statement.name, texts)
            sent.append(None)
        self.pgconn.pipeline_sync()
        return sent

    def _rows(
        self, sent: Sequence[Statement | None], results: Sequence[pq.abc.PGresult]
    ) -> list[list[Row]]:
        transformer = Transformer(self)
        rows: list[list[Row]] = []
        for statement, result in itertools.zip_longest(sent, results):
            # One more than was asked for: without a COMMIT there is none whose failure it could be.
            if result.status not in {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK}:
                raise error_from_result(result, self.info.encoding)
            if statement is not None:
                self._known.add(statement.name)
            else:
                transformer.set_pgresult(result)
                rows.append(transformer.load_rows(0, result.ntuples, tuple))
        return rows


def _results(pgconn: pq.abc.PGconn) -> Generator[Wait, Ready | int, list[pq.abc.PGresult]]:
    """Send what is in the buffer, and receive until the sync at its end: one result each."""
    results: list[pq.abc.PGresult] = []
    while True:
        unsent = pgconn.flush()
        nothing = False
        # Between the results of two statements there is a None; after two of them nothing has come yet.
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                if nothing:
                    break
                nothing = True
            elif result.status == pq.ExecStatus.PIPELINE_SYNC:
                return results
            else:
                results.append(result)
                nothing = False
        ready = yield Wait.RW if unsent else Wait.R
        if ready & Ready.R:
            pgconn.consume_input()
