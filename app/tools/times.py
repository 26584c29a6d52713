"""How long something may take, as playbooks write it: seconds, or text such as '30s'."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from app.engine.language.checks import duration

#: What ``duration`` reads, for editors.
PATTERN = r"^\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)?\s*$"

_Number = Annotated[float, Field(gt=0)]
_Text = Annotated[str, Field(pattern=PATTERN)]


def _seconds(value: Any) -> Any:
    """Seconds from text; anything else as it is. Raises for a text that is no time."""
    if not isinstance(value, str):
        return value
    found = duration(value)
    if found is None:
        raise PydanticCustomError("time", "a number of seconds, or text such as '30s' or '5m'")
    return found


Time = Annotated[
    float, Field(gt=0), BeforeValidator(_seconds, json_schema_input_type=_Number | _Text)
]
"""More than no seconds."""


def seconds(*candidates: float | None, most: float) -> float:
    """The first of *candidates* that is set, but not more than *most*."""
    chosen = next((value for value in candidates if value is not None), most)
    return min(chosen, most)
