"""One heartbeat per process: the lease of everything it works on."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from app import failpoints
from app.errors import CallboardError
from app.wire import Beat, BeatAnswer

log = structlog.get_logger(__name__)

#: Seconds until a heartbeat that did not arrive is tried again.
RETRY = 0.5


class Heartbeat:
    """Beats every *interval* seconds in a thread of its own until stopped."""

    def __init__(
        self,
        send: Callable[[Beat], BeatAnswer],
        beat: Callable[[], Beat],
        on_answer: Callable[[BeatAnswer], None],
        *,
        interval: float,
    ) -> None:
        self._send = send
        self._beat = beat
        self._on_answer = on_answer
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._failures = 0
        self._told = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._once()
            # At the start the server may come up a moment after us, and nobody knows us yet.
            pause = min(self._interval, RETRY) if self._failures else self._interval
            if self._stop.wait(pause):
                return

    def _once(self) -> None:
        try:
            failpoints.before("heartbeat.send")
            answer = self._send(self._beat())
            failpoints.after("heartbeat.send")
            self._on_answer(answer)
        # Its end would take the lease of a healthy process with it.
        except Exception as exc:  # noqa: BLE001 (told in the log)
            self._failed(exc)
        else:
            if self._told:
                log.info("heartbeat.recovered")
            self._failures, self._told = 0, False

    def _failed(self, exc: Exception) -> None:
        """Say so once, and not at the very first time: processes that start together miss each other."""
        self._failures += 1
        expected = isinstance(exc, CallboardError)
        if not expected or (self._failures * RETRY >= self._interval and not self._told):
            log.warning("heartbeat.failing", error=str(exc), exc_info=not expected)
            self._told = True
