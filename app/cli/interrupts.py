"""Ctrl-C arrives, whatever it meets."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def insisting(every: float = 1.0) -> Iterator[None]:
    """Once Ctrl-C has come inside, raise ``KeyboardInterrupt`` each *every* seconds until we are out.

    The first one can be lost: Python drops what meets a finalizer, and a lock that it meets on the way
    into its ``with`` stays locked, for whoever tidies up to wait for (``queue.Queue`` has one, which
    holds the connections of urllib3). What is done inside has
    to bear a second one as it tidies up. Where somebody else listens to Ctrl-C, nothing is changed.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    other = signal.getsignal(signal.SIGALRM)
    has_come = is_over = False

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        nonlocal has_come
        if is_over:
            return
        has_come = True
        signal.signal(signal.SIGALRM, interrupted)
        signal.setitimer(signal.ITIMER_REAL, every)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        # First: what comes between here and the end must not leave anything behind.
        is_over = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if has_come:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, other)
