"""``output`` of a step whose result is kept elsewhere."""

from __future__ import annotations

from typing import Any

from app.engine.references import Place, opened, output_over, reference
from app.engine.templates.scope import Scope
from app.engine.templates.template import compile_text


def value(text: str, result: dict[str, Any]) -> tuple[Any, int]:
    """What *text* gives where *result* is kept elsewhere, and how often it was fetched."""
    fetched: list[Any] = []

    def load(asked: Any) -> Any:
        fetched.append(asked)
        return result

    kept = opened(reference(Place(7, "get/1"), "kv", 99_999, result), load)
    given = compile_text(text).value(Scope(local={"output": output_over(kept)}))
    return given, len(fetched)


def test_a_large_answer_has_its_http() -> None:
    answer = {"status_code": 201, "headers": {"a": "b"}, "data": "x" * 99_999}
    assert value("{{ [output.http.status, output.http.headers.a] }}", answer) == ([201, "b"], 1)


def test_what_is_no_answer_has_none_and_is_not_fetched_to_know() -> None:
    text = "{{ [output.http is defined, output.http.status | default(0)] }}"
    assert value(text, {"rows": "x" * 99_999}) == ([False, 0], 0)
