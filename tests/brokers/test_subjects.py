from __future__ import annotations

import pytest

from app.brokers.subjects import MAX_TOKEN, Subjects, token

SUBJECTS = Subjects("callboard", frozenset({"orchestrate"}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("io", "io", id="plain names stay"),
        pytest.param("default.io", "default=2Eio", id="a dot would be a second token"),
        pytest.param("a*b>c d", "a=2Ab=3Ec=20d", id="wildcards and blanks are text"),
        pytest.param("ü", "=C3=BC", id="other letters by their bytes"),
        pytest.param("", "=", id="even nothing is a token"),
        pytest.param("a=2Eb", "a=3D2Eb", id="what looks encoded is encoded"),
    ],
)
def test_any_text_is_one_token(text: str, expected: str) -> None:
    assert token(text) == expected


def test_long_texts_are_hashed_and_stay_apart() -> None:
    one, other = token("x" * 5000), token("x" * 5000 + "y")
    assert one != other
    assert len(one) <= MAX_TOKEN
    assert one.startswith("==")


def test_names_of_a_queue_of_steps() -> None:
    assert SUBJECTS.stream("a.b") == "callboard_STEPS"
    assert SUBJECTS.target("a.b", "ignored") == "callboard.steps.a=2Eb.now"
    assert SUBJECTS.delayed("a.b", unique="7") == "callboard.steps.a=2Eb.at.7"
    assert SUBJECTS.waiting("a.b") == "callboard.steps.a=2Eb.now"
    assert SUBJECTS.everything("a.b") == "callboard.steps.a=2Eb.>"
    assert SUBJECTS.durable("a.b") == "a=2Eb"


def test_names_of_a_coalescing_queue() -> None:
    assert SUBJECTS.stream("orchestrate") == "callboard_WAKES"
    assert SUBJECTS.target("orchestrate", "12.3") == "callboard.wakes.orchestrate.now.12=2E3"
    assert SUBJECTS.delayed("orchestrate", "12.3", "7") == "callboard.wakes.orchestrate.at.12=2E3.7"
    assert SUBJECTS.delayed("orchestrate", "12") == "callboard.wakes.orchestrate.at.12."
    assert SUBJECTS.delayed("orchestrate") == "callboard.wakes.orchestrate.at."
    assert SUBJECTS.waiting("orchestrate") == "callboard.wakes.orchestrate.now.*"
