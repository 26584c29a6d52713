"""What workers ask of the control plane, for those that live in its process: no HTTP between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from app.services.control import Control
from app.wire import (
    ArtifactAnswer,
    ArtifactRequest,
    Exchange,
    ExchangeAnswer,
    LogAnswer,
    LogBatch,
    SecretAnswer,
    SecretRequest,
    TokenAnswer,
    TokenPut,
    TokenPutAnswer,
    TokenRequest,
    ValueRequest,
)


@dataclass(frozen=True, slots=True)
class Desk:
    """The control plane as ``services.work.Worked``; ``client.Client`` is the same over HTTP."""

    control: Control

    def exchange(self, request: Exchange) -> ExchangeAnswer:
        return self.control.work.exchange(request)

    def value(self, request: ValueRequest) -> bytes:
        return self.control.work.value(request)

    def logs(self, batch: LogBatch) -> LogAnswer:
        return self.control.output.append(batch.chunks)

    def artifact(
        self, request: ArtifactRequest, pieces: Callable[[], Iterable[bytes]]
    ) -> ArtifactAnswer:
        answer = self.control.artifacts.offer(request)
        return answer if answer.kept else self.control.artifacts.put(request, pieces())

    def secret(self, request: SecretRequest) -> SecretAnswer:
        return self.control.credentials.hand_out(request)

    def take_token(self, request: TokenRequest) -> TokenAnswer:
        return self.control.tokens.take(request)

    def put_token(self, request: TokenPut) -> TokenPutAnswer:
        return self.control.tokens.put(request)
