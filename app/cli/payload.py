"""The payload of an execution, from the options of the command line."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

P = ParamSpec("P")
R = TypeVar("R")


def payload_options(command: Callable[P, R]) -> Callable[P, R]:
    """``--set``, ``--payload`` and ``-i``: parameters ``pairs``, ``text`` and ``file``."""
    options = (
        click.option(
            "--set",
            "pairs",
            multiple=True,
            metavar="KEY=TEXT",
            help="set a workload key to text, or with KEY:=JSON to any value; repeatable",
        ),
        click.option(
            "--payload", "--workload", "text", metavar="JSON", help="workload keys as JSON object"
        ),
        click.option(
            "-i",
            "--input",
            "file",
            type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True),
            help="file with a JSON object of workload keys; - reads stdin",
        ),
    )
    return functools.reduce(lambda inner, option: option(inner), reversed(options), command)


def payload_of(pairs: Sequence[str], text: str | None, file: Path | None) -> dict[str, Any]:
    """One payload; ``--set`` beats ``--payload``, which beats the file. Raises ``UsageError``."""
    result: dict[str, Any] = {}
    if file is not None:
        with click.open_file(str(file), encoding="utf-8") as stream:
            result |= _mapping(stream.read(), str(file))
    if text is not None:
        result |= _mapping(text, "--payload")
    for pair in pairs:
        key, value = _pair(pair)
        result[key] = value
    return result


def _mapping(text: str, origin: str) -> dict[str, Any]:
    value = _json(text, origin)
    if not isinstance(value, dict):
        raise click.UsageError(f'{origin}: a JSON object is needed, such as {{"city": "Oslo"}}')
    return value


def _pair(pair: str) -> tuple[str, Any]:
    key, found, value = pair.partition("=")
    is_json = key.endswith(":")
    key = key.removesuffix(":").strip().removeprefix("workload.")
    if not found or not key:
        raise click.UsageError(f"--set {pair!r}: KEY=TEXT or KEY:=JSON is needed")
    return key, _json(value, f"--set {key}:=") if is_json else value


def _json(text: str, origin: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise click.UsageError(f"{origin}: not JSON: {exc}") from exc
