"""What steps print over HTTP: taken from workers that may, read page by page, as JSON and as text."""

from __future__ import annotations

import threading
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from app.client import Client
from app.errors import NotFoundError
from app.wire import LogBatch, LogChunk
from tests.api.plane import CHAIN, Plane, build, served

AT = 1_800_000_000.25


def chunk(pointer: dict[str, Any], index: int = 0, text: str = "hello\n", **more: Any) -> Any:
    return {**pointer, "index": index, "stream": "stdout", "text": text, "at": AT, **more}


def post(http: TestClient, *chunks: Any) -> Any:
    return http.post("/api/worker/logs", json={"worker": "w", "chunks": list(chunks)})


def read(http: TestClient, execution_id: int, **query: Any) -> Any:
    answer = http.get(f"/api/executions/{execution_id}/logs", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def started(plane: Plane) -> tuple[int, dict[str, Any]]:
    """An execution and its first attempt."""
    execution_id = plane.started()
    (pointer,) = plane.pointers()
    return execution_id, pointer


def test_what_is_printed_is_there_at_once(http: TestClient, started: Any) -> None:
    execution_id, pointer = started
    assert post(http, chunk(pointer)).json() == {"accepted": 1, "refused": 0}
    answer = read(http, execution_id)
    assert answer["execution_id"] == str(execution_id)
    assert answer["ended"] is False
    assert answer["chunks"] == [
        {
            "step": "start",
            "visit": 1,
            "iteration": -1,
            "attempt": 1,
            "stream": "stdout",
            "text": "hello\n",
            "at": "2027-01-15T08:00:00.250000Z",
        }
    ]


def test_what_is_sent_twice_is_there_once(http: TestClient, started: Any) -> None:
    execution_id, pointer = started
    for _ in range(2):
        assert post(http, chunk(pointer), chunk(pointer, 1)).json()["accepted"] == 2
    assert len(read(http, execution_id)["chunks"]) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"step": "work"},
        {"attempt": 2},
        {"attempt": 0},
        {"visit": 2},
        {"iteration": 0},
        {"execution_id": 1},
    ],
)
def test_an_attempt_that_was_never_scheduled_has_no_output(
    http: TestClient, started: Any, change: Any
) -> None:
    execution_id, pointer = started
    answer = post(http, chunk({**pointer, **change}), chunk(pointer)).json()
    assert answer == {"accepted": 1, "refused": 1}
    assert len(read(http, execution_id)["chunks"]) == 1


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"stream": "stdin"}, "chunks.0.stream"),
        ({"index": -1}, "chunks.0.index"),
        ({"at": "yesterday"}, "chunks.0.at"),
        ({"text": "x" * 1_048_577}, "chunks.0.text"),
        ({"text": None}, "chunks.0.text"),
    ],
)
def test_a_wrong_piece_is_refused_by_its_key(
    http: TestClient, started: Any, change: Any, key: str
) -> None:
    answer = post(http, {**chunk(started[1]), **change})
    assert answer.status_code == 422
    assert key in answer.json()["detail"]


def test_output_is_read_page_by_page(http: TestClient, started: Any) -> None:
    execution_id, pointer = started
    post(http, *(chunk(pointer, index, f"{index}\n") for index in range(5)))
    seen, after = [], "0"
    for _ in range(3):
        page = read(http, execution_id, limit=2, after=after)
        seen.append([each["text"] for each in page["chunks"]])
        after = page["next"]
    assert seen == [["0\n", "1\n"], ["2\n", "3\n"], ["4\n"]]
    assert read(http, execution_id, after=after)["next"] == after


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["1", "2", "3"]),
        ({"step": "start"}, ["1"]),
        ({"step": "work", "iteration": 1}, ["3"]),
        ({"stream": "stderr"}, ["2"]),
        ({"attempt": 2}, []),
        ({"visit": 1, "step": "work"}, ["2", "3"]),
    ],
)
def test_output_is_chosen_by_whose_it_is(
    plane: Plane, http: TestClient, started: Any, query: Any, expected: list[str]
) -> None:
    execution_id, pointer = started
    post(http, chunk(pointer, text="1"))
    key = plane.key()
    http.post("/api/worker/claim", json={"worker": "w", "claims": [{**pointer, "key": key}]})
    done = {**pointer, "key": key, "outcome": "done", "result": {}}
    http.post("/api/worker/report", json={"worker": "w", "reports": [done]})
    plane.control.advance.advance(execution_id)
    first, second, _ = plane.pointers()
    post(http, chunk(first, text="2", stream="stderr"), chunk(second, text="3"))
    assert [each["text"] for each in read(http, execution_id, **query)["chunks"]] == expected


