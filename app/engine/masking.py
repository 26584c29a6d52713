"""Takes secrets out of data by value: as they are, and as they look in base64, URLs, JSON, HTML, SQL
and shells.

A value of eight characters or more is masked wherever it stands, a shorter one where no letter,
digit or underscore touches it, and one of less than four not at all: it would be found everywhere.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

MASK = "***"
#: Shorter values are not masked.
SHORTEST = 4
#: Shorter values are masked as whole words only.
ANYWHERE = 8
_BASE64 = (base64.b64encode, base64.urlsafe_b64encode)
#: Characters of a line of base64, as programs break it: those of PEM, and those of MIME.
_LINES = (64, 76)
#: Shorter ends of such lines would be found elsewhere.
_LINE = 16
#: Signs that could end a script in HTML, as Go writes them in JSON.
_GO = {ord(sign): f"\\u{ord(sign):04x}" for sign in "&<>"}
#: What no encoder of URLs changes.
_UNRESERVED = re.compile(r"[\w.~-]*", re.ASCII)


class Masker:
    """The secrets that one attempt, or one process, has been given. Grows; never forgets."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._forms: tuple[str, ...] = ()
        self._in_urls: re.Pattern[str] | None = None
        self._words: re.Pattern[str] | None = None

    def __contains__(self, value: object) -> bool:
        return value in self._values

    def __bool__(self) -> bool:
        return bool(self._forms or self._words)

    @property
    def longest(self) -> int:
        """Characters of the longest form; what is masked piecemeal must overlap by as much."""
        return max(map(len, self._forms), default=ANYWHERE)

    def add(self, *values: str) -> None:
        """Mask these from now on."""
        new = {part for value in values for part in _parts(value)} - self._values
        if not new:
            return
        self._values |= new
        forms = {form for value in new if len(value) >= ANYWHERE for form in _forms(value)}
        # The longest first: one may be a part of another.
        self._forms = tuple(sorted(forms.union(self._forms), key=len, reverse=True))
        quoted = sorted((v for v in self._values if _is_quoted(v)), key=len, reverse=True)
        if quoted:
            self._in_urls = re.compile("|".join(map(_in_url, quoted)))
        words = sorted((v for v in self._values if len(v) < ANYWHERE), key=len, reverse=True)
        if words:
            self._words = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)")

    def text(self, text: str) -> str:
        """*text* with every secret masked; the same object where there is none."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        if self._in_urls is not None and "%" in text:
            text = self._in_urls.sub(MASK, text)
        return self._words.sub(MASK, text) if self._words else text

    def data(self, value: Any) -> Any:
        """JSON data with every text and key in it masked; the same object where nothing changes."""
        if not self:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            masked = {self.data(key): self.data(item) for key, item in value.items()}
            same = all(
                key is old and item is value[old]
                for (key, item), old in zip(masked.items(), value, strict=False)
            )
            return value if same and len(masked) == len(value) else masked
        if isinstance(value, list | tuple):
            items = [self.data(item) for item in value]
            return value if all(map(_is, items, value)) else items
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        text = str(value)
        return value if self.text(text) == text else MASK


def _is(one: object, other: object) -> bool:
    return one is other


def _parts(value: str) -> Iterator[str]:
    """*value* itself, its lines (a key in PEM form has many), and the password of a URL."""
    if len(value.strip()) < SHORTEST:
        return
    yield value
    yield value.strip()
    if "\n" in value:
        # What frames a key is the same for all keys.
        lines = (line.strip() for line in value.splitlines())
        yield from (line for line in lines if len(line) >= 16 and not line.startswith("-----"))
    if "://" in value:
        try:
            password = urlsplit(value).password
        except ValueError:
            return
        if password and len(password) >= SHORTEST:
            yield from (password, unquote(password))


@lru_cache(maxsize=256)
def _forms(value: str) -> frozenset[str]:
    """Every form of *value*; kept, because each step that uses a credential is told it anew."""
    return frozenset(_written(value))


def _written(value: str) -> Iterator[str]:
    yield value
    # SQL folds names that are not quoted.
    yield from (value.lower(), value.upper())
    yield quote(value, safe="")
    yield quote(value)
    yield quote_plus(value)
    for ascii_only in (True, False):
        in_json = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield in_json
        yield json.dumps(in_json)[1:-1]  # JSON in JSON, as an error quotes a request
        yield in_json.replace("/", "\\/")  # as PHP writes it
        for apostrophe in ("'", "\\u0027"):
            yield in_json.translate({**_GO, ord("'"): apostrophe})  # as Go does, and templates
    yield repr(value)[1:-1]
    yield from (html.escape(value), html.escape(value, quote=False))
    yield html.escape(value).replace("&#x27;", "&#39;")
    yield html.escape(value).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    # As SQL, CSV and shells write quotes.
    for mark, written in (("'", "''"), ('"', '""'), ("'", "'\\''"), ("'", "'\"'\"'")):
        yield value.replace(mark, written)
    raw = value.encode("utf-8", "surrogatepass")
    yield repr(raw)[2:-1]
    yield raw.hex()
    yield raw.hex().upper()
    for encode in _BASE64:
        yield encode(raw).decode().rstrip("=")
        yield from _lines_of(encode(raw).decode().rstrip("="))
        yield from _inside_base64(raw, encode)


def _is_quoted(value: str) -> bool:
    """Whether encoders of URLs do not all write it alike."""
    return len(value) >= ANYWHERE and not _UNRESERVED.fullmatch(value)


@lru_cache(maxsize=256)
def _in_url(value: str) -> str:
    """A pattern for what a URL may make of it: each sign as it is, or in percents of either case."""
    return "".join(map(_sign_in_url, value))


def _sign_in_url(sign: str) -> str:
    if _UNRESERVED.fullmatch(sign):
        return re.escape(sign)
    raw = sign.encode("utf-8", "surrogatepass")
    percents = "".join(f"%{byte:02x}" for byte in raw)
    space = r"|\+" if sign == " " else ""
    return f"(?:{re.escape(sign)}|(?i:{percents}){space})"


def _lines_of(text: str) -> Iterator[str]:
    """The lines of *text*, broken as usual. What follows the secret changes the end of the last."""
    for width in _LINES if len(text) > min(_LINES) else ():
        lines = [text[at : at + width] for at in range(0, len(text), width)]
        yield from (line for line in (*lines[:-1], lines[-1][:-2]) if len(line) >= _LINE)


def _inside_base64(raw: bytes, encode: Any) -> Iterator[str]:
    """What *raw* looks like in the middle of something longer, at each of the three alignments."""
    for before in range(3):
        text = encode(b"\0" * before + raw).decode().rstrip("=")
        # The characters at either end also hold bits of the neighbours.
        start = (0, 2, 3)[before]
        end = len(text) - (1 if (before + len(raw)) % 3 else 0)
        if end - start >= ANYWHERE:
            yield text[start:end]
