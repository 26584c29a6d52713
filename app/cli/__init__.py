"""The command line: ``callboard`` (and ``noetl``, the same command)."""

from __future__ import annotations


def main() -> None:
    """Run the command line of this process and exit."""
    from app.cli.root import cli

    cli(windows_expand_args=False)