def test_it_has_ended_when_the_execution_has_and_all_is_read(
    plane: Plane, http: TestClient
) -> None:
    execution_id = plane.started()
    (pointer,) = plane.pointers()
    post(http, *(chunk(pointer, index) for index in range(3)))
    plane.control.executions.cancel(execution_id)
    first = read(http, execution_id, limit=2)
    assert (len(first["chunks"]), first["ended"]) == (2, False)
    rest = read(http, execution_id, limit=2, after=first["next"])
    assert (len(rest["chunks"]), rest["ended"]) == (1, True)
    # Nobody waits for what will not come.
    assert read(http, execution_id, after=rest["next"], wait=30)["ended"] is True


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (0, ""),
        (1, "c\n"),
        (2, "b\nc\n"),
        (3, "a2\nb\nc\n"),
        (4, "a1\na2\nb\nc\n"),
        (99, "a1\na2\nb\nc\n"),
    ],
)
def test_the_last_lines(http: TestClient, started: Any, tail: int, expected: str) -> None:
    execution_id, pointer = started
    texts = ["a1\na2\n", "b\n", "c\n"]
    post(http, *(chunk(pointer, index, text) for index, text in enumerate(texts)))
    page = read(http, execution_id, tail=tail)
    assert "".join(each["text"] for each in page["chunks"]) == expected
    # From there it goes on with what comes next.
    assert read(http, execution_id, after=page["next"])["chunks"] == []


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/executions/4711/logs", 404, "there is no execution 4711"),
        ("/api/executions/0/logs", 422, "execution_id"),
        ("/api/executions/4711/logs?wait=31", 422, "wait"),
        ("/api/executions/4711/logs?stream=both", 422, "stream"),
        ("/api/executions/4711/logs?after=-1", 422, "after"),
        ("/api/executions/4711/logs?tail=-1", 422, "tail"),
    ],
)
def test_a_wrong_question_is_answered(
    looker: TestClient, path: str, status: int, said: str
) -> None:
    answer = looker.get(path)
    assert answer.status_code == status
    assert said in answer.json()["detail"]


def test_whoever_waits_hears_at_once(plane: Plane, client: Client) -> None:
    execution_id = plane.started()
    (pointer,) = plane.pointers()
    answers: list[Any] = []

    def wait() -> None:
        # Without the news it would be answered too late for the client.
        answers.append(client.output(execution_id, wait=30))

    waiting = threading.Thread(target=wait)
    waiting.start()
    client.logs(LogBatch(worker="w", chunks=[LogChunk(**chunk(pointer))]))
    waiting.join()
    assert [each["text"] for each in answers[0]["chunks"]] == ["hello\n"]


# ---------------------------------------------------------------------- with a report
def ended(http: TestClient, pointer: dict[str, Any], *output: Any) -> Any:
    """The answer to a claim and a report that takes *output* along."""
    http.post("/api/worker/claim", json={"worker": "w", "claims": [{**pointer, "key": "k"}]})
    done = {**pointer, "key": "k", "outcome": "done", "result": 1, "output": list(output)}
    return http.post("/api/worker/report", json={"worker": "w", "reports": [done]})


