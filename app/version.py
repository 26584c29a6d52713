"""Which version of Callboard this is."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def software_version() -> str:
    """The version of this distribution; ``0`` where the code runs without having been installed."""
    try:
        return version("callboard")
    except PackageNotFoundError:
        return "0"
