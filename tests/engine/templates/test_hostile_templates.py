"""Templates written to harm: each is refused, or does what it says in little time and memory.

Every case runs in a process of its own (see ``contained``), whose time and memory are measured.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.engine.templates.budget import MAX_BITS
from app.engine.templates.sandbox import MAX_TEMPLATE, MAX_TOKENS
from tests.engine.contained import Ask, check, containment

WORK = "too much work"
MADE = "bytes of text and lists"
LONG = "more than 16777216 characters"
LARGE = "as large as this"
TEXTS = "texts as long as this"
UNSAFE = "unsafe"
SYNTAX = "is not valid"
BIG = "{% set x = 'a' * 1000000 %}"
#: Two lists that are equal, hold nothing twice by identity, and are 2 to the 40th large.
TWINS = (
    "{% set x = (1,) %}{% set y = (1,) %}"
    + "{% set x = (x, x) %}" * 40
    + "{% set y = (y, y) %}" * 40
)


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with containment() as ask:
        yield ask


REFUSED = {
    # Escapes.
    "the class of a text": ("{{ ''.__class__.__mro__ ~ ''.__class__() }}", UNSAFE),
    "subclasses by brackets": ("{{ ''['__class__']['__base__']['__subclasses__']() }}", UNSAFE),
    "a class by filter": ("{{ (n | attr('__class__'))() }}", UNSAFE),
    "a class by a mapped attribute": (
        "{{ ([''] | map(attribute='__class__') | first)() }}",
        UNSAFE,
    ),
    "globals of a function": ("{{ range.__globals__() }}", UNSAFE),
    "globals of now": ("{{ now.__globals__() }}", UNSAFE),
    "the class of a macro": ("{% macro m() %}{% endmacro %}{{ m.__class__() }}", UNSAFE),
    "the function of a macro": ("{% macro m() %}{% endmacro %}{{ m._func() }}", UNSAFE),
    "the environment of a macro": (
        "{% macro m() %}{% endmacro %}{{ m._environment.from_string('x') }}",
        UNSAFE,
    ),
    "the frame of a generator": ("{{ (rows | map(attribute='id')).gi_frame() }}", UNSAFE),
    "the iterator of a loop": ("{% for a in [1] %}{{ loop._iterator() }}{% endfor %}", UNSAFE),
    "the fields of an undefined name": ("{{ gone._fail_with_undefined_error() }}", "undefined"),
    "the template itself": ("{{ self }}", "part of the template"),
    "the context of itself": ("{{ self._TemplateReference__context() }}", UNSAFE),
    "a format that reads attributes": (
        "{{ '{0.__class__.__init__.__globals__[x]}'.format(n) }}",
        "",
    ),
    "the machinery printed": ("x{{ range }}", "a function or a part of the template"),
    "a bound method printed": ("x{{ ''.upper }}", "a function or a part of the template"),
    "changing data": ("{{ rows.append(1) }}", UNSAFE),
    "changing a mapping": ("{{ rows[0].update(id=5) }}", UNSAFE),
    "a mapping of a class method": ("{{ {}.fromkeys(range(100000)) }}", UNSAFE),
    "numbers to bytes": ("{{ (1).to_bytes(1000000000, 'big') }}", UNSAFE),
    "a slow codec": ("{{ ('ä' * 100000).encode('punycode') }}", "encoding"),
    "an odd codec": ("{{ ('a' * 100000).encode().decode('idna') }}", "encoding"),
    "translate": ("{{ ('a' * 1000000).translate({97: 'b' * 100000}) }}", UNSAFE),
    "cycler": ("{{ cycler('a').next() }}", "undefined"),
    "lipsum": ("{{ lipsum(n=100000) }}", "undefined"),
    "a negative charge": (
        "{{ [-1000000000] | map('<charge>', -5) | sum and gone() }}",
        "undefined",
    ),
    # Filters over what filters give: inside each other they overflowed the stack of the process.
    "20,000 filters that wait for each other": (
        (
            "{% set ns = namespace(x=[]) %}{% for i in range(20000) %}"
            "{% set ns.x = ns.x | map('string') %}{% endfor %}{{ ns.x | first | nosuch }}"
        ),
        "nosuch",
    ),
    "a long path in each item": (
        "{{ range(100000) | list | map(attribute='real.real.real.real') | list | length }}",
        "too much work",
    ),
    "a group of each item": (
        "{{ range(100000) | list | groupby('real') | list }}",
        "too much work",
    ),
    # Other templates.
    "include": ("{% include '/etc/passwd' %}", "no include"),
    "import": ("{% import 'x' as y %}", "no import"),
    "from import": ("{% from 'x' import y %}", "no fromimport"),
    "extends": ("{% extends 'x' %}", "no extends"),
    "a block that calls itself": ("{% block a %}{{ self.a() }}{% endblock %}", "no block"),
    "autoescape": ("{% autoescape true %}{{ n }}{% endautoescape %}", "no scoped"),
    # Compiling.
    "3,000 parentheses": ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "nested too deeply"),
    "3,000 additions": ("{{ " + "1+" * 3000 + "1 }}", "nested too deeply"),
    "3,000 filters": ("{{ 1" + "|int" * 3000 + " }}", "nested too deeply"),
    "3,000 lists": ("{{ " + "[" * 3000 + "]" * 3000 + " }}", "nested too deeply"),
    "25 loops": ("{% for a in [1] %}" * 25 + "{% endfor %}" * 25, "nested too deeply"),
    "300 conditions": ("{% if n %}" * 300 + "{% endif %}" * 300, "nested too deeply"),
    "too many expressions": ("{{ a }}" * MAX_TOKENS, "words and signs"),
    "one expression too long": ("{{ [" + "1," * MAX_TOKENS + "1] }}", "words and signs"),
    "a text too long": ("{{ n }}" + "x" * MAX_TEMPLATE, "longer than"),
    "a number of a million digits": ("{{ " + "9" * 1_000_000 + " }}", "too long"),
    "a number of a million hex digits": ("{{ 0x" + "f" * 1_000_000 + " }}", "4096 bits"),
    "a comment left open": ("{{ n }}{#" + "{#" * 100_000, SYNTAX),
    # Numbers.
    "a tower of powers": ("{{ 9 ** (9 ** 9) }}", LARGE),
    "powers of powers": ("{{ ((((10**64)**64)**64)**64)**64 }}", LARGE),
    "a root of a negative number": ("{{ (0 - 8) ** 0.5 }}", "no real number"),
    "an int of hex text": ("{{ ('f' * 1000000) | int(base=16) }}", f"{MAX_BITS} bits"),
    "round to many places": ("{{ 1 | round(100000000, 'ceil') }}", "too large"),
    "many large numbers": ("{{ ([10**1000] * 100000) | tojson }}", LONG),
    # Long texts.
    "a billion letters": ("{{ 'a' * 10**9 }}", LARGE),
    "a billion zeros": ("{{ [0] * 10**9 }}", LARGE),
    "lists of lists": ("{{ [[1] * 1000000] * 1000 }}", WORK),
    "one text many times": (BIG + "{{ [x] * 1000 }}", LONG),
    "doubling by ~": (BIG + "{% set x = x ~ x %}" * 40 + "{{ x }}", LONG),
    "doubling by +": (BIG + "{% set x = x + x %}" * 40 + "{{ x }}", LARGE),
    "doubling bytes": (
        "{% set x = 'ab'.encode() %}" + "{% set x = x + x %}" * 40 + "{{ x }}",
        LARGE,
    ),
    "doubling lists by +": ("{% set x = [1] %}" + "{% set x = x + x %}" * 40 + "{{ x }}", LARGE),
    "doubling in a macro": (
        "{% macro m(a) %}{{ a }}{{ a }}{% endmacro %}{% set x = 'aaaaaaaa' %}"
        + "{% set x = m(x) %}" * 40,
        MADE,
    ),
    "doubling in a block": (
        "{% set x = 'aaaaaaaa' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 40,
        MADE,
    ),
    "doubling in a filter block": (
        "{% set x = 'aaaaaaaa' %}"
        + "{% set x %}{% filter upper %}{{ x }}{{ x }}{% endfilter %}{% endset %}" * 40,
        MADE,
    ),
    "texts kept": (
        BIG
        + "{% set x = x.lower() %}" * 20
        + "".join(f"{{% set a{number} = x.upper() %}}" for number in range(100)),
        MADE,
    ),
    "wide texts kept": (
        "{% set x = '𝄞' * 1000000 %}"
        + "".join(f"{{% set a{number} = x ~ '!' %}}" for number in range(100)),
        MADE,
    ),
    "one wide letter in a long text": (BIG + "{{ x }}" * 16 + "𝄞", LONG),
    "a percent width": ("{{ '%1000000000d' % 1 }}", "wider"),
    "a percent width after a name": ("{{ '%(a)1000000000d' % {'a': 1} }}", "wider"),
    "a percent precision": ("{{ '%.1000000000f' % 1 }}", "wider"),
    "a percent star": ("{{ '%*d' % (1000000000, 1) }}", "wider"),
    "a percent of bytes": ("{{ '%1000000000d'.encode() % 1 }}", LARGE),
    "a percent name that hides": ("{{ '%(a%b)1000000000d' % {'a%b': 1} }}", "needs a letter"),
    "one text in many percents": (BIG + "{{ ('%(a)s' * 1000) % {'a': x} }}", LONG),
    "percent of a list of lists": (
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 40 + "{{ '%s' % (x,) }}",
        WORK,
    ),
    "a format width": ("{{ '{:>1000000000}'.format(1) }}", "wider"),
    "a format width given": ("{{ '{:>{}}'.format(1, 1000000000) }}", "wider"),
    "one text in many formats": (BIG + "{{ ('{0}' * 1000).format(x) }}", MADE),
    "a format of a list of lists": (
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 40 + "{{ '{0!r}'.format(x) }}",
        WORK,
    ),
    "a million colons": ("{{ (':' * 1000000).format() ~ gone() }}", "undefined"),
    "padding": ("{{ 'a'.center(10**9) }}", TEXTS),
    "padding with zeros": ("{{ 'a'.zfill(10**9) }}", TEXTS),
    "tabs": ("{{ ('\t' * 1000000).expandtabs(1000) }}", TEXTS),
    "replacing a letter": ("{{ ('a' * 1000000) | replace('a', 'b' * 100000) }}", WORK),
    "replacing nothing": (BIG + "{{ x.replace('', x) }}", WORK),
    "replacing again and again": (
        BIG + "{{ x" + "|replace('a', 'b')|replace('b', 'a')" * 40 + " }}",
        MADE,
    ),
    "joining with a long text": ("{{ range(100000) | join('a' * 10000) }}", LONG),
    "the method join": (BIG + "{{ x.join(['a'] * 1000000) }}", LONG),
    "escaping": (BIG + "{{ ('\"' * 1000000) | e | e | e | e | e }}", MADE),
    "encoding for URLs": ("{{ ('𝄞' * 1000000) | urlencode }}", WORK),
    "stripping tags": ("{{ ('<!---->' * 100000) | striptags }}", WORK),
    "indented JSON": (
        "{% set x = [1] %}"
        + "{% set x = [x] %}" * 60
        + "{% set x = [x] * 10000 %}{{ x | tojson(indent=16) }}",
        "",
    ),
    "JSON of letters that grow": (
        "{{ ('<' * 1000000) ~ ('<' * 1000000) | tojson | e | tojson }}",
        "",
    ),
    # Much from little data.
    "a list of a long text": ("{{ ('𝄞' * 1000000) | list }}", MADE),
    "splitting into letters": (
        "{{ ('a ' * 500000).split() | length ~ ('a ' * 500000).split() }}",
        MADE,
    ),
    "splitting lines": (
        "{% set x = '\n' * 1000000 %}{{ x.splitlines() | length }}",
        MADE,
    ),
    "JSON of empty lists": (
        "{% set x = '[' ~ '[],' * 300000 ~ '[]]' %}{{ x | fromjson }}{{ x | fromjson }}",
        MADE,
    ),
    "text shaped like many mappings": ("[{{ '{},' * 300000 }}{}]", MADE),
    "deep JSON": ("{{ ('[' * 100000) | fromjson }}", "RecursionError"),
    "batch": ("{{ [1] | batch(10**9, 'x') | list }}", "too large"),
    "slice": ("{{ [1] | slice(10**9) | list }}", "too large"),
    "a very long range": ("{{ range(10**9) }}", "Range too big"),
    "summing lists": ("{{ [rows, rows] | sum(start=[]) }}", "sum adds numbers"),
    "a list of lists, doubled": (
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 40 + "{{ x | tojson }}",
        WORK,
    ),
    "a namespace that grows": (
        (
            "{% set ns = namespace(x=[]) %}{% for a in range(100000) %}"
            "{% set ns.x = ns.x + [a] %}{% endfor %}"
        ),
        MADE,
    ),
    "a namespace that nests": (
        (
            "{% set ns = namespace(x=[]) %}{% for a in range(100000) %}"
            "{% for b in range(100000) %}{% set ns.x = [ns.x, {b: a}] %}{% endfor %}{% endfor %}"
        ),
        WORK,
    ),
    "slices kept": (
        (
            "{% set ns = namespace(x=[]) %}{% set l = [0] * 1000000 %}{% for a in range(1000) %}"
            "{% set ns.x = [ns.x, l[::1]] %}{% endfor %}"
        ),
        MADE,
    ),
    "wide mappings": (
        (
            "{% set ns = namespace(x=[]) %}{% for a in range(100000) %}"
            "{% set ns.x = [ns.x, dict(a=1, b=2, c=3)] %}{% endfor %}"
        ),
        WORK,
    ),
    # Loops.
    "loops in loops": (
        "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
        WORK,
    ),
    "a loop with a condition": (
        "{% for a in range(90000) %}{% for b in range(90000) if false %}{% endfor %}{% endfor %}",
        WORK,
    ),
    "a long body": ("{% for a in range(90000) %}" + "{{ n }}" * 2000 + "{% endfor %}", WORK),
    "a long text in a loop": ("{% for a in range(90000) %}" + "x" * 1000 + "{% endfor %}", LONG),
    "a loop of itself": ("{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}", "Recursion"),
    "a wide loop of itself": (
        "{% for a in range(9) recursive %}{{ loop(range(900)) if loop.depth < 9 }}{% endfor %}",
        WORK,
    ),
    "a macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        WORK,
    ),
    "a macro that calls itself for ever": (
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "Recursion",
    ),
    "a caller that calls": (
        "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
        + "{% call m() %}" * 18
        + "x" * 1000
        + "{% endcall %}" * 18,
        "",
    ),
    "searching in a loop": (
        BIG + "{% for a in range(100000) %}{% if 'b' in x %}{% endif %}{% endfor %}",
        WORK,
    ),
    "searching a list in a loop": (
        "{% for a in range(100000) %}{% if a in names %}{% endif %}{% endfor %}",
        WORK,
    ),
    "a test in a loop": (
        "{% for a in range(100000) %}{% if a is in names %}{% endif %}{% endfor %}",
        WORK,
    ),
    "a selecting test": ("{{ names | select('in', names | list) | list }}", WORK),
    "comparing in a loop": (
        BIG
        + "{% set y = 'a' * 1000000 %}{% for a in range(100000) %}{% if x == y %}{% endif %}{% endfor %}",
        WORK,
    ),
    "a method in a loop": (
        BIG + "{% for a in range(100000) %}{% set y = x.find('b') %}{% endfor %}",
        WORK,
    ),
    "searching backwards": ("{% set x = 'a' * 1000000 %}{{ x.rfind('ab' ~ 'a' * 500000) }}", WORK),
    "stripping many letters": (BIG + "{{ x.strip('b' * 500000 ~ 'a') }}", WORK),
    "sorting in a loop": ("{% for a in range(1000) %}{% set y = names | sort %}{% endfor %}", WORK),
    "sorting by a long path": ("{{ rows | sort(attribute='a.' * 100000) }}", "too many dots"),
    "reading a long path": ("{{ rows | map(attribute='a.' * 100000) | list }}", "too many dots"),
    "a chain of maps": ("{{ names" + " | map('upper')" * 100 + " | list }}", WORK),
    # Comparing what is 2 to the 40th large.
    "comparing twins": (TWINS + "{{ x == y }}", WORK),
    "finding a twin": (TWINS + "{{ x in [y] }}", WORK),
    "a twin as key": (TWINS + "{{ {x: 1} }}", "key"),
    "reading by a twin": (TWINS + "{{ {}[x] }}", "key"),
    "getting by a twin": (TWINS + "{{ {}.get(x) }}", "key"),
    "a mapping of twins": (TWINS + "{{ dict([(x, 1)]) }}", "key"),
    "unique twins": (TWINS + "{{ [x, y] | unique | list }}", WORK),
    "sorting twins": (TWINS + "{{ [x, y] | sort }}", WORK),
    "the larger twin": (TWINS + "{{ [x, y] | max }}", WORK),
    "grouping twins": (TWINS + "{{ [[x], [y]] | groupby(0) }}", WORK),
    "a test of twins": (TWINS + "{{ x is eq y }}", WORK),
    "counting twins": (TWINS + "{{ [x].count(y) }}", WORK),
    "printing twins": (TWINS + "{{ x | upper }}", WORK),
    # Times.
    "a wide time": ("{{ now().strftime('%1000000000Y') }}", "letter after each"),
    "a long time": ("{{ now().strftime('%c' * 100000) }}", "short"),
    "a formatted wide time": ("{{ '{:%1000000000Y}'.format(now()) }}", "wider"),
    "a local time": ("{{ now().astimezone() }}", UNSAFE),
    "the class of a time": ("{{ now().__class__.today() }}", UNSAFE),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_hostile_template_is_refused_soon_and_says_why(text: str, message: str, ask: Ask) -> None:
    outcome = ask("template", text)
    check(outcome)
    assert outcome.error == "TemplateError" or not message, outcome
    assert message in outcome.detail or not message, outcome
    assert "template " in outcome.detail or not message, "it names the template"


# ---------------------------------------------------------------------- what must go on working
HONEST = {
    "a loop over 10,000 rows": "{% for r in rows %}{{ r.id }}: {{ r.name | upper }},{% endfor %}",
    "a loop with a condition": "{% for r in rows if r.id % 2 == 0 %}{{ loop.index }},{% endfor %}",
    "JSON of five megabytes": "{{ blob | tojson }}",
    "JSON of five megabytes in a text": "insert into t values ('{{ blob | tojson }}')",
    "joining 50,000 names": "{{ names | join(', ') }}",
    "sorting 50,000 names": "{{ names | sort | first }}",
    "unique names": "{{ names | unique | list | length }}",
    "choosing rows": "{{ rows | selectattr('id', 'gt', 5000) | map(attribute='name') | list }}",
    "a page of text": "{{ page | replace('x', 'yy') | lower | trim }}",
    "a page in a text": "<html>{{ page }}</html>",
    "splitting a page": "{{ (page[:1000000] | replace('xxxxxxxxxx', 'x ')).split() | length }}",
    "JSON there and back": "{{ (rows | tojson | fromjson) | length }}",
    "reading a wide result often": (
        "{% macro m() %}{{ wide.k1 }}{% endmacro %}"
        "{% for a in range(10000) %}{{ ctx.wide.k1 }}{{ steps.wide.k1 }}{{ m() }}{% endfor %}"
    ),
    "a long list of its own": "{{ [" + "1," * 2000 + "] }}",
    "a long text with few templates": "-- {{ n }}\n" + "select 'x';\n" * 50_000,
    "a macro called often": (
        "{% macro row(r) %}<tr><td>{{ r.id }}</td></tr>{% endmacro %}"
        "{% for r in rows %}{{ row(r) }}{% endfor %}"
    ),
    "a sum in a namespace": (
        "{% set ns = namespace(sum=0) %}{% for r in rows %}"
        "{% set ns.sum = ns.sum + r.id %}{% endfor %}{{ ns.sum }}"
    ),
    "grouping rows": "{% for key, group in rows | groupby('name') %}{{ key }}{% endfor %}",
}


@pytest.mark.parametrize("text", HONEST.values(), ids=HONEST.keys())
def test_an_honest_template_is_rendered(text: str, ask: Ask) -> None:
    outcome = ask("template", text)
    check(outcome)
    assert not outcome.error, outcome
