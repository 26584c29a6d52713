"""How answers and progress look."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from app.cli.output import print_value, seconds, table
from app.cli.progress import Lines, Live, Row
from app.cli.speaker import JsonSpeaker, TerminalSpeaker


def test_tables_are_aligned_and_numbers_flush_right() -> None:
    assert table([("a", 1), ("long", 1000)], ("name", "count")) == (
        "name  count\n"
        "----  -----\n"
        "a         1\n"
        "long   1000"
    )  # fmt: skip


def test_wide_cells_are_cut() -> None:
    assert table([("x" * 100,)], ("n",)).splitlines()[2] == "x" * 59 + "…"


def test_a_result_with_rows_is_shown_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_value({"loaded": 2, "rows": [{"a": 1, "b": None}, {"a": 2, "c": [1]}]})
    assert capsys.readouterr().out == (
        "loaded  2\n\nrows:\na  b  c\n-  -  ---\n1\n2     [1]\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"), [("plain", "plain"), (3, "3"), ([], "[]"), ({}, "{}"), (None, "null")]
)
def test_a_plain_result(capsys: pytest.CaptureFixture[str], value: object, text: str) -> None:
    print_value(value)
    assert capsys.readouterr().out == f"{text}\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0123, "12 ms"), (1.5, "1.50 s"), (65, "1 m 05 s"), (3700, "1 h 01 m")],
)
def test_durations(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_lines_say_what_changed_and_a_loop_in_tenths() -> None:
    out = io.StringIO()
    lines = Lines(out)
    lines.update(Row("fetch", "pending"))
    lines.update(Row("fetch"))
    lines.update(Row("fetch"))
    lines.update(Row("fetch", "done", seconds=0.01))
    for ended in range(101):
        lines.update(Row("each", total=100, ended=ended))
    lines.update(Row("load", "failed", visit=2, error="no such table"))
    said = out.getvalue().splitlines()
    assert said[:3] == ["running   fetch", "done      fetch  10 ms", "running   each  0/100"]
    assert said[3:13] == [f"running   each  {ended}/100" for ended in range(10, 101, 10)]
    assert said[13:] == ["failed    load #2  no such table"]


def test_the_live_table_shows_loops_errors_and_only_what_fits() -> None:
    console = Console(file=io.StringIO(), width=80, height=10, force_terminal=False)
    live = Live(console)
    for number in range(20):
        live.update(Row(f"step{number}", "done", seconds=0.5))
    live.update(Row("each", total=10, ended=5, failed=1))
    live.update(Row("load", "failed", error="[red]not markup[/red]"))
    with console.capture() as capture:
        console.print(live)
    text = capture.get()
    assert "5/10, 1 failed" in text
    assert "[red]not markup[/red]" in text
    assert "step19" in text
    assert "step0 " not in text
    assert len(text.splitlines()) < 10


def test_lines_of_processes_are_prefixed_on_a_terminal() -> None:
    out = io.StringIO()
    speaker = TerminalSpeaker(lambda: None, colour=False, stream=out)
    speaker.line("worker.1", "hello")
    speaker.say("ready", "one\ntwo")
    assert out.getvalue() == (
        "worker.1     | hello\nup           | one\nup           | two\n"
    )  # fmt: skip


def test_json_lines_go_through_and_ours_are_json_too() -> None:
    out = io.StringIO()
    speaker = JsonSpeaker(lambda: None, stream=out)
    speaker.line("web", '{"event": "x"}')
    speaker.say("process.died", "web died", process="web", code=137)
    first, second = out.getvalue().splitlines()
    assert first == '{"event": "x"}'
    record = json.loads(second)
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "level": "warning",
        "event": "process.died",
        "message": "web died",
        "process": "web",
        "code": 137,
    }


def test_where_nobody_listens_any_more_the_speaker_says_so_once() -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    lost: list[int] = []
    speaker = JsonSpeaker(lambda: lost.append(1), stream=Closed())
    speaker.line("web", "a")
    speaker.line("web", "b")
    assert lost == [1]
