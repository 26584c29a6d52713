"""``env``: the worker's ``NOETL_SECRET_<NAME>`` and ``CALLBOARD_SECRET_<NAME>``, and no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.keychain.providers import Surroundings, Wanted

_PREFIXES = ("noetl_secret_", "callboard_secret_")


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables of this worker that are meant for playbooks."""

    surroundings: Surroundings

    def read(self, wanted: Wanted) -> str | dict[str, Any]:
        name = wanted.name.lower()
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        return self.surroundings.variable(name)


def open(  # noqa: A001 (the port's)
    access: Mapping[str, Any],  # noqa: ARG001 (nothing opens it)
    about: Mapping[str, Any],  # noqa: ARG001 (the port's)
    surroundings: Surroundings,
) -> Environment:
    """See ``Provider.open``."""
    return Environment(surroundings)
