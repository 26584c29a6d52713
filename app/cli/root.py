"""The command ``callboard`` and the names of all commands below it."""

from __future__ import annotations

import click

from app.cli.session import Commands, Session, api_options

COMMANDS = {
    "cancel": "app.cli.executions:cancel",
    "catalog": "app.cli.catalog:catalog",
    "config": "app.cli.config:config",
    "db": "app.cli.database:db",
    "demo": "app.cli.demo:demo",
    "events": "app.cli.executions:events",
    "exec": "app.cli.run:run",
    "execute": "app.cli.execute:execute",
    "executions": "app.cli.executions:executions",
    "explain": "app.cli.inspect:explain",
    "list": "app.cli.catalog:list_",
    "pools": "app.cli.pools:pools",
    "register": "app.cli.catalog:register",
    "replay": "app.cli.inspect:replay",
    "result": "app.cli.executions:result",
    "run": "app.cli.run:run",
    "schema": "app.cli.schema:schema",
    "server": "app.cli.daemons:server",
    "status": "app.cli.executions:status",
    "up": "app.cli.up:up",
    "validate": "app.cli.validate:validate",
    "verify": "app.cli.inspect:verify",
    "version": "app.cli.config:version",
    "worker": "app.cli.daemons:worker",
}

EPILOG = """\b
Examples:
  callboard run playbook.yaml --set city=Oslo    run it here, without servers
  callboard up                                   start everything on this machine
  callboard register -f playbook.yaml            store it in the catalog
  callboard execute examples/flights --watch     run it durably and look on
  callboard status 1234                          where an execution stands
"""


@click.group(
    cls=Commands,
    lazy=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@api_options
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run YAML playbooks durably."""
    ctx.ensure_object(Session)  # one for all commands below
