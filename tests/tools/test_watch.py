"""The thread that looks after calls."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

from app.tools.watch import Watcher


class Connection:
    """Something that can be stopped."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def interrupt(self) -> None:
        self._stopped.set()


def test_what_was_watched_is_let_go_while_the_thread_lives_on(context: Any) -> None:
    """A connection that outlives its program is reported as a leak when that ends."""
    watcher, stopped = Watcher(), threading.Event()
    connection = Connection(stopped)
    held = weakref.ref(connection)
    with watcher.watching(context, 0.0, connection.interrupt):
        assert stopped.wait(10)
    del connection
    (thread,) = (each for each in threading.enumerate() if each is watcher._thread)
    while held() is not None and thread.is_alive():
        gc.collect()
    assert held() is None
    assert thread.is_alive()
