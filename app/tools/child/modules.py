"""Which standard modules a child finds already loaded.

A fork costs the more the more there is in memory, an import costs the more the more it pulls in. So
there are two fork servers: a light one, and one with the expensive modules, which is started when a
program first mentions one of them.
"""

from __future__ import annotations

import re
from functools import lru_cache

LIGHT = (
    "ast",
    "base64",
    "bisect",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "inspect",
    "io",
    "itertools",
    "json",
    "math",
    "operator",
    "os",
    "pathlib",
    "random",
    "re",
    "string",
    "struct",
    "textwrap",
    "threading",
    "time",
    "traceback",
    "types",
    "typing",
    "uuid",
)
FULL = (
    *LIGHT,
    *[
        "argparse",
        "asyncio",
        "concurrent.futures",
        "csv",
        "email.message",
        "fractions",
        "glob",
        "gzip",
        "hmac",
        "html",
        "http.client",
        "logging",
        "pickle",
        "queue",
        "secrets",
        "shutil",
        "statistics",
        "subprocess",
        "tempfile",
        "urllib.error",
        "urllib.parse",
        "urllib.request",
        "zoneinfo",
    ],
)

# async means asyncio; requests and httpx stand for all that comes with talking HTTP.
_EXPENSIVE = re.compile(
    r"\b(async|requests|httpx2?|urllib3?|aiohttp|psycopg2?|pandas|numpy|"
    + "|".join(sorted({name.partition(".")[0] for name in FULL[len(LIGHT) :]}))
    + r")\b"
)


@lru_cache(maxsize=256)
def preloaded_for(program: str) -> tuple[str, ...]:
    """The modules that should be loaded before *program* runs."""
    return FULL if _EXPENSIVE.search(program) else LIGHT
