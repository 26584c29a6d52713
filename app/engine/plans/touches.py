"""What a playbook reaches outside itself, as far as its text says so: names and hosts, never values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from app.engine.language.source import texts
from app.engine.playbook import Playbook, Step, Task
from app.engine.templates.template import has_template

#: Keys of a tool that name a credential, or hold one.
CREDENTIAL_KEYS = ("auth", "credential", "credentials", "gcs_credential", "catalog_connection")
#: Keys of a tool that hold an address.
ADDRESS_KEYS = ("url", "endpoint", "uri", "server", "host", "db_host", "data_path")
#: Keys of a tool that hold a file's place.
FILE_KEYS = ("database", "db_path")
#: Mappings inside a tool's config that have such keys of their own.
NESTED = ("source", "target", "script", "sink")
#: Where an ``auth`` mapping keeps the name of what it means.
NAMING = ("name", "key", "secret_name", "credential", "service")
INLINE = "(given inline)"

_EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_KEYCHAIN = re.compile(r"\bkeychain(?:\.|\[\s*['\"])(\w+)")
_HOST = re.compile(r"^[\w.\-\[\]:]*[\w\]](?::\d+)?$")
_NAME = re.compile(r"^[\w./@ \-]{1,128}$")
#: Stands for a template while an address is taken apart; no address has it.
_HOLE = "\x00"


@dataclass(frozen=True, slots=True)
class Child:
    """A playbook that a step calls. ``waits``: the step goes on when that one has ended."""

    path: str
    waits: bool = False
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Touches:
    """Names that a piece of a playbook mentions; templates stand as they were written."""

    credentials: tuple[str, ...] = ()
    keychain: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    children: tuple[Child, ...] = ()

    def __or__(self, other: Touches) -> Touches:
        joined = {
            item.name: tuple(dict.fromkeys(getattr(self, item.name) + getattr(other, item.name)))
            for item in fields(Touches)
        }
        return Touches(**joined)

    def __bool__(self) -> bool:
        return any(getattr(self, item.name) for item in fields(Touches))


def of_step(step: Step) -> Touches:
    """What the tools of *step* touch, and the cursor of its loop."""
    tasks = list(step.tasks)
    if step.loop is not None and step.loop.cursor is not None:
        tasks.append(step.loop.cursor.task)
    named = Touches(keychain=tuple(_keychain([step.input, *(task.config for task in tasks)])))
    return _union([*(of_task(task) for task in tasks), named])


def of_task(task: Task) -> Touches:
    """What one tool call touches."""
    found = _of_config(task.config)
    if task.kind != "playbook":
        return found
    return found | Touches(children=(_child(task.config),))


def of_keychain(playbook: Playbook) -> Touches:
    """What resolving the keychain's entries touches."""
    return _union(_of_config(entry) for entry in playbook.keychain)


def _union(parts: Iterable[Touches]) -> Touches:
    total = Touches()
    for part in parts:
        total |= part
    return total


def _of_config(config: Mapping[str, Any]) -> Touches:
    found = Touches(
        credentials=tuple(
            name for key in CREDENTIAL_KEYS if key in config for name in _credentials(config[key])
        )
    )
    for key in ADDRESS_KEYS:
        if isinstance(config.get(key), str):
            found |= _address(config[key], key)
    for key in FILE_KEYS:
        place = config.get(key)
        if isinstance(place, str) and place != ":memory:" and "=" not in place:
            found |= _address(place, "file")
    for key in NESTED:
        if isinstance(config.get(key), Mapping):
            found |= _of_config(config[key])
            if key == "script" and isinstance(config[key].get("path"), str):
                found |= _address(config[key]["path"], "file")
    return found


def _credentials(value: Any) -> Iterator[str]:
    """The names in an ``auth``: a name, a mapping with one, or aliases of such."""
    if isinstance(value, str):
        # What is no name may be the secret itself.
        yield value if has_template(value) or _NAME.match(value) else INLINE
    elif isinstance(value, Mapping):
        inner = [item for item in value.values() if isinstance(item, Mapping)]
        names = [value[key] for key in NAMING if isinstance(value.get(key), str)]
        if value.get("source") not in {None, "inline"} and names:
            yield from _credentials(names[0])
        elif inner:
            for item in inner:
                yield from _credentials(item)
        elif isinstance(value.get("credential"), str):
            yield from _credentials(value["credential"])
        elif value:
            yield INLINE
    elif isinstance(value, list):
        for item in value:
            yield from _credentials(item)


def _address(text: str, key: str) -> Touches:
    """The host of an address, or the file that it is."""
    scheme, has_scheme, _ = text.partition("://")
    if has_scheme and scheme != "file":
        return Touches(hosts=(host_of(text),))
    if has_scheme or key == "file" or (key in {"uri", "data_path"} and not has_template(text)):
        return Touches(files=(text.removeprefix("file://"),))
    return Touches(hosts=(host_of(text),))


def host_of(url: str) -> str:
    """``host:port`` of *url*, templates as written; other schemes than http keep theirs.

    A URL that begins with a template gives that template. Users and passwords are left out.
    """
    holes = _EXPRESSION.findall(url)
    plain = _EXPRESSION.sub(_HOLE, url)
    scheme, has_scheme, rest = plain.partition("://")
    if not has_scheme:
        scheme, rest = "", plain
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    before, _, host = authority.rpartition("@")
    skipped = (scheme + before).count(_HOLE)
    if not _HOST.match(host.replace(_HOLE, "x")) or _bad_port(host):
        return INLINE
    for expression in holes[skipped:]:
        host = host.replace(_HOLE, expression, 1)
    return host if scheme in {"", "http", "https"} or _HOLE in scheme else f"{scheme}://{host}"


def _bad_port(host: str) -> bool:
    """Something that is no number stands where a port would: perhaps half a password."""
    if _HOLE in host:
        return False
    try:
        return bool(urlsplit(f"//{host}").port and False)
    except ValueError:
        return True


def _child(config: Mapping[str, Any]) -> Child:
    step = config.get("return_step") or config.get("result_step")
    waits = bool(step) or any(_may(config.get(key)) for key in ("return_result", "wait"))
    version = config.get("version")
    path = config.get("path") or config.get("name") or config.get("catalog_id") or "?"
    return Child(str(path), waits, None if version is None else str(version))


def _may(flag: Any) -> bool:
    """Whether a flag is set, or a template that may set it."""
    if isinstance(flag, str):
        return has_template(flag) or flag.strip().lower() in {"true", "yes", "1", "on"}
    return bool(flag)


def _keychain(data: Any) -> Iterator[str]:
    """The entries of the keychain that templates name."""
    for _, text in texts(data):
        if has_template(text):
            for expression in _EXPRESSION.findall(text):
                yield from _KEYCHAIN.findall(expression)
