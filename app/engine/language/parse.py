"""From YAML to ``Playbook``: older forms are normalised, mistakes are collected with their lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.engine import graph
from app.engine.language.checks import Checks
from app.engine.language.head import path_of, read_executor, read_identity, read_keychain
from app.engine.language.needs import needs_of_keychain
from app.engine.language.source import Path, Source, read
from app.engine.language.steps import StepReader
from app.engine.language.tasks import Kinds
from app.engine.language.workbook import Workbook, read_workbook
from app.engine.playbook import Playbook, Step


def parse(
    text: str | bytes, kinds: Kinds, *, name: str = "playbook", max_bytes: int | None = None
) -> Playbook:
    """Read a playbook. Raises ``InvalidPlaybookError`` with everything that is wrong with it."""
    source = read(text, name=name, **({"max_bytes": max_bytes} if max_bytes else {}))
    return parse_source(source, kinds, name=name)


def parse_source(source: Source, kinds: Kinds, *, name: str = "playbook") -> Playbook:
    """The same from a document that is already read."""
    checks = Checks(source, name)
    playbook = attempt(checks, kinds)
    checks.finish()
    assert playbook is not None
    return playbook


def attempt(checks: Checks, kinds: Kinds) -> Playbook | None:
    """The playbook as far as it can be read; what is wrong with it is in *checks*."""
    data = checks.source.data
    if not isinstance(data, Mapping):
        message = "a playbook must be a mapping with apiVersion, kind, metadata, workflow"
        checks.problem((), "playbook-form", message)
        return None
    metadata = read_identity(checks, data)
    workbook = read_workbook(checks, data)
    steps = _steps(checks, data, kinds, workbook)
    executor, entry = read_executor(checks, data, kinds, steps)
    path = path_of(data, metadata)
    keychain = read_keychain(checks, data)
    workload = checks.mapping(data, "workload", ())
    links = {name: [arc.step for arc in step.arcs] for name, step in steps.items()}
    return Playbook(
        name=str(metadata.get("name") or path),
        path=path,
        steps=steps,
        entry=entry,
        workload=workload,
        graph=graph.build(links, entry),
        kind=str(data.get("kind")),
        meta=metadata,
        executor=executor,
        keychain=keychain,
        keychain_needs=needs_of_keychain(keychain),
    )


def parse_step(raw: Mapping[str, Any], kinds: Kinds) -> Step:
    """Read one step from JSON data, as workers get it. Raises ``InvalidPlaybookError``."""
    checks = Checks(Source(raw), f"step {raw.get('step')}")
    step = StepReader(checks, kinds, Workbook(checks), None).step(raw, ())
    checks.finish()
    assert step is not None
    return step


def _steps(
    checks: Checks, data: Mapping[str, Any], kinds: Kinds, workbook: Workbook
) -> dict[str, Step]:
    workflow = data.get("workflow")
    if not isinstance(workflow, list) or not workflow:
        message = "workflow must be a list of at least one step."
        checks.problem(("workflow",), "workflow", message)
        workflow = []
    known = {str(raw["step"]) for raw in workflow if isinstance(raw, Mapping) and "step" in raw}
    reader = StepReader(checks, kinds, workbook, known)
    steps: dict[str, Step] = {}
    for number, raw in enumerate(workflow):
        path: Path = ("workflow", number)
        step = reader.step(raw, path)
        if step is None:
            continue
        if step.name in steps:
            message = f"the step {step.name!r} is defined twice."
            checks.problem((*path, "step"), "duplicate-step", message)
        steps[step.name] = step
    _check_unused(reader)
    return steps


def _check_unused(reader: StepReader) -> None:
    """Read the workbook's tools that no step uses, so that their mistakes are found too."""
    workbook = reader.workbook
    for name, entry in workbook.entries.items():
        if name not in workbook.used:
            tool = workbook.expand(entry.tool, entry.path)
            reader.tools.tasks(tool, entry.path, name)
