"""Writes the pages that come from the code: ``python docs/make_reference.py``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from app.settings import Settings

SETTINGS = Path(__file__).parent / "reference" / "settings.md"
HEAD = """# Settings

Settings come from the environment. Where several names are given the first that is set wins;
the command line wins over all of them. `callboard config` prints the values in use and where each
came from. An unknown name that begins with `CALLBOARD_` or `NOETL_` is reported, with the nearest
known one.

`NOETL_SECRET_<NAME>` (or `CALLBOARD_SECRET_<NAME>`) is not a setting: it is the secret `<name>`,
which tools find with `auth: {source: secret, name: <name>}`.

This page is made by `python docs/make_reference.py`.

| variable | default | what for |
|---|---|---|
"""


def settings_page() -> str:
    """The page of all settings, in the order of their declaration."""
    return HEAD + "".join(_row(item.default, item.metadata) for item in fields(Settings))


def _row(default: Any, metadata: Any) -> str:
    names = "<br>".join(f"`{name}`" for name in metadata["env"])
    help_ = metadata["help"] + (" (secret)" if metadata["secret"] else "")
    return f"| {names} | {_shown(default)} | {help_.replace('|', chr(92) + '|')} |\n"


def _shown(default: Any) -> str:
    if default is None or default == "":
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


if __name__ == "__main__":
    SETTINGS.write_text(settings_page(), encoding="utf-8")
