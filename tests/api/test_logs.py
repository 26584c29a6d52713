"""Log lines: their two forms, what is bound to them, and what never gets into them."""

from __future__ import annotations

import io
import json
import logging
import warnings
from typing import Any

import pytest
import structlog

from app.errors import StartupError
from app.settings import Settings
from app.telemetry.logs import MASK, Masker, about, conceal, configure

SECRETS = Settings(
    api_token="api-secret-1",
    worker_token="worker-secret-2",
    worker_tokens="gpu=pool-secret-3,cpu=pool-secret-4",
    database_url="postgresql://u:db%2Fsecret5@h/db",
    postgres_password="pg-secret-6",
    nats_url="nats://n:nats-secret-7@h:4222",
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(settings: Settings = SECRETS) -> tuple[io.StringIO, Any]:
    """A stream that log lines go to as JSON, and a function that reads those so far."""
    out = io.StringIO()
    configure(settings, stream=out)
    return out, lambda: [json.loads(line) for line in out.getvalue().splitlines()]


def test_lines_are_json_where_nobody_looks() -> None:
    _, read = lines()
    structlog.get_logger("app.x").info("step.done", count=3)
    (line,) = read()
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "step.done", "count": 3, "level": "info", "logger": "app.x"}


def test_lines_are_text_on_a_terminal_and_as_configured() -> None:
    for settings, out, is_json in (
        (Settings(), Terminal(), False),
        (Settings(log_format="json"), Terminal(), True),
        (Settings(log_format="console"), io.StringIO(), False),
        (Settings(), io.StringIO(), True),
    ):
        configure(settings, stream=out)
        structlog.get_logger("app.x").info("hello", count=3)
        assert out.getvalue().startswith("{") is is_json
        assert "hello" in out.getvalue()
        assert ("\x1b[" in out.getvalue()) is (out.isatty() and not is_json)


def test_the_level_is_respected() -> None:
    _, read = lines(Settings(log_level="WARNING"))
    log = structlog.get_logger("app.x")
    log.info("quiet")
    log.warning("loud")
    logging.getLogger("dramatiq").info("quiet")
    logging.getLogger("dramatiq").error("loud too")
    assert [line["event"] for line in read()] == ["loud", "loud too"]


def test_libraries_go_the_same_way_once() -> None:
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(io.StringIO()))
    _, read = lines()
    logging.getLogger("uvicorn.error").info(
        "Started server process [%d]", 7, extra={"color_message": "\x1b[36m", "port": 1}
    )
    logging.getLogger("sqlalchemy.engine").info("SELECT 1")
    (line,) = read()
    assert line["event"] == "Started server process [7]"
    assert (line["logger"], line["level"], line["port"]) == ("uvicorn.error", "info", 1)
    assert "color_message" not in line


def test_warnings_become_lines() -> None:
    _, read = lines()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", stacklevel=1)
    (line,) = read()
    assert "old thing" in line["event"]
    assert line["level"] == "warning"


def test_configuring_twice_does_not_write_twice() -> None:
    lines()
    _, read = lines()
    structlog.get_logger().info("once")
    assert len(read()) == 1


def test_execution_and_step_are_bound_to_every_line_inside() -> None:
    _, read = lines()
    log = structlog.get_logger("app.x")
    with about(7, "fetch", attempt=2):
        log.info("ours")
        logging.getLogger("dramatiq").info("theirs")
    with about(8):
        log.info("no step")
    log.info("outside")
    ours, theirs, no_step, outside = read()
    for line in (ours, theirs):
        assert (line["execution_id"], line["step"], line["attempt"]) == (7, "fetch", 2)
    assert (no_step["execution_id"], "step" in no_step) == (8, False)
    assert "execution_id" not in outside


CANARIES = [
    "api-secret-1",
    "worker-secret-2",
    "pool-secret-3",
    "pool-secret-4",
    "db%2Fsecret5",
    "db/secret5",
    "pg-secret-6",
    "nats-secret-7",
]


@pytest.mark.parametrize("secret", CANARIES)
def test_a_secret_setting_is_masked_wherever_it_hides(secret: str) -> None:
    out, _ = lines()
    log = structlog.get_logger("app.x")
    log.info(f"connecting with {secret}")  # noqa: G004 (a secret inside the event's own text)
    log.info("deep", data={"list": [("x", f"<{secret}>")], "object": ValueError(secret)})
    log.info("positional %s", secret)
    logging.getLogger("dramatiq").warning("failed: %s", secret, extra={"more": secret})
    try:
        raise ValueError(f"bad {secret}")
    except ValueError:
        log.exception("failed")
        logging.getLogger("dramatiq").exception("failed")
    assert len(out.getvalue().splitlines()) == 6
    assert secret not in out.getvalue()
    assert out.getvalue().count(MASK) >= 7
    assert "Traceback" in out.getvalue()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("to postgresql://user:pw@h:5/db now", f"to postgresql://user:{MASK}@h:5/db now"),
        ("nats://:pw@h", f"nats://:{MASK}@h"),
        ("http://h/x?token=abc&n=1", f"http://h/x?token={MASK}&n=1"),
        ("postgresql://h/db?user=u&password=abc", f"postgresql://h/db?user=u&password={MASK}"),
        ("Authorization: Bearer abcdef.123", f"Authorization: Bearer {MASK}"),
        ("http://h:8082/a@b", "http://h:8082/a@b"),
        ("nothing to hide: a=1", "nothing to hide: a=1"),
    ],
)
def test_secrets_that_no_setting_knows(text: str, masked: str) -> None:
    assert Masker(set()).mask(text) == masked


@pytest.mark.parametrize(
    "name", ["password", "DB_PASSWORD", "token", "client_secret", "Authorization", "api_key"]
)
def test_values_under_telling_names_are_masked(name: str) -> None:
    event = Masker(set())(None, "info", {"event": "x", name: "v", "in": {name: ["v"], "empty": ""}})
    assert event == {"event": "x", name: MASK, "in": {name: MASK, "empty": ""}}


def test_short_values_do_not_mask_ordinary_words() -> None:
    assert Masker({"a", "db"}).mask("a database") == "a database"


def test_values_too_short_to_mask_push_no_secret_out() -> None:
    conceal("a-secret-of-a-step")
    for _ in range(1000):
        conceal("x")
    assert "a-secret-of-a-step" not in Masker(set()).mask("it is a-secret-of-a-step")


def test_masking_leaves_numbers_and_structure_alone() -> None:
    event = {"event": "x", "n": 1, "f": 1.5, "b": True, "none": None, "list": [1, {"a": "b"}]}
    assert Masker({"secret"})(None, "info", dict(event)) == event


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (Settings(log_level="loud"), "CALLBOARD_LOG_LEVEL"),
        (Settings(log_format="xml"), "CALLBOARD_LOG_FORMAT"),
    ],
)
def test_a_wrong_setting_is_named(settings: Settings, name: str) -> None:
    with pytest.raises(StartupError) as caught:
        configure(settings, stream=io.StringIO())
    assert name in str(caught.value)
