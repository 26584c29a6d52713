"""Secrets in data: found by value in every form they usually take, and nothing else touched."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest

from app.engine.masking import MASK, Masker

SECRET = "s3cr3t \"Päss/w+rd=\\ &'s"


@pytest.fixture
def masker() -> Masker:
    masker = Masker()
    masker.add(SECRET)
    return masker


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": json.dumps,
    "JSON with letters kept": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON in JSON": lambda text: json.dumps(json.dumps({"key": text})),
    "a Python literal": repr,
    "part of a URL": lambda text: urllib.parse.quote(text, safe=""),
    "a path": urllib.parse.quote,
    "a form": lambda text: urllib.parse.urlencode({"password": text}),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 without padding": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    "hexadecimal": lambda text: text.encode().hex(),
    "a URL as it was written": lambda text: urllib.parse.quote(text, safe="/'&+=()\\"),
    "a URL in lower case": lambda text: re.sub(
        "%..", lambda found: found[0].lower(), urllib.parse.quote(text)
    ),
    "JSON of Go": lambda text: json.dumps(text, ensure_ascii=False).replace("&", "\\u0026"),
    "JSON of PHP": lambda text: json.dumps(text).replace("/", "\\/"),
    "HTML": html.escape,
    "HTML of templates": lambda text: (
        html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    ),
    "SQL": lambda text: text.replace("'", "''"),
    "a name in SQL": str.lower,
    "CSV": lambda text: text.replace('"', '""'),
    "a word of a shell": shlex.quote,
    "bytes of Python": lambda text: repr(text.encode()),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_secret_is_masked_in_every_form(masker: Masker, form: Callable[[str], str]) -> None:
    written = form(SECRET)
    masked = masker.text(f"before {written} after")
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert MASK in masked
    assert written.strip('"') not in masked


@pytest.mark.parametrize("after", ["", "x", "xy", "xyz"])
@pytest.mark.parametrize("before", ["", "u", "u:", "us:", "user:"])
def test_base64_is_masked_wherever_the_secret_stands_in_it(
    masker: Masker, before: str, after: str
) -> None:
    text = base64.b64encode(f"{before}{SECRET}{after}".encode()).decode()
    masked = masker.text(text)
    assert MASK in masked
    # What is left are the neighbours, and a character at either end that the secret shares with them.
    rest = len(masked.replace(MASK, "").rstrip("="))
    assert rest <= (len(before) + len(after)) * 4 / 3 + 4


@pytest.mark.parametrize(
    ("secret", "text", "masked"),
    [
        pytest.param("demo", "demo and demo_noetl", f"{MASK} and demo_noetl", id="short: a word"),
        pytest.param("1234", "x=1234,12345", f"x={MASK},12345", id="short: a number"),
        pytest.param("abc", "abc", "abc", id="too short"),
        pytest.param("longsecret", "xlongsecrety", f"x{MASK}y", id="long: anywhere"),
        pytest.param("", "anything", "anything", id="empty"),
    ],
)
def test_short_secrets_are_masked_as_words(secret: str, text: str, masked: str) -> None:
    masker = Masker()
    masker.add(secret)
    assert masker.text(text) == masked


def test_the_password_inside_a_url_is_a_secret_of_its_own() -> None:
    masker = Masker()
    masker.add("postgresql://user:p%40ssw0rd99@host/db")
    assert (
        masker.text("login failed for p@ssw0rd99 (p%40ssw0rd99)")
        == f"login failed for {MASK} ({MASK})"
    )
    assert masker.text("user at host") == "user at host"


def test_lines_of_a_key_are_secrets_and_its_frame_is_not() -> None:
    lines = "MIIEvQIBADANBgkqhkiG9w0B", "AQEFAASCBKcwggSjAgEAAoIB"
    key = "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""])
    masker = Masker()
    masker.add(key)
    assert masker.text("line MIIEvQIBADANBgkqhkiG9w0B") == f"line {MASK}"
    assert masker.text("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("data", "masked"),
    [
        ({"a": [SECRET, 1, None, True]}, {"a": [MASK, 1, None, True]}),
        ({SECRET: "x"}, {MASK: "x"}),
        ([{"deep": {"er": f"<{SECRET}>"}}], [{"deep": {"er": f"<{MASK}>"}}]),
        (SECRET, MASK),
    ],
)
def test_data_is_masked_at_any_depth(masker: Masker, data: Any, masked: Any) -> None:
    assert masker.data(data) == masked


def test_a_number_that_is_the_secret_is_masked() -> None:
    masker = Masker()
    masker.add("12345678")
    assert masker.data({"pin": 12345678, "n": 7}) == {"pin": MASK, "n": 7}


def test_data_without_secrets_is_the_same_object(masker: Masker) -> None:
    data = {"a": [1, "text", {"b": None}], "c": 1.5}
    assert masker.data(data) is data


def test_secrets_that_come_one_by_one_are_all_masked() -> None:
    masker = Masker()
    for number in range(3):
        masker.add(f"secret-number-{number}", f"pin{number}")
    written = " ".join(f"secret-number-{number} pin{number}" for number in range(3))
    assert masker.text(written) == " ".join([MASK] * 6)


def test_a_masker_without_secrets_looks_at_nothing() -> None:
    data = {"a": "x"}
    assert not Masker()
    assert Masker().data(data) is data
    assert Masker().text("x") == "x"
