"""Templates: which value a text gives, what it may not do, and which names it needs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pytest

from app.engine.templates.analysis import Needs
from app.engine.templates.budget import MAX_OUTPUT, Meter
from app.engine.templates.sandbox import Result, plain
from app.engine.templates.scope import Scope, output_of
from app.engine.templates.template import (
    PassThrough,
    _Known,
    compile_condition,
    compile_text,
    holds,
    needs_of,
    render,
    truthy,
)
from app.errors import TemplateError

SCOPE = Scope(
    workload={"n": 1, "word": "text", "list": [1, 2], "shop": {"items": 5, "keys": "k"}, "c": "w"},
    results={"fetch": {"rows": [7], "n": 2}, "own": {"data": "mine"}, "bare": [1]},
    ctx={"c": "ctx"},
    local={"item": "local", "now_at": 1_700_000_000.25, "output": output_of({"rows": []})},
)


def value(text: str, scope: Mapping[str, Any] = SCOPE) -> Any:
    return compile_text(text).value(scope)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # One expression gives its value.
        pytest.param("{{ n }}", 1, id="a number stays a number"),
        pytest.param("  {{ list }}\n", [1, 2], id="a list stays a list, whatever surrounds it"),
        pytest.param("{{ '12' }}", "12", id="text that looks like a number stays text"),
        pytest.param("{{ true }}", True, id="true is true"),
        pytest.param("{{ none }}", None, id="none is null"),
        pytest.param("{{ n == 1 and word }}", "text", id="an expression with operators"),
        pytest.param("{{ list | map('string') }}", ["1", "2"], id="a generator becomes a list"),
        pytest.param("{{ shop | items }}", [["items", 5], ["keys", "k"]], id="pairs become lists"),
        pytest.param("{{ range(3) }}", [0, 1, 2], id="range is there"),
        pytest.param("{{ dict(a=n) }}", {"a": 1}, id="dict is there"),
        # Anything else gives text.
        pytest.param("n={{ n }}", "n=1", id="text around makes text"),
        pytest.param("{{ n }}{{ n }}", "11", id="two expressions make text"),
        pytest.param("no template", "no template", id="no template is itself"),
        pytest.param(
            "rows: {{ shop }}", 'rows: {"items": 5, "keys": "k"}', id="data in text: JSON"
        ),
        pytest.param(
            "{% for x in list %}{{ loop.index }}/{{ loop.length }};{% endfor %}", "1/2;2/2;"
        ),
        pytest.param("{% for x in gone %}x{% else %}none{% endfor %}", "none", id="an empty loop"),
        # Text shaped like JSON is read back.
        pytest.param('{"k": {{ list }}}', {"k": [1, 2]}, id="text shaped like an object is one"),
        pytest.param("[{{ n }}, {{ n }}]", [1, 1], id="text shaped like a list is one"),
        pytest.param("{ {{ word }} }", "{ text }", id="braces around a word stay text"),
        pytest.param("{'a': {{ n }}}", "{'a': 1}", id="what is no JSON stays text"),
        # Undefined.
        pytest.param("{{ gone }}", None, id="undefined is null"),
        pytest.param("{{ gone.a.b['c'].d }}", None, id="undefined chains"),
        pytest.param("{{ gone.a | default(3) }}", 3, id="undefined takes its default"),
        pytest.param("a{{ gone.x }}b", "ab", id="undefined is nothing in text"),
        pytest.param("{{ (gone.x | int) + 1 }}", 1, id="undefined as a whole number is 0"),
        pytest.param("{{ [gone | float, gone | int(7)] }}", [0.0, 7], id="or what is said instead"),
        # Below workload.
        pytest.param("{{ workload.c }}", "w", id="the workload's own wins"),
        pytest.param("{{ workload.fetch.n }}", 2, id="what it lacks is looked for elsewhere"),
        pytest.param("{{ workload.gone is defined }}", False, id="and may be nowhere"),
        pytest.param("{{ workload | list }}", ["n", "word", "list", "shop", "c"], id="its keys"),
        pytest.param("{{ [gone, {'a': gone}] }}", [None, {"a": None}], id="undefined in data"),
        pytest.param("{{ fetch._ref is defined }}", False, id="asking whether it is defined"),
        pytest.param("{{ list.items }}", None, id="a list has no items"),
        # Keys before methods.
        pytest.param("{{ shop.items }}", 5, id="items is a key"),
        pytest.param("{{ shop['keys'] }}", "k", id="keys is a key"),
        pytest.param("{{ fetch.items() }}", [["rows", [7]], ["n", 2]], id="else the method"),
        pytest.param("{{ word.upper() }}", "TEXT", id="methods of text"),
        # Layers and results.
        pytest.param("{{ item }}", "local", id="local names"),
        pytest.param("{{ c }}", "ctx", id="ctx wins over workload"),
        pytest.param("{{ workload.c }}", "w", id="workload alone"),
        pytest.param("{{ ctx.n }}", 1, id="ctx finds workload too"),
        pytest.param("{{ ctx.fetch.rows }}", [7], id="ctx finds results too"),
        pytest.param("{{ ctx.item }}", None, id="ctx does not find local names"),
        pytest.param("{{ steps.fetch.data.n }}", 2, id="steps finds results"),
        pytest.param("{{ steps.n }}", None, id="steps finds nothing else"),
        pytest.param("{{ fetch.data.result.results.context.n }}", 2, id="aliases mean itself"),
        pytest.param("{{ fetch['data'].n }}", 2, id="aliases in brackets"),
        pytest.param("{{ own.data }}", "mine", id="an own key wins over an alias"),
        pytest.param("{{ bare[0] }}", 1, id="a result that is no mapping"),
        # Filters.
        pytest.param("{{ word | b64encode | b64decode }}", "text", id="base64 there and back"),
        pytest.param("{{ '[1]' | fromjson }}", [1], id="fromjson"),
        pytest.param("{{ fetch | keys }}", ["rows", "n"], id="keys"),
        pytest.param("{{ shop | get('gone', 9) }}", 9, id="get with a default"),
        pytest.param("{{ 'a,b' | split(',') | join('-') }}", "a-b", id="split and join"),
        pytest.param("{{ [{'a': 1}, {'a': 2}] | join('+', attribute='a') }}", "1+2"),
        pytest.param("{{ '%05.2f' | format(1.5) }}", "01.50", id="format"),
        pytest.param("{{ '{:>3}'.format(n) }}", "  1", id="the method format"),
        pytest.param("{{ 'aXbX' | replace('X', '1', 1) }}", "a1bX", id="replace"),
        pytest.param("{{ 'a' ~ n ~ list }}", "a1[1, 2]", id="the operator ~"),
        pytest.param("{{ 2.6 | round | int }}", 3, id="round"),
        pytest.param("{{ '7' | int + '1.5' | float }}", 8.5, id="int and float of text"),
        pytest.param("{{ ' A ' | trim | lower }}{{ 'b' | upper }}", "aB", id="trim, lower, upper"),
        pytest.param("{{ list | first + list | last }}", 3, id="first and last"),
        pytest.param("{{ list | length + word | len }}", 6, id="length and len"),
        pytest.param("{{ shop | values }}", [5, "k"], id="values"),
        pytest.param("{{ word | safe }}", "text", id="safe changes nothing"),
        pytest.param("{{ '<b>' | e }}", "&lt;b&gt;", id="escaped text is text"),
        pytest.param("{{ list | tojson }}", "[1, 2]", id="tojson alone stays text"),
        pytest.param("{{ gone.a.b | d(0) }}", 0, id="d"),
        pytest.param("{{ output.response.x }}", None, id="a name that never was"),
        pytest.param("{{ word[1:3] }}", "ex", id="part of a text"),
        pytest.param("{{ gone[1:3] }}", None, id="part of nothing"),
        pytest.param("{{ 1 in list and 3 not in list }}", True, id="in"),
        pytest.param("{{ 1 < n + 1 <= 2 }}", True, id="comparisons in a chain"),
        pytest.param("{{ list is sequence and n is eq 1 }}", True, id="tests"),
        pytest.param("{{ '%(a)s-%(b)03d' % {'a': word, 'b': 7} }}", "text-007", id="percent"),
        pytest.param("{{ '{a}/{0[0]}'.format(list, a=n) }}", "1/1", id="format by name"),
        pytest.param("x{{ list | map('string') }}", 'x["1", "2"]', id="a generator in text"),
        pytest.param(
            "{% for k, v in shop | items if v == 5 recursive %}{{ k }}{{ loop.index }}{% endfor %}",
            "items1",
            id="a loop with everything",
        ),
        # The time that the scope tells.
        pytest.param("{{ now() }}", "2023-11-14T22:13:20.250000+00:00", id="now"),
        pytest.param("at {{ now() }}", "at 2023-11-14T22:13:20.250000+00:00", id="now in text"),
        pytest.param("{{ utcnow().isoformat() }}", "2023-11-14T22:13:20.250000+00:00"),
        pytest.param("{{ now().strftime('%Y-%m-%d') }}", "2023-11-14", id="now as a date"),
        pytest.param("{{ '{:%H:%M}'.format(now()) }}", "22:13", id="now in a format"),
        pytest.param("{{ now().timestamp() | int }}", 1_700_000_000, id="now as a number"),
        pytest.param("{{ now() - now().replace(hour=21) }}", 3600.0, id="a span is in seconds"),
        pytest.param("{{ {'at': now()} | tojson }}", '{"at": "2023-11-14T22:13:20.250000+00:00"}'),
    ],
)
def test_the_value_of_a_text(text: str, expected: Any) -> None:
    found = value(text)
    assert found == expected
    assert type(found) in {type(expected), Result}
    assert orjson.loads(orjson.dumps(found)) == expected, "it is JSON data"


@pytest.mark.parametrize("name", ["ctx", "workload", "steps", "fetch"])
def test_a_whole_layer_is_plain_data(name: str) -> None:
    assert "n" in str(orjson.loads(orjson.dumps(value(f"{{{{ {name} }}}}"))))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("{{ word }}", "text", id="text is itself"),
        pytest.param("{{ list }}", "[1, 2]", id="a list is JSON"),
        pytest.param("{{ gone }}", "", id="undefined is nothing"),
        pytest.param("[{{ n }}]", "[1]", id="and is not read back"),
        pytest.param("-- all\nselect '{{ word }}'; -- done\n", "-- all\nselect 'text'; -- done"),
        pytest.param(
            """insert '{{ {"q": "it's <b> & co"} | tojson }}'""",
            r"""insert '{"q": "it\u0027s \u003cb\u003e \u0026 co"}'""",
            id="tojson never ends an SQL literal",
        ),
        pytest.param("{{ gone | tojson }}", "null", id="tojson of undefined"),
    ],
)
def test_the_text_of_a_text(text: str, expected: str) -> None:
    assert compile_text(text).render(SCOPE) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{{ 1 / 0 }}", "ZeroDivisionError", id="an expression that raises"),
        pytest.param("x{{ 1 + 'a' }}", "TypeError", id="text that raises"),
        pytest.param("{{ nobody() }}", "'nobody' is undefined", id="calling nothing"),
        pytest.param("{{ 'x' | fromjson }}", "JSONDecodeError", id="broken JSON"),
        pytest.param("{{ word.upper }}", "gives a function", id="a method without its call"),
        pytest.param("{{ self }}", "part of the template", id="the template itself"),
        pytest.param("{% include 'x' %}", "no include", id="including files"),
        pytest.param("{% import 'x' as y %}", "no import", id="importing files"),
        pytest.param("{{ namespace() }}", "part of the template", id="a namespace"),
        # Escapes.
        pytest.param("{{ list.append(3) }}", "SecurityError", id="changing data"),
        pytest.param("{{ ''.__class__.__mro__[1]() }}", "unsafe", id="climbing from text"),
        pytest.param("{{ ''['__class__']['__mro__'][1]() }}", "unsafe", id="by brackets"),
        pytest.param("{{ (''|attr('__class__'))() }}", "unsafe", id="by filter"),
        pytest.param("{{ range.__globals__['os']() }}", "unsafe", id="from a function"),
        pytest.param("{{ lipsum() }}", "undefined", id="lipsum is gone"),
    ],
)
def test_what_cannot_be_rendered_says_why_and_shows_the_text(text: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        value(text)
    assert message in caught.value.message
    assert text in caught.value.message


@pytest.mark.parametrize("text", ["{{ a", "{{ a b }}", "{% if %}", "{% for %}", "{{ a | gone }}"])
def test_wrong_syntax_is_found_without_rendering(text: str) -> None:
    with pytest.raises(TemplateError, match="is not valid"):
        compile_text(text)


def test_now_without_a_time_says_so() -> None:
    with pytest.raises(TemplateError, match="no time here"):
        value("{{ now() }}", {})


def test_a_field_called_as_a_function_wins_where_it_is_read() -> None:
    assert value("{{ now }}", {"now": 5, "now_at": 0}) == 5


def test_a_format_cannot_reach_attributes() -> None:
    assert value("{{ '{0.__class__}'.format(n) }}") == ""


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ [0] * 10**9 }}",
        "{{ [[1] * 1000000] * 1000 }}",
        "{{ 10**(10**10) }}",
        "{{ ((((10**64)**64)**64)**64)**64 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 1000000000) }}",
        "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
        "{{ 'a'.center(10**9) }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ 'a'.rjust(10**9) }}",
        "{{ 'a'.zfill(10**9) }}",
        "{{ 'a\tb'.expandtabs(10**9) }}",
        "{{ ('a' * 1000000).replace('a', 'b' * 100000) }}",
        "{{ ('a' * 1000000) | replace('a', 'b' * 100000) }}",
        "{{ ('a' * 1000000).translate({97: 'b' * 100000}) }}",
        "{{ range(100000) | join('a' * 10000) }}",
        "{{ ('a' * 10000).join(range(100000) | map('string')) }}",
        "{{ [1] | batch(10**9, 'x') | list }}",
        "{{ [1] | slice(10**9) | list }}",
        "{{ 1 | round(10**8, 'ceil') }}",
        "{{ range(10**9) }}",
        "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
        "{% for a in range(90000) %}" + "x" * 1000 + "{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% set x = 'aaaaaaaa' %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}",
        "{% set x = 'aaaaaaaa' %}" + "{% set x = x + x %}" * 40 + "{{ x }}",
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 40 + "{{ x | tojson }}",
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 40 + "{{ x }}",
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 40 + "{{ x | string }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    ],
)
def test_little_text_cannot_make_much_work(text: str) -> None:
    started = time.process_time()
    with pytest.raises(TemplateError):
        value(text)
    assert time.process_time() - started < 10, "it stops long before it would have ended"


