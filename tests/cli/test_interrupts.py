"""Ctrl-C that comes at a bad time."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from app.cli.interrupts import insisting

LOST = """
class Finalizer:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
Finalizer()
time.sleep(600)
"""
DEADLOCK = """
lock = threading.Lock()
try:
    lock.acquire()
    signal.raise_signal(signal.SIGINT)
finally:
    lock.acquire()
"""


def _outcome(code: str) -> subprocess.CompletedProcess[str]:
    script = (
        "import signal, threading, time\nfrom app.cli.interrupts import insisting\n"
        f"try:\n  with insisting(0.05):\n    exec({code!r})\n"
        "except KeyboardInterrupt:\n  print('out', signal.getitimer(signal.ITIMER_REAL)[0],"
        " signal.getsignal(signal.SIGINT) is signal.default_int_handler,"
        " signal.getsignal(signal.SIGALRM) is signal.SIG_DFL)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("code", [LOST, DEADLOCK], ids=["finalizer", "deadlock"])
def test_it_comes_again_until_we_are_out(code: str) -> None:
    assert _outcome(code).stdout == "out 0.0 True True\n"


def test_who_listens_already_is_left_alone() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: heard.append(number))
    try:
        with insisting(0.01):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]
