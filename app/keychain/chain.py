"""``keychain`` as templates read it: each entry is resolved when it is first read, and only then.

An entry may refer to others by ``{{ keychain.other.field }}``. What cannot be resolved is an error
that names the entry; nothing is ever rendered as empty instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NoReturn, Protocol

import orjson

from app.engine.templates.scope import Scope
from app.engine.templates.template import has_template, needs_of, render
from app.errors import TemplateError, ToolError
from app.keychain.entries import KINDS
from app.keychain.entry import Entry, entry_of
from app.keychain.secrets import Means
from app.keychain.source import Found

#: Errors that stay what they are; any other says that the way in is not open.
_OWN_KINDS = frozenset({"auth", "cancelled", "connection", "rate_limit", "timeout"})
#: How a template says that a value may be missing.
_OPTIONAL = re.compile(r"\bdefault\b|\|\s*d\s*\(|\bis\s+(not\s+)?defined\b|\bif\b|\bor\b")

#: Resolves an entry anew; the value that it takes the place of may help.
Make = Callable[[Mapping[str, Any] | None], Found]


class Keeping(Protocol):
    """Where resolved entries are kept for the next who reads them."""

    def get(self, entry: Entry, make: Make) -> Mapping[str, Any]:
        """The entry's fields: kept ones while they hold, else what *make* gives."""


class UnresolvedError(ToolError):
    """An entry cannot be resolved; the message names it."""


class Fields(dict[str, Any]):
    """The fields of an entry; one that is missing is an error instead of nothing."""

    def __init__(self, entry: str, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self._entry = entry

    def __missing__(self, name: str) -> NoReturn:
        known = ", ".join(sorted(map(str, self))) or "none"
        raise UnresolvedError(
            f"keychain entry {self._entry!r} has no field {name!r}; it has {known}", kind="auth"
        )


class Keychain(Mapping[str, Any]):
    """The entries of one playbook for one attempt. *workload* is what their templates name."""

    def __init__(
        self,
        entries: Sequence[Mapping[str, Any]],
        workload: Mapping[str, Any],
        means: Means,
        keeping: Keeping,
        *,
        now: float,
    ) -> None:
        self._raw = {str(entry["name"]): entry for entry in entries}
        self._means = means
        self._keeping = keeping
        self._scope = Scope(workload, local={"keychain": self, "now_at": now})
        self._digest = _digest(workload)
        self._entries: dict[str, Entry] = {}
        self._resolving: list[str] = []

    def __getitem__(self, name: str) -> Fields:
        if name not in self._raw:
            known = ", ".join(sorted(self._raw)) or "none"
            raise UnresolvedError(
                f"the keychain has no entry {name!r}; it has {known}. Declare it below 'keychain'",
                kind="auth",
            )
        if name in self._resolving:
            circle = " -> ".join([*self._resolving[self._resolving.index(name) :], name])
            raise UnresolvedError(f"keychain entries refer to each other: {circle}", kind="auth")
        self._resolving.append(name)
        try:
            return Fields(name, self._fields(name))
        except UnresolvedError:
            raise  # of another entry that this one refers to
        except ToolError as exc:
            raise _named(name, exc) from None
        finally:
            self._resolving.pop()

    def __contains__(self, name: object) -> bool:
        return name in self._raw

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def _fields(self, name: str) -> Mapping[str, Any]:
        if name not in self._entries:
            raw = self._raw[name]
            self._entries[name] = entry_of(raw, self._digest_of(raw))
        entry = self._entries[name]

        def make(before: Mapping[str, Any] | None) -> Found:
            return KINDS[entry.kind].resolve(self._rendered(entry), self._means, before)

        return self._keeping.get(entry, make) if entry.costs else make(None).fields

    def _digest_of(self, raw: Mapping[str, Any]) -> str:
        """Empty for an entry that is the same for every workload."""
        needs = needs_of(_written(raw))
        return self._digest if needs.names or needs.workload or needs.everything else ""

    # ------------------------------------------------------------------ rendering
    def _rendered(self, entry: Entry) -> dict[str, Any]:
        return {key: self._value(value, str(key)) for key, value in entry.raw.items()}

    def _value(self, written: Any, place: str) -> Any:
        """*written* with its templates rendered, each to something."""
        if isinstance(written, Mapping):
            return {
                key: self._value(value, f"{place}.{key}")
                for key, value in zip(
                    self._value(list(written), place), written.values(), strict=True
                )
            }
        if isinstance(written, list | tuple):
            return [self._value(item, f"{place}.{number}") for number, item in enumerate(written)]
        if not isinstance(written, str) or not has_template(written):
            return written
        try:
            self._check_names(written, place)
            value = render(written, self._scope)
        except TemplateError as exc:
            raise ToolError(f"its {place!r} cannot be rendered: {exc}", kind="auth") from None
        if value in (None, "") and not _OPTIONAL.search(written):
            raise ToolError(
                f"its {place!r} renders to nothing; give it a value in the workload", kind="auth"
            )
        return value

    def _check_names(self, written: str, place: str) -> None:
        """Raises ``ToolError`` for a name that is not there: it would read as nothing."""
        if _OPTIONAL.search(written):
            return
        needs = needs_of(written)
        missing = sorted(name for name in needs.names | needs.workload if name not in self._scope)
        if missing:
            raise ToolError(
                f"its {place!r} names {missing[0]!r}, which the workload does not have; templates "
                "of the keychain read the workload and other entries",
                kind="auth",
            )


def _named(name: str, exc: ToolError) -> UnresolvedError:
    return UnresolvedError(
        f"keychain entry {name!r} cannot be resolved: {exc.message}",
        kind=exc.kind if exc.kind in _OWN_KINDS else "auth",
        retryable=exc.retryable,
        error_code=exc.error_code,
        details=exc.details,
    )


def _written(data: Any) -> list[str]:
    """Every text in *data*, keys included."""
    if isinstance(data, str):
        return [data]
    if isinstance(data, Mapping):
        return [text for pair in data.items() for each in pair for text in _written(each)]
    if isinstance(data, list | tuple):
        return [text for each in data for text in _written(each)]
    return []


def _digest(workload: Mapping[str, Any]) -> str:
    """A short mark of *workload*; empty where no entry reads it."""
    if not workload:
        return ""
    text = orjson.dumps(dict(workload), option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return blake2b(text, digest_size=12).hexdigest()
