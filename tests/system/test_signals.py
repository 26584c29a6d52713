"""A process that is told to stop does, whichever of its threads the system told."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import signal, threading
from app.processes import Stop

stop = Stop().listen()
idle = threading.Thread(target=threading.Event().wait, daemon=True)
idle.start()
threading.Timer(0.3, signal.pthread_kill, (idle.ident, signal.{number})).start()
print("waiting", flush=True)
stop.wait()
print("stopped", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are not sent to threads there")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_that_another_thread_got_stops_the_process(number: str) -> None:
    program = PROGRAM.format(number=number)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (0, "waiting\nstopped\n"), done.stderr
