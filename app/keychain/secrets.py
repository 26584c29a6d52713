"""One secret of a provider, as a tool or an entry asks for it: which, and what opens it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.engine.auth import Lookup, is_inline, resolve
from app.engine.credentials import parsed, secret_texts
from app.errors import ToolError
from app.keychain.providers import Reader, Surroundings, Wanted, provider


@dataclass(frozen=True, slots=True)
class Means:
    """What resolving takes: the attempt's secrets, and what the worker lets providers use."""

    lookup: Lookup
    surroundings: Surroundings


def asked(about: Mapping[str, Any], means: Means) -> Any:
    """What *about* asks for, concealed: one secret, or several by field where it has a ``map``."""
    reader = opened(about, means)
    mapped = about.get("map")
    if not mapped:
        return read(reader, wanted_of(about), means)
    if not isinstance(mapped, Mapping):
        raise ToolError("'map' is no mapping of fields to names of secrets", kind="auth")
    return {str(name): one_of_map(reader, each, about, means) for name, each in mapped.items()}


def one_of_map(reader: Reader, each: Any, about: Mapping[str, Any], means: Means) -> Any:
    """The secret that a ``map`` names: by its name, or as ``{name, version, field}``."""
    one = dict(each) if isinstance(each, Mapping) else {"name": each}
    value = read(reader, wanted_of({"version": about.get("version"), **one}), means)
    # A secret of the one field ``value`` is that value.
    return value["value"] if isinstance(value, Mapping) and value.keys() == {"value"} else value


def opened(about: Mapping[str, Any], means: Means) -> Reader:
    """The provider that *about* names, opened with its ``auth``. Raises ``ToolError``."""
    found = provider(about.get("provider"))
    auth = about.get("auth")
    surroundings = means.surroundings
    if is_inline(auth):
        # The worker's own identity must not be shown to a host that a playbook chose.
        surroundings = replace(surroundings, ambient=False)
    return found.open(resolve(auth, means.lookup) if auth else {}, about, surroundings)


def read(reader: Reader, wanted: Wanted, means: Means) -> Any:
    """The secret, concealed: text, or data by field; with ``field`` that one alone."""
    try:
        found = reader.read(wanted)
    except ToolError as exc:
        # Who answered is in it; which secret was asked for is what its reader looks for.
        raise ToolError(
            f"secret {wanted.name!r}: {exc}",
            kind=exc.kind,
            retryable=exc.retryable,
            error_code=exc.error_code,
            details=exc.details,
        ) from None
    means.lookup.conceal(*concealed(found))
    if wanted.field is None:
        return found
    fields = parsed(found) if isinstance(found, str) else found
    if wanted.field not in fields:
        raise ToolError(
            f"secret {wanted.name!r} has no field {wanted.field!r}; it has {_names(fields)}",
            kind="not_found",
        )
    picked = fields[wanted.field]
    means.lookup.conceal(*concealed(picked))
    return picked


def concealed(found: Any) -> list[str]:
    """What of a secret must not be shown: a text wholly, and of several fields all but those that
    say where and who."""
    if isinstance(found, str):
        try:
            fields = parsed(found)
        except ToolError:
            return [found]
        # A text in JSON is not found again in what is made of its fields.
        return [found, *(() if fields == {"value": found.strip()} else secret_texts(fields))]
    return list(secret_texts(found))


def wanted_of(about: Mapping[str, Any]) -> Wanted:
    """The secret that *about* names. Raises ``ToolError`` without a name."""
    name = about.get("name") or about.get("secret") or about.get("path") or about.get("key")
    if not isinstance(name, str) or not name:
        raise ToolError("the secret has no 'name'", kind="auth")
    version, field = about.get("version"), about.get("field")
    base, _, inner = name.partition("#")
    return Wanted(base, _text(version), _text(field) or inner or None)


def _text(value: Any) -> str | None:
    return None if value in (None, "") else str(value)


def _names(fields: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, fields))[:20]) or "none"
