"""What every command of one call shares: the settings, the API client, how errors look."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import click

from app.cli.interrupts import insisting
from app.errors import CallboardError
from app.settings import Loaded, Settings, load

if TYPE_CHECKING:
    from app.client import Client

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class Session:
    """One call of the command line; options fill it in wherever they stand."""

    overrides: dict[str, Any] = field(default_factory=dict)
    _loaded: Loaded | None = None

    def load(self, **overrides: Any) -> Loaded:
        """The settings with the options of the command line; warnings are printed once."""
        given = {**self.overrides, **overrides}
        if given.get("server_url") is None and ("host" in given or "port" in given):
            # An address on the command line beats a whole URL of the environment.
            host, port = given.get("host"), given.get("port")
            given["server_url"] = load(host=host, port=port, server_url="").settings.url
        loaded = load(**given)
        if self._loaded is None:
            for warning in loaded.warnings:
                click.echo(f"warning: {warning}", err=True)
        self._loaded = loaded
        return loaded

    @property
    def settings(self) -> Settings:
        return (self._loaded or self.load()).settings

    @property
    def url(self) -> str:
        """Where the API is: as told, else where ``callboard up`` of this home serves it."""
        from app.cli.pidfile import PidFile

        loaded = self._loaded or self.load()
        if all(loaded.origins[name] == "default" for name in ("server_url", "host", "port")):
            for name in ("up", "server"):
                running = PidFile.of(loaded.settings, name).read()
                if running is not None and running.url:
                    return running.url
        return loaded.settings.url

    @property
    def is_debugging(self) -> bool:
        return self._loaded is not None and self.settings.log_level == "debug"

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client of the API; Ctrl-C ends what is done with it."""
        from app.client import Client

        with insisting(), Client(self.url, token=self.settings.api_token) as client:
            yield client


pass_session = click.make_pass_decorator(Session, ensure=True)


class Failure(click.ClickException):
    """An expected error on its way to the user: message on stderr, exit code 1, no traceback."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.message}", file=file or sys.stderr)


class Interrupted(Failure):
    """Ctrl-C, and what that means; the exit code is a shell's."""

    exit_code = 130

    def show(self, file: Any = None) -> None:
        # The terminal shows ^C where we are; what we say begins on a line of its own.
        start = "\n" if sys.stderr.isatty() else ""
        click.echo(f"{start}{self.message}", file=file or sys.stderr)


@contextmanager
def on_interrupt(told: str) -> Iterator[None]:
    """Where Ctrl-C comes inside, end the command with *told*."""
    try:
        yield
    except KeyboardInterrupt as exc:
        raise Interrupted(told) from exc


class Lazy(NamedTuple):
    """A command that is imported when it is called: ``module:attribute``, and a line about it."""

    target: str
    summary: str


class Commands(click.Group):
    """A group whose commands are imported when they are called. Errors of ours become ``Failure``.

    ``sections`` holds them by the title that they stand under in the help.
    """

    def __init__(
        self, *args: Any, sections: Mapping[str, Mapping[str, Lazy]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._sections = sections or {}
        self._lazy = {name: lazy for part in self._sections.values() for name, lazy in part.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self._lazy, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = self._lazy.get(cmd_name)
        if lazy is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = lazy.target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not near:
                raise
            raise click.UsageError(f"{exc.message} Did you mean '{near[0]}'?", ctx) from exc

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (click gives it)
        """One line per command, and none of them cut. Nothing is imported for it."""
        for title, part in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, lazy.summary) for name, lazy in part.items()])
        if self.commands:
            rows = [
                (name, command.get_short_help_str(limit=200))
                for name, command in sorted(self.commands.items())
            ]
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CallboardError as exc:
            raise Failure(str(exc)) from exc
        except KeyboardInterrupt as exc:
            raise Interrupted("interrupted") from exc
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click knows what to do with these
        except Exception as exc:
            if ctx.ensure_object(Session).is_debugging:
                raise
            raise Failure(
                f"this should not have happened: {type(exc).__name__}: {exc} "
                "(please report it; with CALLBOARD_LOG_LEVEL=debug it says where)"
            ) from exc


def _store(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value is not None:
            ctx.ensure_object(Session).overrides[name] = value

    return keep


def api_options(command: Callable[P, R]) -> Callable[P, R]:
    """Options that say where the API is; accepted before and after the command's name."""
    options = (
        click.option(
            "-s",
            "--server-url",
            expose_value=False,
            callback=_store("server_url"),
            help="URL of the API, e.g. http://localhost:8082",
        ),
        click.option("--host", expose_value=False, callback=_store("host"), help="host of the API"),
        click.option(
            "--port",
            type=click.IntRange(1, 65535),
            expose_value=False,
            callback=_store("port"),
            help="port of the API",
        ),
        click.option(
            "--token", expose_value=False, callback=_store("api_token"), help="token for the API"
        ),
    )
    return functools.reduce(lambda inner, option: option(inner), reversed(options), command)


def json_option(command: Callable[P, R]) -> Callable[P, R]:
    """``--json``: the answer as JSON on stdout, nothing else there."""
    return click.option("-j", "--json", "as_json", is_flag=True, help="print JSON")(command)
