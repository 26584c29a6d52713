"""A fork server that knows nothing: one byte in, one child, which answers with one byte.

Runs in a bare interpreter, so it imports the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
from pathlib import Path

NAME = "forks"


def main(folder: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(Path(folder) / NAME))
    listener.listen(64)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                selector.register(listener.accept()[0], selectors.EVENT_READ)
            else:
                assert isinstance(key.fileobj, socket.socket)
                _serve(key.fileobj, selector)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _serve(caller: socket.socket, selector: selectors.BaseSelector) -> None:
    if not caller.recv(1):
        selector.unregister(caller)
        caller.close()
    elif os.fork() == 0:
        caller.sendall(b"1")
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
