"""What all models that cross HTTP share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

Id = Annotated[str, BeforeValidator(str)]


class Wire(BaseModel):
    """Base of all of them: unknown keys are ignored, so that older and newer sides understand each other."""

    # Built on first use: a run without servers never needs most of them.
    model_config = ConfigDict(extra="ignore", populate_by_name=True, defer_build=True)
