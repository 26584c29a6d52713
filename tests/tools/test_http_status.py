"""What Retry-After says, in both of its forms."""

from __future__ import annotations

from typing import Any

import pytest

from app.tools.web.status import retry_after
from tests.tools.server import running

#: Wed, 21 Oct 2015 07:28:00 GMT
NOW = 1_445_412_480.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Wed, 21 Oct 2015 07:29:00 GMT", 60.0),
        ("Wednesday, 21-Oct-15 07:29:00 GMT", 60.0),
        ("Wed, 21 Oct 2015 09:29:00 +0200", 60.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("1.5", None),
        ("-1", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("٣", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


def test_both_forms_reach_the_error(fail: Any) -> None:
    with running() as server:
        assert fail("http", {"url": f"{server.url}/status/429"}).details["retry_after"] == 7.0
        error = fail("http", {"url": f"{server.url}/later/90"})
    assert error.kind == "rate_limit"
    assert 80.0 < error.details["retry_after"] <= 90.0
