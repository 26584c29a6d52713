"""``noop``: does nothing, and says so; a place for ``set``, policies and arcs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from app.tools import Context, Tool


class Input(BaseModel):
    """``result`` is returned as it is; else ``message`` (default: the step's name) is."""

    result: Any = Field(None, description="What the step gives.")
    message: Any = Field(None, description="What it says instead.")


def run(request: Input, context: Context) -> Any:
    """The given ``result``, or ``{status: ok, message}``."""
    if "result" in request.model_fields_set:
        return request.result
    message = context.step if request.message is None else request.message
    return {"status": "ok", "message": message}


tool = Tool("noop", input=Input, run=run, queue="io")
