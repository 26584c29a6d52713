"""Credentials as they are given: JSON files, text, single fields, and what is asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.session import Failure

if TYPE_CHECKING:
    from app.wire import CredentialPut

#: Keys that make a JSON object a credential, and not the fields of one.
_WHOLE = frozenset({"data", "credential_type"})


def is_credential(place: Path) -> bool:
    """Whether *place* is a JSON file that is no playbook."""
    if place.suffix != ".json" or not place.is_file():
        return False
    return "apiVersion" not in _object(_text(place), str(place))


def credentials_in(place: Path) -> Iterator[CredentialPut]:
    """The credential in a file, or those in the ``.json`` files of a folder and below it."""
    files = sorted(place.rglob("*.json")) if place.is_dir() else [place]
    if not files:
        raise Failure(f"there is no .json file in {place}")
    for file in files:
        given = document(_text(file), str(file))
        yield checked({"name": file.stem, **given}, str(file))


def document(text: str, source: str) -> dict[str, Any]:
    """A credential from JSON: as a whole, or its fields alone. Raises ``Failure``.

    The key file that Google hands out is the fields of a service account.
    """
    found = _object(text, source)
    if _WHOLE & found.keys():
        return found
    if found.get("type") == "service_account":
        return {"type": "google_service_account", "data": found}
    return {"data": found}


def checked(given: Mapping[str, Any], source: str) -> CredentialPut:
    """*given* as the API takes it. Raises ``Failure`` that names the key, not the value."""
    from pydantic import ValidationError

    from app.wire import CredentialPut

    try:
        return CredentialPut.model_validate(given)
    except ValidationError as exc:
        places = ((".".join(map(str, error["loc"])), error["msg"]) for error in exc.errors())
        told = "; ".join(f"{place}: {message}" for place, message in places)
    raise Failure(f"{source} is no credential: {told}")


def fields_of(pairs: Sequence[str]) -> dict[str, Any]:
    """The fields in ``KEY=TEXT`` and ``KEY:=JSON``. Raises ``UsageError`` that tells no value."""
    fields: dict[str, Any] = {}
    for number, pair in enumerate(pairs, 1):
        key, found, value = pair.partition("=")
        if not found or not key.removesuffix(":").strip():
            raise click.UsageError(f"--set number {number} is not KEY=TEXT or KEY:=JSON")
        name = key.removesuffix(":").strip()
        fields[name] = _json(value, f"--set {name}:=") if key.endswith(":") else value
    return fields


def asked(type_: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """*data*, and on a terminal the secret of that type where none was given; it is not shown."""
    from app.engine.credential_types import secrecy_of, type_named

    found, secrecy = type_named(type_), secrecy_of(type_)
    given = any(secrecy.get(name.lower()) for name in data)
    if found is None or given or not sys.stdin.isatty():
        return dict(data)
    secrets = [field.names[0] for field in found.fields if field.secret]
    name = next((name for name in secrets if name != "url"), None)
    if name is None:
        return dict(data)
    answer = click.prompt(
        f"{name} (not shown; empty for none)", hide_input=True, default="", show_default=False
    )
    return {**data, name: answer} if answer else dict(data)


def warn_of_history(type_: str, fields: Mapping[str, Any]) -> None:
    """Say so where a secret stands on the command line."""
    from app.engine.credentials import Credential

    shown = Credential("", type_, fields).shown()
    names = sorted(name for name, value in fields.items() if shown[name] != value)
    if names:
        click.echo(
            f"warning: {', '.join(names)} is now in the history of your shell, and was seen in the "
            "list of processes; give it with -f FILE or --stdin, or leave it out to be asked",
            err=True,
        )


def _object(text: str, source: str) -> dict[str, Any]:
    found = _json(text, source)
    if not isinstance(found, dict):
        raise Failure(f"{source} is not a JSON object")
    return found


def _json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        place = f"line {exc.lineno}" if isinstance(exc, json.JSONDecodeError) else "the text"
    # Outside of the handler: the error holds the text.
    raise Failure(f"{source} is not JSON ({place})")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as exc:
        raise Failure(f"{path} cannot be read as text: {type(exc).__name__}") from None
