"""What names an execution, and a moment, on the command line; checked before anybody is asked."""

from __future__ import annotations

from datetime import UTC, datetime

import click

LARGEST = 1 << 63


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


EXECUTION_ID = _ExecutionId()
MOMENT = _Moment()
