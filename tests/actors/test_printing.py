"""What steps print is masked, limited and shipped; nobody waits for it, and nothing is kept for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.actors import printing
from app.actors.printing import HELD, MARGIN, Printer
from app.actors.shipping import FULL, LOST, Shipper
from app.actors.steps import Runner
from app.engine.masking import MASK, Masker
from app.engine.output import Selection
from app.engine.ports import Pointer
from app.errors import BadRequestError, CallboardError, UnavailableError
from app.services.desk import Desk
from app.services.work import Worked
from app.settings import load
from app.wire import LogAnswer, LogBatch, LogChunk
from app.wiring import ToolKinds
from tests.services.conftest import Bench, make_bench  # noqa: F401 (a fixture)
from tests.waits import until

SECRET = "s3cr3t-value"
PLACE = Pointer(1, "start", 1, -1, 1)


@dataclass
class Post:
    """The other end. ``errors`` are raised first, one after the other; ``gate`` holds every batch."""

    errors: list[CallboardError] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    chunks: list[LogChunk] = field(default_factory=list)
    asked: int = 0
    batches: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self, batch: LogBatch) -> None:
        self.asked += 1
        assert self.gate.wait(60)
        self.batches += 1
        if self.errors:
            raise self.errors.pop(0)
        self.chunks.extend(batch.chunks)

    def text(self, stream: str | None = None, pointer: Pointer = PLACE) -> str:
        return "".join(
            chunk.text
            for chunk in self.chunks
            if stream in {None, chunk.stream} and chunk.step == pointer.step
        )


def printer_of(
    shipper: Shipper, *secrets: str, pointer: Pointer = PLACE, limit: int = 1 << 20
) -> Printer:
    masker = Masker()
    masker.add(*secrets)
    return Printer(pointer, masker, shipper, limit=limit, tail=50)


def flush(shipper: Shipper, printer: Printer, post: Post) -> None:
    """End the attempt, and let its report take along what is left."""
    rest = shipper.end(printer, moment=30)
    if rest:
        post(LogBatch(worker="w", chunks=rest))


def shipped(*said: tuple[str, str], secrets: tuple[str, ...] = (), limit: int = 1 << 20) -> Post:
    """What arrives of what is said, stream by stream, by one attempt from beginning to end."""
    post = Post()
    shipper = Shipper(post, "w", pause=5)
    printer = printer_of(shipper, *secrets, limit=limit)
    for stream, text in said:
        printer.log(stream, text)
    flush(shipper, printer, post)
    return post


# ---------------------------------------------------------------------- masks
LINE = f"the password is {SECRET}, yes\n"


@pytest.mark.parametrize("cut", range(1, len(LINE)))
def test_a_secret_is_masked_wherever_it_is_cut(cut: int) -> None:
    post = shipped(("stdout", LINE[:cut]), ("stdout", LINE[cut:]), secrets=(SECRET,))
    assert post.text() == f"the password is {MASK}, yes\n"


def test_a_secret_between_words_of_the_other_stream_is_masked() -> None:
    post = shipped(
        ("stdout", "a " + SECRET[:5]),
        ("stderr", "words\n"),
        ("stdout", SECRET[5:] + "\n"),
        secrets=(SECRET,),
    )
    assert (post.text("stdout"), post.text("stderr")) == (f"a {MASK}\n", "words\n")


@pytest.mark.parametrize("before", range(HELD - len(SECRET) - 3, HELD + 3))
def test_a_secret_in_an_endless_line_is_masked_wherever_it_is(before: int) -> None:
    text = "x" * before + SECRET + "y" * 30
    said = [("stdout", text[at : at + 7]) for at in range(HELD - 70, len(text), 7)]
    post = shipped(("stdout", text[: HELD - 70]), *said, secrets=(SECRET,))
    assert post.text() == "x" * before + MASK + "y" * 30


def test_an_endless_line_is_not_held_back_for_ever() -> None:
    post = Post()
    shipper = Shipper(post, "w", pause=5)
    printer = printer_of(shipper, SECRET)
    printer.log("stdout", "x" * (HELD + 1))
    assert sum(len(piece.text) for piece in printer.pieces()) >= HELD - 2 * printer.masker.longest
    flush(shipper, printer, post)


def test_lines_are_masked_with_what_is_secret_by_then() -> None:
    post = Post()
    shipper = Shipper(post, "w", pause=5)
    printer = printer_of(shipper)
    printer.log("stdout", "before\n")
    printer.masker.add(SECRET)
    printer.log("stdout", f"then {SECRET}\n")
    flush(shipper, printer, post)
    assert post.text() == f"before\nthen {MASK}\n"


def test_the_end_that_is_reported_is_masked_and_short() -> None:
    post = Post()
    shipper = Shipper(post, "w", pause=5)
    printer = printer_of(shipper, SECRET)
    for number in range(100):
        printer.log("stdout", f"{number} {SECRET}\n")
    flush(shipper, printer, post)
    tail = printer.tail
    assert tail is not None
    assert tail.endswith(f"98 {MASK}\n99 {MASK}\n")
    assert len(tail) == 50


def test_the_end_that_is_reported_is_masked_with_what_is_secret_at_the_end() -> None:
    printer = printer_of(Shipper(Post(), "w", pause=5))
    printer.log("stdout", f"{SECRET}\n")
    printer.masker.add(SECRET)
    assert printer.tail == f"{MASK}\n"


def test_the_end_that_is_reported_has_the_line_that_was_not_finished() -> None:
    post = Post()
    shipper = Shipper(post, "w", pause=5)
    printer = printer_of(shipper)
    printer.log("stdout", "a line\nand no")
    flush(shipper, printer, post)
    assert printer.tail == "a line\nand no"


# ---------------------------------------------------------------------- pieces
def test_an_unfinished_line_waits_for_its_end() -> None:
    post = Post()
    shipper = Shipper(post, "w", pause=5)
    printer = printer_of(shipper)
    printer.log("stdout", "one\ntw")
    assert [piece.text for piece in printer.pieces()] == ["one\n"]
    printer.log("stdout", "o\r")
    assert [piece.text for piece in printer.pieces()] == ["two\r"]
    flush(shipper, printer, post)


def test_the_two_streams_keep_their_order() -> None:
    post = shipped(("stdout", "1\n"), ("stderr", "2\n"), ("stdout", "3\n"), ("stdout", "4\n"))
    told = [(chunk.index, chunk.stream, chunk.text) for chunk in post.chunks]
    assert told == [(0, "stdout", "1\n"), (1, "stderr", "2\n"), (2, "stdout", "3\n4\n")]


def test_a_program_that_changes_streams_all_the_time_does_not_become_a_row_per_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(printing, "ORDERED", 10)
    post = shipped(*((stream, "x\n") for _ in range(5000) for stream in ("stdout", "stderr")))
    assert (post.text("stdout"), post.text("stderr")) == ("x\n" * 5000, "x\n" * 5000)
    assert len(post.chunks) < 100


def test_much_at_once_comes_in_pieces_of_a_size() -> None:
    text = "".join(f"{number}\n" for number in range(100_000))
    post = shipped(("stdout", text))
    assert post.text() == text
    assert [chunk.index for chunk in post.chunks] == list(range(len(post.chunks)))
    assert max(len(chunk.text) for chunk in post.chunks) == FULL


@pytest.mark.parametrize(
    ("text", "arrives"),
    [
        pytest.param("a\0b\n", "a\ufffdb\n", id="NUL"),
        pytest.param("a\ud800b\n", "a?b\n", id="half a surrogate pair"),
        pytest.param("zażółć 🎉\n", "zażółć 🎉\n", id="not ASCII"),
        pytest.param("no end", "no end", id="a last line without an end"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_odd_text(text: str, arrives: str) -> None:
    assert shipped(("stdout", text)).text() == arrives


def test_what_comes_after_the_end_of_the_attempt_is_not_taken() -> None:
    post = Post()
    shipper = Shipper(post, "w", pause=5)
    printer = printer_of(shipper)
    printer.log("stdout", "in time\n")
    flush(shipper, printer, post)
    printer.log("stdout", "too late\n")
    flush(shipper, printer, post)
    assert post.text() == "in time\n"


# ---------------------------------------------------------------------- limits
def test_what_is_above_the_limit_is_dropped_and_said_so() -> None:
    said = [("stdout", "0123456789ab\n")] * 200
    post = shipped(*said, ("stderr", "fine\n"), limit=500)
    kept = post.text("stdout")
    lines, note = kept[: kept.index("[")], kept[kept.index("[") :]
    assert lines == "0123456789ab\n" * ((500 + MARGIN) // 13)
    dropped = 200 * 13 - len(lines)
    assert (
        note == f"[{dropped} more bytes of stdout were dropped; CALLBOARD_OUTPUT_BYTES keeps 500]\n"
    )
    assert post.text("stderr") == "fine\n"


@pytest.mark.parametrize("before", range(500 + MARGIN - len(SECRET), 500 + MARGIN))
def test_a_secret_that_the_limit_cuts_is_not_shown_by_half(before: int) -> None:
    text = "x" * (before - 1) + "\n" + SECRET + "z" * 100
    kept = shipped(("stdout", text), secrets=(SECRET,), limit=500).text()
    assert kept.startswith("x" * (before - 1) + "\n[")


def test_the_limit_counts_bytes() -> None:
    post = shipped(("stdout", "ż" * 2000 + "\n"), limit=1000)
    kept = post.text().partition("\n")[0]
    assert 0 < len(kept) <= (1000 + MARGIN) // 2


# ---------------------------------------------------------------------- shipping
def test_no_thread_where_nothing_is_printed() -> None:
    post = Post()
    shipper = Shipper(post, "w", pause=0.001)
    assert shipper.end(printer_of(shipper)) == []
    assert shipper.is_idle
    assert post.batches == 0


def test_the_thread_ends_when_there_is_nothing_more_and_comes_back() -> None:
    post = Post()
    shipper = Shipper(post, "w", pause=0.001)
    printer = printer_of(shipper)
    for count in (1, 2):
        printer.log("stdout", "x\n")
        until(lambda: shipper.is_idle)
        assert post.text() == "x\n" * count


def test_it_is_shipped_while_the_step_runs() -> None:
    post = Post()
    shipper = Shipper(post, "w", pause=0.001)
    printer = printer_of(shipper)
    printer.log("stdout", "x\n")
    until(lambda: post.text() == "x\n")


def test_what_a_control_plane_did_not_take_comes_again_and_once() -> None:
    post = Post([UnavailableError("away"), UnavailableError("still")])
    shipper = Shipper(post, "w", pause=0.001)
    printer = printer_of(shipper)
    for number in range(5):
        printer.log("stdout", f"{number}\n")
    shipper.abandon(printer)
    until(lambda: shipper.is_idle)
    assert post.text() == "0\n1\n2\n3\n4\n"


def test_nobody_waits_for_a_control_plane_that_is_known_to_be_away() -> None:
    post = Post([UnavailableError("away")] * 1_000)
    shipper = Shipper(post, "w", pause=0.001)
    printer = printer_of(shipper)
    printer.log("stdout", "x\n")
    until(lambda: post.batches)
    # With ten minutes to wait this test would not end in time.
    assert shipper.end(printer, moment=600) == []
    assert not post.text()
    post.errors.clear()
    until(lambda: post.text() == "x\n")


def test_nobody_waits_long_for_one_that_does_not_answer() -> None:
    post = Post()
    post.gate.clear()
    shipper = Shipper(post, "w", pause=0.001)
    printer = printer_of(shipper)
    printer.log("stdout", "x\n")
    until(lambda: post.asked)
    assert shipper.end(printer, moment=0.01) == []
    assert not post.chunks
    post.gate.set()
    until(lambda: post.text() == "x\n")


def test_of_too_much_for_one_that_is_away_the_oldest_is_lost_and_said_so() -> None:
    post = Post()
    post.gate.clear()
    shipper = Shipper(post, "w", pause=0.001, kept=40 * 1024)
    one = printer_of(shipper, pointer=PLACE._replace(step="one"))
    two = printer_of(shipper, pointer=PLACE._replace(step="two"))
    one.log("stdout", "on its way\n")
    until(lambda: post.asked)
    for number in range(1000):
        # The other stream in between makes each line a piece of its own.
        one.log("stdout", f"{number}\n")
        one.log("stderr", "-\n")
    two.log("stdout", "short\n")
    for printer in (one, two):
        shipper.abandon(printer)
    post.gate.set()
    until(lambda: shipper.is_idle)
    text = post.text("stdout", one.pointer)
    assert text.startswith("on its way\n")
    assert text.endswith("998\n999\n")
    assert (text + post.text("stderr", one.pointer)).count(LOST) == 1
    assert len(post.chunks) < 50
    assert post.text(pointer=two.pointer) == "short\n"
    indexes = [chunk.index for chunk in post.chunks if chunk.step == "one"]
    assert indexes == sorted(set(indexes))


def test_what_is_refused_is_given_up_and_the_next_goes() -> None:
    post = Post([BadRequestError("not this")])
    shipper = Shipper(post, "w", pause=0.001)
    first, second = printer_of(shipper), printer_of(shipper)
    first.log("stdout", "refused\n")
    shipper.abandon(first)
    until(lambda: shipper.is_idle)
    second.log("stdout", "taken\n")
    shipper.abandon(second)
    until(lambda: shipper.is_idle)
    assert post.text() == "taken\n"


def test_many_attempts_at_once_each_in_its_order() -> None:
    post = Post()
    shipper = Shipper(post, "w", pause=0.001)
    places = [PLACE._replace(step=f"s{number}") for number in range(16)]

    def work(place: Pointer) -> None:
        printer = printer_of(shipper, pointer=place)
        for number in range(200):
            printer.log(("stdout", "stderr")[number % 2], f"{number}\n")
        post.chunks.extend(shipper.end(printer, moment=60))
        assert post.text(pointer=place).count("\n") == 200

    threads = [threading.Thread(target=work, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place in places:
        assert post.text(pointer=place) == "".join(f"{number}\n" for number in range(200))
    assert post.batches < 16 * 200


# ---------------------------------------------------------------------- with the runner
@dataclass(frozen=True, slots=True)
class Silent(Desk):
    """A control plane that takes no output: it lets it wait, or says that it is away."""

    post: Post

    def logs(self, batch: LogBatch) -> LogAnswer:
        self.post(batch)
        return LogAnswer(accepted=len(batch.chunks))


PRINTS = """
workflow:
- step: start
  tool:
    kind: python
    auth: vault
    code: |
      %s
