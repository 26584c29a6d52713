"""Numbers that make no sense: none of them takes the memory or the time that it names."""

from __future__ import annotations

import pytest

from app.engine.language.checks import LONGEST, duration
from app.engine.language.parse import parse
from app.engine.language.source import MAX_TEMPLATES, read
from app.engine.loops import MAX_COUNT, collection, frame_of, window
from app.engine.playbook import Cursor, Frame, Loop, Task
from app.engine.references import Place
from app.engine.templates.scope import Scope
from app.engine.templates.template import compile_text
from app.errors import InvalidPlaybookError
from tests.engine.driver import KINDS

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: t}\n"


@pytest.mark.parametrize("count", [MAX_COUNT + 1, 10**9, 10**30], ids=["next", "many", "wide"])
def test_a_loop_counts_only_so_far(count: int) -> None:
    assert len(collection(MAX_COUNT)) == MAX_COUNT
    with pytest.raises(ValueError, match="the most is 1000000"):
        collection(count)


def test_what_is_no_collection_is_shown_shortened() -> None:
    with pytest.raises(ValueError, match="did not evaluate") as caught:
        collection(10**1200 * -1)
    assert len(str(caught.value)) < 300


def test_a_text_that_nests_too_deeply_for_json_is_text() -> None:
    assert collection("[" * 100_000) == ["[" * 100_000]


@pytest.mark.parametrize("wanted", [10**9, "{{ 2000000000 }}"])
def test_no_window_is_wider_than_the_limit(wanted: object) -> None:
    assert window(Loop([1], "item", parallel=True, max_in_flight=wanted), Scope(), 1000) == 1000


def test_no_cursor_opens_more_frames_or_rows_than_the_limit() -> None:
    frame = Frame(row_concurrency=10**9)
    cursor = Cursor(Task("claim", "noop", {}, "io"), frame)
    loop = Loop(None, "item", parallel=True, max_in_flight=10**9, cursor=cursor)
    frames, settings = frame_of(loop, Scope(), 1000)
    assert (frames, settings["row_concurrency"]) == (1000, 1000)


def test_a_number_beyond_what_the_log_keeps_is_refused() -> None:
    loop = Loop([1], "item", parallel=True, max_in_flight="{{ 10 ** 30 }}")
    with pytest.raises(ValueError, match="from 1 to 2147483647"):
        window(loop, Scope(), 1000)


@pytest.mark.parametrize("value", [1e308, 10**400, "9" * 400, "9999999999d", float("nan"), 1e12])
def test_a_time_beyond_every_date_is_none(value: object) -> None:
    assert duration(value) is None
    assert duration(LONGEST) == LONGEST


def test_a_timeout_beyond_every_date_is_refused() -> None:
    text = HEAD + "executor: {spec: {timeout: 1000000000000}}\nworkflow: [{step: start}]\n"
    with pytest.raises(InvalidPlaybookError, match="is not a time"):
        parse(text, KINDS)


@pytest.mark.parametrize("visit", ["9" * 5000, "9" * 12, "0", "-1", "٣", ""])
def test_a_visit_that_cannot_be_is_no_loop(visit: str) -> None:
    assert Place(1, "loop/start/12").loop == ("start", 12)
    assert Place(1, f"loop/start/{visit}").loop is None


def test_a_playbook_holds_only_so_many_templates() -> None:
    texts = "".join(f"- '{{{{ a{number} }}}}'\n" for number in range(MAX_TEMPLATES))
    assert len(read(texts).data) == MAX_TEMPLATES
    with pytest.raises(InvalidPlaybookError, match="texts have templates"):
        read(texts + "- {'{{ b }}': 1}\n")


def test_filters_inside_each_other_need_no_stack() -> None:
    text = (
        "{% set ns = namespace(x=[1]) %}{% for i in range(20000) %}"
        "{% set ns.x = ns.x | map('string') %}{% endfor %}{{ ns.x | list | tojson }}"
    )
    assert compile_text(text).value({}) == ["1"]
