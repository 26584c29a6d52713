"""Dramatiq middleware of our actors."""

from __future__ import annotations

from dramatiq.middleware import Middleware


class Outages(Middleware):
    """Lets actors name, as ``throws``, the errors that are outages: logged without a traceback."""

    @property
    def actor_options(self) -> set[str]:
        return {"throws"}