"""


@pytest.fixture
def plane(make_bench: Callable[..., Bench]) -> Bench:  # noqa: F811 (the fixture's value)
    return make_bench()


def run(plane: Bench, code: str, work: Worked | None = None) -> tuple[int, Any]:
    """The execution of a playbook with one step, and the event that ended the step."""
    execution_id = plane.start(PRINTS % code.replace("\n", "\n      "))
    (pointer,) = plane.advance(execution_id)
    secrets = {"vault": f'{{"token": "{SECRET}"}}'}
    desk = work or Desk(plane.control)
    Runner(desk, load({}).settings, ToolKinds(), secrets, name="w1").run(pointer)
    return execution_id, plane.log(execution_id)[-1].event


def test_secrets_that_a_step_prints_stay_with_the_worker(plane: Bench) -> None:
    code = """
import sys
token = {{ auth.token }}
print("a", token)
print(token, file=sys.stderr)
print(token, end="")
raise ValueError(token)
"""
    execution_id, event = run(plane, code)
    assert event.type == "step.failed", event
    told = dict.fromkeys(("stdout", "stderr"), "")
    for _, piece in plane.control.output.page(execution_id, Selection()).pieces:
        told[piece.stream] += piece.text
    assert told["stdout"] == f"a {MASK}\n{MASK}"
    assert told["stderr"].startswith(f"{MASK}\nTraceback")
    assert SECRET not in str((told, event))
    assert MASK in event.tail


def test_all_of_it_is_there_when_the_step_has_ended(plane: Bench) -> None:
    execution_id, event = run(plane, "for number in range(30_000): print(number)")
    assert event.type == "step.done", event
    pieces = plane.control.output.page(execution_id, Selection(stream="stdout")).pieces
    text = "".join(kept.printed.text for kept in pieces)
    assert text == "".join(f"{number}\n" for number in range(30_000))
    assert event.tail == text[-2000:]


def test_what_a_step_says_in_a_few_words_goes_along_with_its_report() -> None:
    post = Post()
    shipper = Shipper(post, "w", pause=600)
    printer = printer_of(shipper, SECRET)
    printer.log("stdout", f"hello {SECRET}")
    assert [piece.text for piece in shipper.end(printer)] == [f"hello {MASK}"]
    assert post.asked == 0


@pytest.mark.parametrize("how", ["hangs", "is away"])
def test_a_step_neither_waits_nor_fails_where_nobody_takes_its_output(
    plane: Bench, how: str
) -> None:
    post = Post([UnavailableError("away")] * 1_000)
    if how == "hangs":
        post.gate.clear()
    work = Silent(plane.control, post)
    _, event = run(plane, "for number in range(20_000): print(number)", work)
    assert (event.type, event.tail[-6:]) == ("step.done", "19999\n")
    assert not post.chunks
    post.errors.clear()
    post.gate.set()
    whole = "".join(f"{number}\n" for number in range(20_000))
    until(lambda: post.text() == whole)
