"""The command ``callboard`` and the names of all commands below it."""

from __future__ import annotations

import click

from app.cli.session import Commands, Lazy, Session, api_options

SECTIONS = {
    "Playbooks": {
        "run": Lazy("app.cli.run:run", "Run a playbook in this process, without servers."),
        "exec": Lazy("app.cli.run:run", "The same as run."),
        "validate": Lazy(
            "app.cli.validate:validate", "Check playbooks: every mistake at once, with its line."
        ),
        "explain": Lazy(
            "app.cli.inspect:explain", "What a playbook would do, and what it touches."
        ),
        "schema": Lazy("app.cli.schema:schema", "The JSON Schema of playbooks, for editors."),
    },
    "On the servers": {
        "register": Lazy("app.cli.catalog:register", "Store playbooks in the catalog."),
        "credential": Lazy(
            "app.cli.credentials:credential", "Keep what tools log in with, sealed."
        ),
        "catalog": Lazy("app.cli.catalog:catalog", "Look up what is registered."),
        "execute": Lazy("app.cli.execute:execute", "Start a registered playbook."),
        "status": Lazy("app.cli.executions:status", "Where an execution stands, step by step."),
        "events": Lazy("app.cli.events:events", "What happened in an execution, in order."),
        "logs": Lazy("app.cli.logs:logs", "What the steps of an execution printed, live or later."),
        "result": Lazy("app.cli.executions:result", "The result of an execution, or of a step."),
        "cancel": Lazy("app.cli.executions:cancel", "End an execution."),
        "pause": Lazy("app.cli.interventions:pause", "Start nothing new in an execution."),
        "resume": Lazy("app.cli.interventions:resume", "Let a paused execution go on."),
        "retry": Lazy("app.cli.interventions:retry", "Try again what failed in an execution."),
        "rerun": Lazy("app.cli.interventions:rerun", "Run a playbook again as it was started."),
        "executions": Lazy("app.cli.executions:executions", "List executions, newest first."),
        "list": Lazy("app.cli.catalog:list_", "List executions, pools or playbooks."),
        "get": Lazy("app.cli.catalog:get", "Show a credential or a playbook."),
        "prune": Lazy("app.cli.prune:prune", "Remove executions that ended long ago."),
        "pools": Lazy("app.cli.pools:pools", "List the worker processes."),
        "replay": Lazy("app.cli.inspect:replay", "What each event of an execution changed."),
        "why": Lazy("app.cli.why:why", "Why a step does not run, or why it failed."),
        "verify": Lazy("app.cli.inspect:verify", "Prove that what is shown is what the log says."),
    },
    "This machine": {
        "up": Lazy("app.cli.up:up", "Start everything, and keep it running until Ctrl-C."),
        "demo": Lazy("app.cli.demo:demo", "Start everything, run an example, stop everything."),
        "server": Lazy("app.cli.daemons:server", "The API server in the background."),
        "worker": Lazy("app.cli.daemons:worker", "Workers in the background."),
        "db": Lazy("app.cli.database:db", "Create, upgrade and look at the database schema."),
        "config": Lazy("app.cli.config:config", "Every setting, its value and where it came from."),
        "doctor": Lazy("app.cli.doctor:doctor", "What is wrong here, and what to do about it."),
        "version": Lazy("app.cli.config:version", "The version of Callboard."),
    },
}
COMMANDS = {name: lazy for part in SECTIONS.values() for name, lazy in part.items()}

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
    sections=SECTIONS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(
    package_name="callboard", prog_name="callboard", message="%(prog)s %(version)s"
)
@api_options
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run YAML playbooks durably."""
    ctx.ensure_object(Session)  # one for all commands below
