"""Nothing secret reaches the log, by whatever way it came."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import jwt
import pytest
import structlog

from mixer import log

TOKEN = jwt.encode({"sub": "ann"}, "k" * 32, algorithm="HS256")
ADMIN = "plainLookingAdminToken0"
PIN = "48151623"


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    log.configure(level="debug", style="json", secrets=[ADMIN, "abc"], stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_time_level_and_name(out: io.StringIO) -> None:
    structlog.get_logger("mixer.test").info("room.created", room="demo", people=3)
    (line,) = lines(out)
    assert (line["event"], line["room"], line["people"], line["level"]) == ("room.created", "demo", 3, "info")
    assert line["logger"] == "mixer.test"
    assert str(line["timestamp"]).endswith("Z")


@pytest.mark.parametrize(
    "fields",
    [
        {"token": TOKEN},
        {"access_token": "opaque"},
        {"moderator_pin": PIN, "pin": PIN},
        {"Authorization": f"Bearer {TOKEN}"},
        {"url": f"/v1/recordings/x/media?access_token={TOKEN}&download=1"},
        {"url": "/media?access_token=opaque"},
        {"header": "Bearer opaque"},
        {"text": f"the admin's is {ADMIN}."},
        {"body": {"name": "demo", "pin": PIN}},
        {"body": json.dumps({"name": "demo", "pin": PIN})},
        {"body": [{"token": "opaque"}, (f"pin={PIN}",)]},
        {"body": repr({"pin": PIN})},
        {"error": ValueError(f"pin: {PIN}")},
        {"sdp": "a=ice-ufrag:abcd\r\na=ice-pwd:opaque0123456789opaque"},
        {"text": f"authorization: Bearer {TOKEN}"},
    ],
)
def test_secrets_are_cut_out_of_fields(out: io.StringIO, fields: dict[str, object]) -> None:
    structlog.get_logger("mixer.test").info("something", **fields)
    text = out.getvalue()
    for secret in (TOKEN, TOKEN.split(".")[1], ADMIN, PIN, "opaque"):
        assert secret not in text
    assert log.REDACTED in text


def test_secrets_are_cut_out_of_messages_and_tracebacks_of_others(out: io.StringIO) -> None:
    other = logging.getLogger("aiohttp.access")
    other.warning("GET /media?access_token=%s", TOKEN)

    def fail() -> None:
        raise RuntimeError(f"rejected Bearer {TOKEN} of {ADMIN}, pin={PIN}")

    try:
        fail()
    except RuntimeError:
        other.exception("failed", extra={"password": "opaque"})
    text = out.getvalue()
    for secret in (TOKEN, ADMIN, PIN, "opaque"):
        assert secret not in text
    assert "RuntimeError" in text
    assert len(lines(out)) == 2


def test_ordinary_words_stay(out: io.StringIO) -> None:
    text = "spinning up abc; token expired; pins of the layout; max_tokens"
    structlog.get_logger("mixer.test").info(text, pinned="yes", participants=["ann"], mapping={"volume": 1.0})
    (line,) = lines(out)
    assert (line["event"], line["pinned"], line["participants"]) == (text, "yes", ["ann"])
    assert line["mapping"] == {"volume": 1.0}


def test_levels(out: io.StringIO) -> None:
    log.configure(level="warning", style="json", stream=out)
    structlog.get_logger("mixer.test").info("unheard")
    logging.getLogger("other").info("unheard")
    logging.getLogger("aioice.ice").warning("heard")
    assert [line["event"] for line in lines(out)] == ["heard"]


def test_the_console_is_for_people_and_just_as_silent(out: io.StringIO) -> None:
    log.configure(style="console", stream=out)
    structlog.get_logger("mixer.test").info("room.created", pin=PIN, room="demo")
    assert "room.created" in out.getvalue()
    assert PIN not in out.getvalue()
