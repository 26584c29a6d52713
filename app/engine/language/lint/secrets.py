"""Secrets that stand in the text. Their values are never repeated."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from app.engine.language.lint import places
from app.engine.language.source import Path, Source, texts
from app.engine.templates.template import has_template
from app.errors import Finding

_HINT = "Store it as a credential and use 'auth', or read it from 'keychain'."
#: What a secret of a known kind looks like, wherever it stands, and a part that each of them has
#: (asked first, because it is fast). Whatever repeats is bounded: a text may be made to be slow.
_LOOKS: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("an AWS access key", "IA", re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a private key", "PRIVATE KEY", re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----")),
    ("a GitHub token", "gh", re.compile(r"\bgh[pousr]_[A-Za-z0-9]{30}")),
    ("a Slack token", "xox", re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10}")),
    ("a Google API key", "AIza", re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b")),
    ("an API key", "sk-", re.compile(r"\bsk-[A-Za-z0-9_-]{20}")),
    ("a signed token", ".eyJ", re.compile(r"\beyJ[\w-]{10,200}\.eyJ[\w-]{10,2000}\.[\w-]{10}")),
    (
        "a bearer token",
        "earer ",
        re.compile(r"\b[Bb]earer (?=[^\s{}'\"]{0,99}\d)[A-Za-z0-9._~+/=-]{16}"),
    ),
    ("a password in a URL", "://", re.compile(r"\w://[^\s/:@{}]{1,99}:[^\s/:@{}]{1,99}@\w")),
    (
        "a password",
        "=",
        re.compile(r"\b(?i:password|passwd|pwd)=(?!['\"]?[{$%<*])['\"]?[^\s'\";&]{4}"),
    ),
)
#: Characters of one text that are looked at.
_LONGEST = 65_536
_PASSWORD = re.compile(r"(^|_)(password|passwd|pwd|passphrase)$", re.IGNORECASE)
_SECRET = re.compile(
    r"(^|_)(token|secret|api_?key|apikey|access_key|secret_key|private_key|credential_value)$",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"^(<.*>|\*+|x{3,}|\.{3}|…|\$\{?\w+\}?|null|none|todo)$", re.IGNORECASE)
#: Keys below which a value is the name of a field and no secret.
_NAMES = frozenset({"map", "mapping", "output_select", "select"})
#: Bits per character from which on a text reads like made by a machine.
_ENTROPY = 3.2


def secrets(source: Source) -> Iterator[Finding]:
    """Literals that look like secrets, by their form or by the key they stand under."""
    for path, text in texts(source.data):
        what = looks_like(path, text)
        if what:
            message = f"this looks like {what}, for all to read who can read the playbook."
            yield places.finding(source, path, "secret-literal", message, _HINT)


def looks_like(path: Path, text: str) -> str | None:
    """What kind of secret *text* looks like, or None."""
    text = text[:_LONGEST]
    for what, part, pattern in _LOOKS:
        if part in text and pattern.search(text):
            return what
    key = str(path[-1]) if path else ""
    if has_template(text) or _PLACEHOLDER.match(text.strip()) or _NAMES & set(map(str, path[:-1])):
        return None
    if _PASSWORD.search(key) and text.strip():
        return "a password"
    if _SECRET.search(key) and _is_random(text.strip()):
        return f"the value of a {key.lower().replace('_', ' ')}"
    return None


def _is_random(text: str) -> bool:
    if not 12 <= len(text) <= 4096 or any(mark.isspace() or mark in "/:" for mark in text):
        return False
    counts = Counter(text)
    bits = -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())
    mixed = any(mark.isdigit() for mark in text) and any(mark.isalpha() for mark in text)
    return mixed and bits >= _ENTROPY