def test_a_list_that_holds_one_list_many_times_is_measured_before_it_is_copied() -> None:
    shared: list[Any] = [1]
    for _ in range(40):
        shared = [shared, shared]
    with pytest.raises(TemplateError, match="too much work"):
        plain(shared, Meter())


def test_output_up_to_the_limit_is_given() -> None:
    text = value("{% for a in range(16) %}{{ big }}{% endfor %}", {"big": "x" * (MAX_OUTPUT // 16)})
    assert len(text) == MAX_OUTPUT


# ---------------------------------------------------------------------- conditions
@pytest.mark.parametrize(
    ("when", "expected"),
    [
        pytest.param(None, True, id="no condition holds"),
        pytest.param(True, True, id="true"),
        pytest.param(False, False, id="false"),
        pytest.param(0, False, id="zero"),
        pytest.param("n == 1", True, id="braces may be left out"),
        pytest.param("{{ n == 2 }}", False, id="braces"),
        pytest.param("{{ n }}{{ gone }}", True, id="text that is not empty"),
        pytest.param("gone", False, id="undefined does not hold"),
        pytest.param("gone.x == 3", False, id="undefined equals nothing"),
        pytest.param("not gone", True, id="not undefined"),
        pytest.param("list", True, id="a list with items"),
        pytest.param("{% if n %}yes{% else %}no{% endif %}", True, id="words: yes"),
        pytest.param("{% if gone %}yes{% else %}no{% endif %}", False, id="words: no"),
    ],
)
def test_conditions(when: Any, expected: bool) -> None:
    assert holds(when, SCOPE) is expected


@pytest.mark.parametrize(
    "word", ["", "0", "false", "no", "none", "null", "off", "{}", "[]", " No ", "FALSE"]
)
def test_false_words(word: str) -> None:
    assert not truthy(word)


@pytest.mark.parametrize("word", ["true", "1", "yes", "on", "x", "00", "{ }", "-"])
def test_all_other_words_are_true(word: str) -> None:
    assert truthy(word)


def test_a_condition_that_raises_says_so_with_its_text() -> None:
    with pytest.raises(TemplateError, match=r"word > 1.*TypeError"):
        holds("word > 1", SCOPE)


# ---------------------------------------------------------------------- whole structures
def test_keys_and_values_are_rendered_all_the_way_down() -> None:
    data = {"{{ word }}": ["{{ n }}", {"x": "{{ list }}", 3: None}], "y": 2.5}
    assert render(data, SCOPE) == {"text": [1, {"x": [1, 2], 3: None}], "y": 2.5}


def test_a_scope_may_interrupt_a_template_without_being_wrapped() -> None:
    class Signal(PassThrough):
        pass

    class Raising(Mapping[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise Signal

        def __contains__(self, key: object) -> bool:
            return True

        def __iter__(self) -> Iterator[str]:
            return iter(())

        def __len__(self) -> int:
            return 0

    for text in ("{{ a }}", "x{{ a }}"):
        with pytest.raises(Signal):
            value(text, Raising())


def test_equal_texts_are_compiled_once() -> None:
    assert compile_text("{{ once }}") is compile_text("{{ once }}")


def test_templates_are_remembered_up_to_a_weight() -> None:
    known = _Known(100)
    compiled = compile_text("{{ once }}")
    for text in "abcde":
        known.put(text, compiled, 24)
    assert [known.get(text) is not None for text in "abcde"] == [False, True, True, True, True]
    known.put("wide", compiled, 26)
    assert known.get("wide") is None


def test_a_check_compiles_nothing_that_python_takes_anyway() -> None:
    program = compile_text("{{ never_rendered }}").program
    assert program is not None
    assert program._template is None
    assert program.template() is program.template()


# ---------------------------------------------------------------------- what a template needs
@pytest.mark.parametrize(
    ("text", "needs"),
    [
        pytest.param("plain", Needs(), id="nothing"),
        pytest.param("{{ a.b }} {{ c }}", Needs(frozenset("ac")), id="names"),
        pytest.param("{{ ctx.x }}", Needs(frozenset("x")), id="ctx.x needs x"),
        pytest.param("{{ ctx['x'].y }}", Needs(frozenset("x")), id="ctx in brackets"),
        pytest.param("{{ steps.x.y }}", Needs(frozenset("x")), id="steps.x needs x"),
        pytest.param("{{ workload.x }}", Needs(workload=frozenset("x")), id="workload.x"),
        pytest.param("{{ ctx }}", Needs(everything=True), id="bare ctx needs everything"),
        pytest.param("{{ workload | tojson }}", Needs(everything=True), id="bare workload"),
        pytest.param("{{ ctx[a] }}", Needs(frozenset("a"), everything=True), id="a computed key"),
        pytest.param("{% set a = b %}{{ a }}", Needs(frozenset("b")), id="its own names are not"),
        pytest.param("{{ now() }}{{ range(n) }}", Needs(frozenset("n")), id="functions are not"),
        pytest.param("{{ now }}", Needs(frozenset({"now"})), id="a field may be called now"),
        pytest.param("{% for x in y %}{{ x.z }}{% endfor %}", Needs(frozenset("y")), id="a loop"),
        pytest.param(
            "{{ ctx.x }}{{ ctx }}", Needs(frozenset("x"), everything=True), id="both uses of ctx"
        ),
    ],
)
def test_needs(text: str, needs: Needs) -> None:
    assert needs_of({"key": [text]}) == needs


def test_conditions_have_needs_too() -> None:
    compiled = compile_condition("ctx.a == workload.b")
    assert compiled is not None
    assert compiled.needs == Needs(frozenset("a"), frozenset("b"))
    assert compile_condition(True) is None


# ---------------------------------------------------------------------- scopes
def test_later_layers_win_and_each_name_is_listed_once() -> None:
    durable = ["n", "word", "list", "shop", "c", "fetch", "own", "bare"]
    assert sorted(SCOPE) == sorted([*durable, "item", "now_at", "output"])
    assert len(SCOPE) == 11
    assert SCOPE.with_ctx({"n": 5})["n"] == 5
    assert SCOPE.with_local({"c": 6})["c"] == 6
    assert SCOPE["c"] == "ctx", "the scope itself does not change"
    assert "gone" not in SCOPE
    with pytest.raises(KeyError):
        SCOPE["gone"]


@pytest.mark.parametrize(
    ("result", "error", "expected"),
    [
        pytest.param({"a": 1}, None, {"status": "ok", "error": None, "a": 1}, id="fields"),
        pytest.param([1], None, {"status": "ok", "error": None, "data": [1]}, id="else data"),
        pytest.param(
            {"status": "error", "error": "mine"},
            None,
            {"status": "error", "error": "mine"},
            id="what a result says of itself is data",
        ),
        pytest.param(
            None,
            {"message": "m", "http": {"status": 500}},
            {
                "status": "error",
                "error": {"message": "m", "http": {"status": 500}},
                "http": {"status": 500},
            },
            id="an error with its helpers",
        ),
        pytest.param(
            {"status_code": 200, "headers": {}},
            None,
            {
                "status": "ok",
                "error": None,
                "status_code": 200,
                "headers": {},
                "http": {"status": 200, "headers": {}},
            },
            id="an answer of HTTP with its helper",
        ),
    ],
)
def test_output(result: Any, error: Any, expected: Any) -> None:
    assert output_of(result, error) == expected
