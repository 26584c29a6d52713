"""What a process gives back of its memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

#: Makes 100 MB of pieces that do not come from Python's own pools, keeps every thousandth, and
#: tells how many MB it holds before and after the rest was given back.
_PROGRAM = """
from app.allocator import give_back, share_arenas

def held():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024

share_arenas()
pieces = [bytes(2000) for _ in range(50_000)]
kept = pieces[::1000]
del pieces
before = held()
give_back()
print(before, held())
"""


#: Makes a cycle that grows old and dies, and waits until it is gone, which nothing it does brings about.
_CYCLE = """
import gc, threading, weakref
from app import processes

class Node:
    pass

processes.TRIM = 0.05
processes.keep_memory_flat()
node = Node()
node.itself = node
gone = threading.Event()
weakref.finalize(node, gone.set)
gc.collect(1)
del node
print(gone.wait(20))
"""


def test_what_has_grown_old_and_died_is_collected_by_the_clock() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CYCLE], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_is_free_between_pieces_in_use_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert before - after > 50, done.stdout
