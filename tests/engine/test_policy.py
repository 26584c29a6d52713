"""How long a retry waits: the rule's own delay, and what the other side asks for."""

from __future__ import annotations

from typing import Any

import pytest

from app.engine.playbook import Rule
from app.engine.policy import delay


@pytest.mark.parametrize(
    ("own", "asked", "seconds"),
    [
        pytest.param(Rule(None, "retry"), None, 0.0, id="nobody asks"),
        pytest.param(Rule(None, "retry"), 7.0, 7.0, id="a rule without a delay waits as asked"),
        pytest.param(Rule(None, "retry", delay=2.0), 7, 7.0, id="a smaller delay gives way"),
        pytest.param(Rule(None, "retry", delay=9.0), 7.0, 9.0, id="a larger delay stays"),
        pytest.param(
            Rule(None, "retry", delay=1.0, backoff="exponential", max_delay=4.0), 7.0, 7.0,
            id="the most of the rule is for its own delays",
        ),
        pytest.param(Rule(None, "retry"), 86_400.0, 3600.0, id="an hour at most"),
        pytest.param(Rule(None, "retry", delay=7200.0), 86_400.0, 7200.0, id="unless the rule says"),
        pytest.param(Rule(None, "retry", delay=2.0), "7", 2.0, id="text asks for nothing"),
        pytest.param(Rule(None, "retry"), True, 0.0, id="nor does a flag"),
        pytest.param(Rule(None, "retry", delay=2.0), -5, 2.0, id="nor what is past"),
        pytest.param(Rule(None, "retry"), float("nan"), 0.0, id="nor what is no number"),
    ],
)  # fmt: skip
def test_a_retry_waits_as_long_as_the_other_side_asks(
    own: Rule, asked: Any, seconds: float
) -> None:
    assert delay(own, 3, asked=asked) == seconds


def test_jitter_does_not_cut_what_was_asked_for() -> None:
    rule = Rule(None, "retry", delay=8.0, jitter=True)
    assert delay(rule, 1, 0.25, asked=5.0) == 5.0
    assert delay(rule, 1, 0.75, asked=5.0) == 6.0
