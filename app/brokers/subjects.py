"""Names on the server: one place that turns queues and keys into streams, subjects and consumers."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

#: Longer tokens are replaced by their hash: a subject must fit on one protocol line of 4 KiB.
MAX_TOKEN = 100

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def token(text: str) -> str:
    """Turn any text into one subject token, which is also a legal consumer name; injective.

    Letters, digits, ``_`` and ``-`` stay; everything else becomes ``=XX…`` per UTF-8 byte.
    """
    safe = _UNSAFE.sub(lambda m: "".join(f"={byte:02X}" for byte in m[0].encode()), text) or "="
    if len(safe) <= MAX_TOKEN:
        return safe
    return "==" + hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


@dataclass(frozen=True, slots=True)
class Subjects:
    """The names of one broker. *coalescing* holds the queues on which a key has one message at most.

    ``<prefix>.steps.<queue>.now`` and ``<prefix>.wakes.<queue>.now.<key>`` are delivered at once;
    below ``.at.`` (``.at.<key>.``) wait the delayed ones, each under a subject of its own, because a
    second schedule on one subject would replace the first.
    """

    prefix: str
    coalescing: frozenset[str]

    @property
    def steps(self) -> str:
        """The stream in which every message is kept until it is acknowledged."""
        return f"{token(self.prefix)}_STEPS"

    @property
    def wakes(self) -> str:
        """The stream in which a newer message replaces the older one of the same key."""
        return f"{token(self.prefix)}_WAKES"

    @property
    def steps_root(self) -> str:
        return f"{token(self.prefix)}.steps"

    @property
    def wakes_root(self) -> str:
        return f"{token(self.prefix)}.wakes"

    def stream(self, queue: str) -> str:
        return self.wakes if queue in self.coalescing else self.steps

    def root(self, queue: str) -> str:
        base = self.wakes_root if queue in self.coalescing else self.steps_root
        return f"{base}.{token(queue)}"

    def target(self, queue: str, key: str) -> str:
        """Where a message is published to be delivered at once."""
        if queue in self.coalescing:
            return f"{self.root(queue)}.now.{token(key)}"
        return f"{self.root(queue)}.now"

    def delayed(self, queue: str, key: str | None = None, unique: str = "") -> str:
        """Where a delayed message waits; without *unique* what all of the key, or queue, begin with."""
        if queue in self.coalescing and key is not None:
            return f"{self.root(queue)}.at.{token(key)}.{unique}"
        return f"{self.root(queue)}.at.{unique}"

    def waiting(self, queue: str) -> str:
        """What the queue's consumer reads."""
        return f"{self.root(queue)}.now" + (".*" if queue in self.coalescing else "")

    def everything(self, queue: str) -> str:
        """All messages of the queue, the delayed ones included."""
        return f"{self.root(queue)}.>"

    def durable(self, queue: str) -> str:
        """The name of the queue's consumer."""
        return token(queue)
