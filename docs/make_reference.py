"""Writes the pages that come from the code: ``python docs/make_reference.py``."""

from __future__ import annotations

import inspect
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from app.settings import Settings
from app.tools import Tool, kinds, load_tool

DOCS = Path(__file__).parent
SETTINGS = DOCS / "reference" / "settings.md"
TOOLS = DOCS / "language" / "tools.md"
TOOLS_HEAD = """# Tools

What each kind of tool takes and gives. Names in one cell mean the same key. Every tool also takes
`name`, `set` and `spec.policy`; see the [language reference](reference.md).

This page is made by `python docs/make_reference.py`.

"""
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


def tools_page() -> str:
    """The page of all tools: the module's words, then a row per key of the input model."""
    return TOOLS_HEAD + "\n".join(_tool(load_tool(kind)) for kind in kinds())


def _tool(tool: Tool) -> str:
    module = sys.modules[tool.run.__module__]
    words = inspect.cleandoc(module.__doc__ or "").replace("``", "`")
    model = inspect.cleandoc(tool.input.__doc__ or "").replace("``", "`")
    rows = "".join(_key(name, field) for name, field in tool.input.model_fields.items())
    return f"## {tool.kind}\n\n{words}\n\n{model}\n\n| key | default |\n|---|---|\n{rows}"


def _key(name: str, field: FieldInfo) -> str:
    choices = field.validation_alias
    names = choices.choices if isinstance(choices, AliasChoices) else [choices or name]
    default = (
        "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
    )
    return f"| {', '.join(f'`{each}`' for each in names)} | {default} |\n"


if __name__ == "__main__":
    TOOLS.write_text(tools_page(), encoding="utf-8")
    SETTINGS.write_text(settings_page(), encoding="utf-8")
