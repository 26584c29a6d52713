"""What names an execution, and a moment, on the command line; checked before anybody is asked."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import click

LARGEST = 1 << 63
#: A hundred years in seconds.
LONGEST = 3_153_600_000.0
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)?")
_UNITS = {None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


class _ExecutionId(click.ParamType[str]):
    """The digits of an execution's id."""

    name = "execution id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = value.strip()
        if not (text.isascii() and text.isdigit() and 0 < int(text) < LARGEST):
            self.fail(
                f"{value!r} is not the id of an execution, which is a number; "
                "'callboard executions' lists them",
                param,
                ctx,
            )
        return text


class _Moment(click.ParamType[str]):
    """A time in ISO form; one without a zone is in UTC, as all times that we show."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            self.fail(
                f"{value!r} is not a time; write 2030-01-31 or 2030-01-31T12:00:00Z (UTC)",
                param,
                ctx,
            )
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


class _Age(click.ParamType[float]):
    """How long ago, in seconds; ``30d``, ``12h``, ``90m``, ``45s`` or seconds."""

    name = "duration"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        match = _AGE.fullmatch(str(value).strip())
        seconds = float(match[1]) * _UNITS[match[2]] if match else LONGEST + 1
        if seconds > LONGEST:
            self.fail(f"{value!r} is no duration; write 30d, 12h, 90m or 45s", param, ctx)
        return seconds


EXECUTION_ID = _ExecutionId()
MOMENT = _Moment()
AGE = _Age()
