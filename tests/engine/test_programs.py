"""Templates inside programs: what is filled in, and that it stays data."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from app.engine.programs import filled, needs_of_program
from app.engine.templates.scope import Scope

SCOPE = Scope(
    workload={"n": 3, "who": 'Ann "A"', "rows": [{"a": True}, None], "evil": "'; x = 1; '\\\n"},
    results={"fetch": {"id": 7}},
    local={"execution_id": "12"},
)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("x = {{ workload.n }}", 3, id="a number"),
        pytest.param("x = {{ n + 1 }}", 4, id="an expression"),
        pytest.param("x = {{ workload.who }}", 'Ann "A"', id="text becomes a literal"),
        pytest.param("x = {{ rows | tojson }}", [{"a": True}, None], id="JSON becomes data"),
        pytest.param("x = {{ fetch.id }}", 7, id="a result"),
        pytest.param('x = "{{ workload.n }}"', "3", id="in a text"),
        pytest.param('x = "hi {{ workload.who }}!"', 'hi Ann "A"!', id="quotes are escaped"),
        pytest.param("x = '''{{ workload['who'] }}'''", 'Ann "A"', id="in a long text"),
        pytest.param("x = '{{ execution_id }}'", "12", id="a bare word everybody means"),
        pytest.param("x = '{{ workload.evil }}'", "'; x = 1; '\\\n", id="data never is code"),
        pytest.param("x = {{ workload.evil }}", "'; x = 1; '\\\n", id="nor outside a text"),
    ],
)
def test_a_value_lands_as_a_literal(code: str, expected: Any) -> None:
    tree = ast.parse(filled(code, SCOPE))
    assert len(tree.body) == 1
    assert isinstance(tree.body[0], ast.Assign)
    assert ast.literal_eval(tree.body[0].value) == expected


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("x = 1  # {{ workload.n }}", id="a comment"),
        pytest.param('x = f"{{ workload.n }} {y}"', id="a formatted text"),
        pytest.param('x = f"{{{n}}}"', id="braces around a field"),
        pytest.param("x = r'{{ workload.n }}'", id="a text with a prefix"),
        pytest.param("x = '{{ n }} {}'.format(1)", id="a bare word in a text"),
        pytest.param("x = '{{ workload.gone }} {{ gone.x }}'", id="a name that is not there"),
        pytest.param("x = '{{ workload.n / 0 }}'", id="what cannot be rendered"),
        pytest.param("x = '{{ workload.n + }}'", id="what is no template"),
        pytest.param("x = '{% if workload.n %}'", id="a statement"),
        pytest.param("x = '{{ workload.n }}", id="what is no program"),
        pytest.param("x = {'a': {'b': {}}}", id="no template at all"),
    ],
)
def test_it_is_left_alone(code: str) -> None:
    assert filled(code, SCOPE) == code


def test_lines_stay_where_they_are() -> None:
    code = "a = '{{ workload.evil }}'\nb = {{ rows }}\n\nraise ValueError\n"
    assert filled(code, SCOPE).count("\n") == code.count("\n")


def test_it_needs_what_it_would_fill_in() -> None:
    needs = needs_of_program("a = {{ fetch.id }}\nb = '{{ workload.n }}'  # {{ ctx.gone }}\n")
    assert (needs.names, needs.workload, needs.everything) == (
        frozenset({"fetch"}),
        frozenset({"n"}),
        False,
    )
