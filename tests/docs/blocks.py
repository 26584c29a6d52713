"""The code blocks of the documentation, and what comments before them say about each.

A comment ``<!-- word: … -->`` on the lines before a block's fence belongs to it; readers do not see
it. A ``yaml`` block without one is a whole playbook: it is valid, and it runs to its end. Words:

- ``run: result=… payload={…} status="FAILED" error="…" warehouse=true`` how it runs, and how it
  ends; the values are JSON. A ``json`` block right behind the playbook is its result, too.
- ``servers``: it is valid, and needs more than one process to run.
- ``fragment: playbook|step|steps|tool|policy``: a part, which is put into a playbook and is valid.
- ``invalid: code, …``: it has just these findings. A ``text`` block right behind it shows how
  ``callboard validate playbook.yaml`` tells them.
- ``other``: YAML of another program.
- ``result``, before a ``json`` block with words between it and its playbook: it is the result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("playbooks/**/*.md")])
WORDS = frozenset({"run", "servers", "fragment", "invalid", "other", "result"})
_MARK = re.compile(r"^<!-- ([a-z]+)(?:: (.*))? -->$")
_FENCE = re.compile(r"^```(\w*)$")
_OPTION = re.compile(r"\s*(\w+)=")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. ``line`` is that of its first line of text; ``shown`` what is shown behind it."""

    page: Path
    line: int
    language: str
    text: str
    marks: Mapping[str, str] = field(default_factory=dict)
    shown: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_empty(self) -> bool:
        """It has comments only."""
        return all(not line.strip() or line.startswith("#") for line in self.text.splitlines())

    @property
    def is_playbook(self) -> bool:
        """A whole playbook without a mistake shown on purpose."""
        return self.language == "yaml" and not self.is_empty and not self.marks.keys() & _PARTS

    @property
    def runs(self) -> bool:
        return self.is_playbook and "servers" not in self.marks

    def options(self) -> dict[str, Any]:
        """How it runs and ends: what ``run`` says, and the result shown."""
        options = {} if self.shown is None else {"result": json.loads(self.shown)}
        text, position = self.marks.get("run") or "", 0
        while text[position:].strip():
            found = _OPTION.match(text, position)
            if found is None:
                raise ValueError(f"{self.place}: expected name=JSON at {text[position:]!r}")
            value, position = json.JSONDecoder().raw_decode(text, found.end())
            options[found[1]] = value
        return options


_PARTS = frozenset({"fragment", "invalid", "other"})


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of *page*, in order. Raises ``ValueError`` for a mark that means nothing."""
    found: list[Block] = []
    marks: dict[str, str] = {}
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    gap = False
    for number, line in lines:
        fence, mark = _FENCE.match(line), _MARK.match(line)
        if fence:
            text = "\n".join(_inside(lines))
            last = found[-1] if found else None
            if fence[1] in {"json", "text"} and last and last.language == "yaml" and not gap:
                found[-1] = replace(last, shown=text)
            found.append(Block(page, number + 1, fence[1], text, marks))
            marks, gap = {}, False
        elif mark:
            if mark[1] not in WORDS:
                raise ValueError(
                    f"{page.relative_to(ROOT)}:{number}: no mark is called {mark[1]!r}"
                )
            marks, gap = {**marks, mark[1]: mark[2] or ""}, mark[1] != "result"
        elif line.strip():
            if marks:
                where = f"{page.relative_to(ROOT)}:{number}"
                raise ValueError(f"{where}: the mark before belongs to no block")
            gap = True
    return found


def _inside(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for _, line in lines:
        if line == "```":
            return
        yield line


def all_blocks(*languages: str) -> list[Block]:
    """The blocks of all pages in one of *languages*."""
    return [block for page in PAGES for block in blocks_of(page) if block.language in languages]
