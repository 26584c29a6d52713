"""Artifacts on their way from a worker to the control plane."""

from __future__ import annotations

from pydantic import Field

from app.wire.base import Wire
from app.wire.worker import PointerWire


class ArtifactRequest(PointerWire):
    """A worker wants to keep ``size`` bytes, whose sha256 is ``digest``, for the attempt it runs."""

    worker: str = Field(max_length=200)
    name: str = Field(min_length=1, max_length=200)
    content_type: str = Field(max_length=200)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class ArtifactAnswer(Wire):
    """Where they are. ``kept`` says whether they are there already, so that nobody need send them."""

    ref: str
    store: str
    kept: bool
