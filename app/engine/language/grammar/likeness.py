"""Which known word another one is a slip of."""

from __future__ import annotations

import difflib
from collections.abc import Collection


class Likeness:
    """Finds near words, with a bound on how many pairs are compared for one document."""

    def __init__(self, budget: int = 200_000) -> None:
        self._left = budget

    def near(self, word: str, known: Collection[str], cutoff: float) -> str | None:
        """The most alike of *known*, if any is at least *cutoff* (0 to 1); None with no budget left."""
        self._left -= len(known)
        if self._left < 0:
            return None
        found = difflib.get_close_matches(word, sorted(known), n=1, cutoff=cutoff)
        return found[0] if found else None
