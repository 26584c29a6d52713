"""Addresses of those who keep secrets: what may be asked, and what of it may be told."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from app.errors import ToolError


def host_of(url: str) -> str:
    """The host and port of *url*: all of it that may be told."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return "the URL"


def checked_url(url: Any) -> str:
    """*url*. Raises ``ToolError`` where it is not one of http or https."""
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        good = parts is not None and parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port if parts else None
    except ValueError:
        good = False
    if not good or not str(url).isascii() or any(char <= " " for char in str(url)):
        raise ToolError(
            "the URL of who hands out the secret is none: use https://HOST/PATH", kind="auth"
        )
    return str(url)
