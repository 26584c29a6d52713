"""What can go wrong between us and NATS, as Dramatiq knows such errors."""

from __future__ import annotations

from dramatiq.errors import BrokerConnectionError, BrokerError


class MessageTooLargeError(BrokerError):
    """The encoded message is larger than a pointer can be; nothing was sent."""

    def __init__(self, actor: str, size: int, limit: int) -> None:
        message = (
            f"the message for actor {actor!r} has {size} bytes encoded, the limit is {limit}: "
            "send a reference to the data instead of the data"
        )
        super().__init__(message)  # type: ignore[no-untyped-call]  # dramatiq has no types here
        self.size = size
        self.limit = limit


class NotStoredError(BrokerConnectionError):
    """NATS did not confirm that it holds the message; it may or may not have arrived."""

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]  # dramatiq has no types here


class NatsUnreachableError(BrokerConnectionError):
    """NATS did not answer a question in time; ask again later."""

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]  # dramatiq has no types here


class UnusableServerError(BrokerError):
    """The server or one of its streams cannot serve this broker; the message says what to change."""

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]  # dramatiq has no types here
