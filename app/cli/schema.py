"""``schema``: the JSON Schema of playbooks, for editors."""

from __future__ import annotations

import click

from app.cli.output import print_json
from app.cli.session import Session, api_options, pass_session


@click.command(
    epilog="""\b
Examples:
  callboard schema > callboard.schema.json
  callboard schema --tool http
Then, as the first line of a playbook:
  # yaml-language-server: $schema=callboard.schema.json"""
)
@click.option("--tool", "kind", help="of one kind of tool only")
@click.option("--remote", is_flag=True, help="ask the server, which may have other tools")
@api_options
@pass_session
def schema(session: Session, kind: str | None, remote: bool) -> None:
    """The JSON Schema (2020-12) of a playbook: what may stand where, tools included."""
    if remote:
        with session.client() as client:
            print_json(client.schema(kind))
        return
    from app.services.schema import schema_of
    from app.wiring import ToolKinds

    print_json(schema_of(ToolKinds(), kind))
