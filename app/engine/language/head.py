"""Reads the head of a document: what it is, its executor and its keychain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.engine.language.checks import Checks, whole
from app.engine.language.source import Path
from app.engine.language.steps import read_timeout
from app.engine.language.tasks import Kinds
from app.engine.language.workbook import KIND as WORKBOOK
from app.engine.playbook import Executor, Step

API_VERSIONS = ("noetl.io/v2", "noetl.io/v10")
KINDS = frozenset({"playbook", "agent"})
PROFILES = ("local", "distributed", "auto")


def read_identity(checks: Checks, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metadata; what keeps the document from being a playbook at all is a finding."""
    if data.get("apiVersion") not in API_VERSIONS:
        message = _said(data, "apiVersion")
        hint = f"Write 'apiVersion: {API_VERSIONS[0]}'."
        checks.problem(("apiVersion",), "api-version", message, hint)
    if str(data.get("kind", "")).lower() not in KINDS:
        checks.problem(("kind",), "kind", _said(data, "kind"), "Write 'kind: Playbook'.")
    metadata = data.get("metadata")
    if not isinstance(metadata, Mapping) or not (metadata.get("name") or metadata.get("path")):
        message = "metadata.name is missing."
        checks.problem(("metadata",), "metadata-name", message, "Give the playbook a name.")
    if "vars" in data:
        message = "'vars' is not part of the language."
        checks.key_problem(("vars",), "refused-key", message, "Use 'workload'.")
    return checks.mapping(data, "metadata", ())


def _said(data: Mapping[str, Any], key: str) -> str:
    return f"{key} is {data[key]!r}." if key in data else f"{key} is missing."


def path_of(data: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """What the playbook is registered and called under."""
    places = (metadata.get("path"), data.get("path"), metadata.get("name"), data.get("name"))
    return str(next((place for place in places if place), "unknown"))


# ---------------------------------------------------------------------- executor
def read_executor(
    checks: Checks, data: Mapping[str, Any], kinds: Kinds, steps: Mapping[str, Step]
) -> tuple[Executor, str]:
    """What holds for a whole execution, and the step it begins with."""
    raw, path = checks.mapping(data, "executor", ()), ("executor",)
    spec, place = checks.mapping(raw, "spec", path), (*path, "spec")
    policy, below = checks.mapping(spec, "policy", place), (*place, "policy")
    limits = checks.mapping(policy, "limits", below)
    profile = raw.get("profile", "auto")
    if profile != "auto":
        checks.word(profile, PROFILES, (*path, "profile"), "profile", "the profile")
    requires, needs = checks.mapping(raw, "requires", path), (*path, "requires")
    executor = Executor(
        final_step=_step(checks, spec, place, "final_step", steps),
        no_next_is_error=checks.flag(spec, "no_next_is_error", place),
        timeout=read_timeout(checks, [(spec, place), (limits, (*below, "limits"))]),
        max_visits=checks.number(limits, "max_visits", (*below, "limits"), whole),
        profile=str(profile),
        tools=_tools(checks, requires, needs, kinds),
        features=_words(checks, requires, "features", needs),
        credentials=_words(checks, requires, "credentials", needs),
    )
    entry = _step(checks, spec, place, "entry_step", steps)
    return executor, entry or ("start" if "start" in steps else next(iter(steps), ""))


def _step(
    checks: Checks, spec: Mapping[str, Any], path: Path, key: str, steps: Mapping[str, Step]
) -> str | None:
    """The step that *key* (entry_step, final_step) names."""
    name = spec.get(key)
    if name is None or (isinstance(name, str) and name in steps):
        return name
    code, hint = key.replace("_", "-"), checks.nearest(name, steps)
    checks.problem((*path, key), code, f"{key} {name!r} is no step.", hint)
    return None


def _tools(
    checks: Checks, requires: Mapping[str, Any], path: Path, kinds: Kinds
) -> tuple[str, ...]:
    """The tools that the playbook says it requires; each must be one there is."""
    known = [*kinds, WORKBOOK]
    tools = _words(checks, requires, "tools", path)
    for number, tool in enumerate(tools):
        if tool not in known:
            message = f"the playbook requires the tool {tool!r}, which does not exist."
            hint = checks.nearest(tool, known) or f"Known kinds: {', '.join(sorted(kinds))}."
            checks.problem((*path, "tools", number), "unknown-tool", message, hint)
    return tools


def _words(checks: Checks, data: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    items = checks.items(data, key, path)
    for number, item in enumerate(items):
        if not isinstance(item, str):
            message = f"{key} must be a list of texts, {item!r} is none."
            checks.problem((*path, key, number), "text", message)
    return tuple(str(item) for item in items)


# ---------------------------------------------------------------------- keychain
def read_keychain(checks: Checks, data: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The keychain's entries as written, ``type`` said as ``kind``; workers resolve them."""
    entries: dict[str, Mapping[str, Any]] = {}
    for number, raw in enumerate(checks.items(data, "keychain", ())):
        path: Path = ("keychain", number)
        name = raw.get("name") if isinstance(raw, Mapping) else None
        if not isinstance(name, str) or not name:
            message = "a keychain entry must be a mapping with 'name'."
            checks.problem(path, "keychain-name", message, "Write '- {name: …, kind: …}'.")
            continue
        if name in entries:
            message = f"the keychain has two entries named {name!r}."
            checks.problem((*path, "name"), "duplicate-keychain", message)
        entry = {key: value for key, value in raw.items() if key != "type"}
        if "type" in raw:
            entry.setdefault("kind", raw["type"])
        entries[name] = checks.templates(entry, path)
    return tuple(entries.values())
