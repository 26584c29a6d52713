from __future__ import annotations

import pytest

from app.tools.statements import named_parameters, outline, split, takes_parameters


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        pytest.param("select 1", ["select 1"], id="one"),
        pytest.param("select 1; select 2;", ["select 1", "select 2"], id="two"),
        pytest.param(" ;; \n ; ", [], id="none"),
        pytest.param("-- only a comment\n/* and another */", [], id="comments only"),
        pytest.param("select ';'; select 2", ["select ';'", "select 2"], id="in quotes"),
        pytest.param("select 'it''s;'", ["select 'it''s;'"], id="doubled quotes"),
        pytest.param(r"select E'\';'; select 2", [r"select E'\';'", "select 2"], id="E''"),
        pytest.param(r"select '\'; select 2", [r"select '\'", "select 2"], id="plain backslash"),
        pytest.param('select ";"', ['select ";"'], id="in a name"),
        pytest.param('select """;"', ['select """;"'], id="a quote in a name"),
        pytest.param("select $$;$$; select 2", ["select $$;$$", "select 2"], id="dollars"),
        pytest.param("select $a$ $$;$$ ; $a$", ["select $a$ $$;$$ ; $a$"], id="tagged dollars"),
        pytest.param(
            "select a$b$; select c$b$", ["select a$b$", "select c$b$"], id="no dollar quote"
        ),
        pytest.param("select $1; select $2", ["select $1", "select $2"], id="placeholders"),
        pytest.param("select 1 -- ;\n; select 2", ["select 1 -- ;", "select 2"], id="a comment"),
        pytest.param("/* ; /* ; */ ; */ select 1", ["/* ; /* ; */ ; */ select 1"], id="nested"),
        pytest.param(
            "-- '\nselect 1; select 2", ["-- '\nselect 1", "select 2"], id="quote in comment"
        ),
        pytest.param(
            "select 'a--'; select 2", ["select 'a--'", "select 2"], id="comment in quotes"
        ),
        pytest.param("select 'open; select 2", ["select 'open; select 2"], id="unclosed"),
        pytest.param("select $$open; 2", ["select $$open; 2"], id="unclosed dollars"),
        pytest.param(
            "create function f() begin atomic select case when a then 1 end; select 2; end; select 3",
            [
                "create function f() begin atomic select case when a then 1 end; select 2; end",
                "select 3",
            ],
            id="a body in standard SQL",
        ),
        pytest.param("begin; select 1; end", ["begin", "select 1", "end"], id="a transaction"),
    ],
)
def test_split(sql: str, expected: list[str]) -> None:
    assert split(sql) == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select $1", True),
        ("select '$1'", False),
        ("select $$ $1 $$", False),
        ("-- $1\nselect 1", False),
        ("select '' || $2", True),
    ],
)
def test_takes_parameters(sql: str, expected: bool) -> None:
    assert takes_parameters(sql) is expected


@pytest.mark.parametrize(
    ("sql", "expected", "names"),
    [
        ("select :a, :b, :a", "select $1, $2, $1", ["a", "b"]),
        ("select ':a', x::a, :c -- :a", "select ':a', x::a, :c -- :a", []),
        ("select (x)[1:a], f(:a)", "select (x)[1:a], f($1)", ["a"]),
        ("select $$:a$$, E'\\':a', \":a\"", "select $$:a$$, E'\\':a', \":a\"", []),
    ],
)
def test_named_parameters(sql: str, expected: str, names: list[str]) -> None:
    assert named_parameters(sql, frozenset({"a", "b"})) == (expected, names)


def test_outline_has_code_alone() -> None:
    found = outline("select 'into' /* update */ as \"delete\", case when 1 end -- merge")
    assert found.split() == ["select", "as", ",", "case", "when", "1", "end"]
