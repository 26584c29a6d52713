"""What routes ask for: the use cases, the settings, ids in paths."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from app.services.control import Control
from app.settings import Settings
from app.telemetry.metrics import Metrics


async def _control(request: Request) -> Control:
    control: Control = request.app.state.control
    return control


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


# These are coroutines because a plain function would cost a thread each.
ControlDep = Annotated[Control, Depends(_control)]
SettingsDep = Annotated[Settings, Depends(_settings)]
MetricsDep = Annotated[Metrics, Depends(_metrics)]
ExecutionId = Annotated[int, Path(ge=1, lt=1 << 63)]
