"""The pieces of a blob on their way in: what goes wrong with them is told from what the store says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Given:
    """*pieces*, once, and the error that ended them early."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except StopIteration:
            raise
        except Exception as exc:
            self._error = exc
            raise

    @contextmanager
    def own_errors(self) -> Iterator[None]:
        """Raise the error of the pieces as it was, whatever the store made of it."""
        try:
            yield
        except Exception:
            if self._error is not None:
                raise self._error from None
            raise