def test_a_report_takes_the_last_words_along(http: TestClient, started: Any) -> None:
    execution_id, pointer = started
    post(http, chunk(pointer, 0, "early\n"))
    for _ in range(2):
        answer = ended(http, pointer, chunk(pointer, 0, "early\n"), chunk(pointer, 1, "late"))
        assert answer.json()["answers"][0]["accepted"]
    assert [each["text"] for each in read(http, execution_id)["chunks"]] == ["early\n", "late"]
    # Of what it printed the log of events has nothing.
    events = http.get(f"/api/executions/{execution_id}/events").text
    assert "late" not in events


def test_a_report_counts_whatever_becomes_of_its_words(http: TestClient, started: Any) -> None:
    execution_id, pointer = started
    answer = ended(http, pointer, chunk(pointer, 0, "no column\0 holds this"))
    assert answer.json()["answers"][0]["accepted"]
    assert read(http, execution_id)["chunks"] == []


def test_our_client_tells_what_the_server_says(client: Client) -> None:
    with pytest.raises(NotFoundError, match="there is no execution 4711"):
        client.output(4711)


# ---------------------------------------------------------------------- as text
def text(http: TestClient, execution_id: int, **query: Any) -> str:
    answer = http.get(
        f"/api/executions/{execution_id}/logs", params=query, headers={"accept": "text/plain"}
    )
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    return answer.text


def test_as_text_each_line_begins_with_its_step(http: TestClient, started: Any) -> None:
    execution_id, pointer = started
    post(
        http,
        chunk(pointer, 0, "a\n\nb"),
        chunk(pointer, 1, "oth\n"),
        chunk(pointer, 2, "half"),
        chunk(pointer, 3, "an error\n", stream="stderr"),
        chunk(pointer, 4, "more"),
    )
    assert text(http, execution_id) == (
        "start | a\nstart | \nstart | both\nstart | half\nstart | an error\nstart | more"
    )
    assert text(http, execution_id, step="start") == "a\n\nboth\nhalf\nan error\nmore"
    assert text(http, execution_id, stream="stderr") == "start | an error\n"
    assert text(http, execution_id, tail=1) == "start | more"


def test_as_text_it_is_all_there_is(http: TestClient, started: Any) -> None:
    execution_id, pointer = started
    for first in range(0, 900, 300):
        post(http, *(chunk(pointer, n, f"{n}\n") for n in range(first, first + 300)))
    whole = "".join(f"{number}\n" for number in range(900))
    assert text(http, execution_id, step="start") == whole
    assert text(http, execution_id, step="start", limit=2) == "0\n1\n"


def test_as_text_an_unknown_execution_is_a_problem(looker: TestClient) -> None:
    answer = looker.get("/api/executions/4711/logs", headers={"accept": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


# ---------------------------------------------------------------------- who may
@pytest.fixture
def guarded() -> Plane:
    built = build(api_token="client", worker_tokens="default=ours,other=theirs")
    built.control.catalog.register(CHAIN)
    return built


def test_a_pool_writes_for_its_own_steps_only(guarded: Plane) -> None:
    execution_id = guarded.started()
    (pointer,) = guarded.pointers()
    refused = post(guarded.client("theirs"), chunk(pointer))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert read(guarded.client("client"), execution_id)["chunks"] == []
    assert post(guarded.client("ours"), chunk(pointer)).json()["accepted"] == 1
    # What is known of the attempt by now opens no door either.
    assert post(guarded.client("theirs"), chunk(pointer, 1)).status_code == 403
    assert len(read(guarded.client("client"), execution_id)["chunks"]) == 1


def test_a_worker_reads_no_output(guarded: Plane) -> None:
    execution_id = guarded.started()
    answer = guarded.client("ours").get(f"/api/executions/{execution_id}/logs")
    assert answer.status_code == 403


def test_a_follower_that_went_away_is_not_waited_for(plane: Plane) -> None:
    execution_id = plane.started()
    with served(plane.app) as url:
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.get(f"{url}/api/executions/{execution_id}/logs?wait=30", timeout=0.05)
        with Client(url) as patient:
            assert patient.output(execution_id)["chunks"] == []
