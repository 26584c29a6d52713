"""Writes the pages that come from the code: ``python docs/make_reference.py``."""

from __future__ import annotations

import inspect
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from app.engine.language.codes import CODES
from app.engine.language.grammar.forms import FORMS
from app.engine.language.grammar.shapes import Form, Key, words_of
from app.engine.language.lint.codes import LINT_CODES
from app.failpoints import ACTIONS, POINTS
from app.settings import Settings
from app.tools import Tool, kinds, load_tool

DOCS = Path(__file__).parent
KEYS = DOCS / "language" / "keys.md"
FINDINGS = DOCS / "language" / "findings.md"
SETTINGS = DOCS / "reference" / "settings.md"
FAILPOINTS = DOCS / "reference" / "failpoints.md"
TOOLS = DOCS / "language" / "tools.md"
TOOLS_HEAD = """# Tools

What each kind of tool takes and gives. Names in one cell mean the same key. Every tool also takes
`name`, `set` and `spec.policy`; see the [language reference](reference.md).

This page is made by `python docs/make_reference.py`.

"""
KEYS_HEAD = """# Keys

Every key of a playbook, mapping by mapping; the keys of each kind of tool are on the page of
[tools](tools.md). A key in *italics* is an older one: it is read, and need not be written any more.

The same as JSON Schema (2020-12), for editors that complete and check: `callboard schema >
callboard.schema.json`, and then as the first line of a playbook:

```yaml
# yaml-language-server: $schema=callboard.schema.json
```

This page is made by `python docs/make_reference.py`.

"""
FINDINGS_HEAD = """# Findings

What `callboard validate` and the registration of a playbook may say about it. Each finding has a
line, a column, a code and mostly a suggestion. An error keeps the playbook from being registered or
run. A warning does not (`validate --strict` makes it an error), nor does a hint.

This page is made by `python docs/make_reference.py`.

"""
FAILPOINTS_HEAD = """# Failpoints

What `CALLBOARD_FAILPOINT` can name; [how to use it](../how-to/failpoints.md). `callboard config
--failpoints` prints the same.

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


def failpoints_page() -> str:
    """The page of all failpoints and what can happen at them."""
    tables = (("point", "its operation", POINTS), ("action", "the process", ACTIONS))
    return FAILPOINTS_HEAD + "\n".join(
        f"| {word} | {about} |\n|---|---|\n"
        + "".join(f"| `{name}` | {_cell(meaning)} |\n" for name, meaning in table.items())
        for word, about, table in tables
    )


def tools_page() -> str:
    """The page of all tools: the module's words, then a row per key of the input model."""
    return TOOLS_HEAD + "\n".join(_tool(load_tool(kind)) for kind in kinds())


def _tool(tool: Tool) -> str:
    module = sys.modules[tool.run.__module__]
    words = inspect.cleandoc(module.__doc__ or "").replace("``", "`")
    model = inspect.cleandoc(tool.input.__doc__ or "").replace("``", "`")
    rows = "".join(_key(name, field) for name, field in tool.input.model_fields.items())
    head = "| key | default | what for |\n|---|---|---|\n"
    return f"## {tool.kind}\n\n{words}\n\n{model}\n\n{head}{rows}"


def _key(name: str, field: FieldInfo) -> str:
    choices = field.validation_alias
    names = choices.choices if isinstance(choices, AliasChoices) else [choices or name]
    default = (
        "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
    )
    about = _cell(field.description or "")
    return f"| {', '.join(f'`{each}`' for each in names)} | {default} | {about} |\n"


def keys_page() -> str:
    """The page of all keys, form by form."""
    return KEYS_HEAD + "\n".join(_form(form) for form in FORMS.values())


def _form(form: Form) -> str:
    refused = "".join(f"\n`{name}` is refused. {hint}\n" for name, hint in form.refused.items())
    more = "" if form.open else " It has no other keys."
    head = "| key | holds | what for |\n|---|---|---|\n"
    rows = "".join(
        f"| {_names(key)} | {_cell(words_of(key.shape))} | {_cell(_about(key))} |\n"
        for key in form.keys
    )
    return f"## {form.name}\n\n{form.about}{more}\n{refused}\n{head}{rows}"


def _names(key: Key) -> str:
    marked = [f"`{name}`" for name in key.names]
    return ", ".join(f"*{name}*" for name in marked) if key.older else ", ".join(marked)


def _about(key: Key) -> str:
    return (
        f"{key.about}{' Required.' if key.required else ''}{f' {key.older}' if key.older else ''}"
    )


def findings_page() -> str:
    """The page of all codes."""
    tables = (("Of the parser", CODES), ("Of the checks beyond it", LINT_CODES))
    return FINDINGS_HEAD + "\n".join(
        f"## {title}\n\n| code | meaning |\n|---|---|\n"
        + "".join(f"| `{code}` | {_cell(meaning)} |\n" for code, meaning in table.items())
        for title, table in tables
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    KEYS.write_text(keys_page(), encoding="utf-8")
    FINDINGS.write_text(findings_page(), encoding="utf-8")
    TOOLS.write_text(tools_page(), encoding="utf-8")
    SETTINGS.write_text(settings_page(), encoding="utf-8")
    FAILPOINTS.write_text(failpoints_page(), encoding="utf-8")
