"""Results on the command line: small ones printed, large ones into a file."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.output import print_value
from app.cli.session import Failure

if TYPE_CHECKING:
    from app.client import Client

#: A result above this size is not printed unless it is asked for with --json.
SHOWN_BYTES = 1_048_576

Pieces = Generator[bytes, None, None]


def show_result(client: Client, execution_id: str, step: str | None = None) -> None:
    """A result for people: a small one whole, of a large one its beginning and how to get it."""
    found = client.result_outline(execution_id, step)
    size = found["size_bytes"]
    if size is None or size <= SHOWN_BYTES:
        text = first(client.result_text(execution_id, found["step"]), SHOWN_BYTES)
        if text is not None:
            value = json.loads(text)
            if value is not None:
                print_value(value)
            return
    if found["preview"]:
        print_value(found["preview"])
    told = f"{size} bytes" if size else f"more than {SHOWN_BYTES} bytes"
    how = f"callboard result {execution_id} {found['step']} --out FILE"
    click.echo(f"The result of step {found['step']} has {told}; get it with '{how}'.", err=True)


def first(pieces: Pieces, most: int) -> bytes | None:
    """All of *pieces* together; None, and no more is read, once they are above *most* bytes."""
    text = bytearray()
    with closing(pieces):
        for piece in pieces:
            text += piece
            if len(text) > most:
                return None
    return bytes(text)


def save(pieces: Pieces, out: Path) -> int:
    """Write *pieces* to *out*, which is left alone until all of them are there; how many bytes."""
    part = out.with_name(f"{out.name}.part")
    size = 0
    try:
        with closing(pieces), part.open("wb") as file:
            for piece in pieces:
                size += file.write(piece)
        part.replace(out)
    except OSError as exc:
        raise Failure(f"{out} cannot be written: {exc.strerror}") from exc
    finally:
        part.unlink(missing_ok=True)
    return size
