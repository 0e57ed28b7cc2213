import json
import logging
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.observe.log import (
    LOGGER_NAME,
    JsonFormatter,
    close_logging,
    set_up_logging,
    trace,
)


def make_record(message: str, *args: object, **attributes: object) -> logging.LogRecord:
    """Return a log record of a fixed time."""
    record = logging.LogRecord("x", logging.WARNING, "p", 1, message, args, None)
    record.created, record.msecs = 1_800_000_000.25, 250.0
    vars(record).update(attributes)
    return record


def formatted(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a formatted record."""
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert "\n" not in line
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def test_a_destructor_at_the_very_end_holds_up_no_process() -> None:
    """What it says is lost: the thread that writes lines is gone by then, and none can begin."""
    program = """
from tailchat_gate.observe.log import close_logging, log_python_faults, set_up_logging

class Late:
    def __del__(self):
        raise RuntimeError("late")

set_up_logging("info")
log_python_faults()
late = Late()
close_logging()
"""
    done = subprocess.run(
        (sys.executable, "-c", program), capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_line() -> None:
    """A record is one line with its time, level and message."""
    assert formatted(make_record("%s went %d", "it", 7)) == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "warning",
        "message": "it went 7",
    }


def test_details() -> None:
    """Details are fields of the line, whatever type they are of; other extras are left out."""
    record = make_record("m", details={"route": "tool", "odd": object}, other="x")

    assert formatted(record) == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "warning",
        "message": "m",
        "route": "tool",
        "odd": "<class 'object'>",
    }
    assert "details" not in formatted(make_record("m", details="text"))


def test_traceback_is_a_field() -> None:
    """A traceback is inside the line, not behind it."""
    error = ValueError("wrong\nthing")
    record = make_record("failed", exc_info=(ValueError, error, None))

    assert "ValueError: wrong\nthing" in formatted(record)["traceback"]


@given(text=st.text())
def test_no_text_forges_a_line(text: str) -> None:
    """Any text in a message or a detail stays inside one line of ASCII."""
    found = formatted(make_record("%s", text, details={"detail": text}))

    assert found["message"] == found["detail"] == text


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level(level: str, shown: list[str]) -> None:
    """The gate's messages are shown from the level upwards, other libraries' from warning."""
    reader, writer = os.pipe()
    set_up_logging(level, descriptor=writer)
    own, other = logging.getLogger(f"{LOGGER_NAME}.x"), logging.getLogger("another-library")
    for name in ("debug", "info", "warning", "error"):
        getattr(own, name)("own")
        getattr(other, name)("other")
    close_logging()
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        lines = [json.loads(line) for line in file]

    assert [line["level"] for line in lines if line["message"] == "own"] == shown
    assert [line["level"] for line in lines if line["message"] == "other"] == ["warning", "error"]


def test_standard_error_and_one_handler(capfd: pytest.CaptureFixture[str]) -> None:
    """Without a stream it is standard error; set up twice, a message still is one line."""
    set_up_logging("info")
    set_up_logging("info")
    logging.getLogger(LOGGER_NAME).info("hello")
    close_logging()
    captured = capfd.readouterr()

    assert captured.out == ""
    assert [json.loads(line)["message"] for line in captured.err.splitlines()] == ["hello"]


def _fail() -> None:
    try:
        dict[str, str]()["first"]
    except KeyError as error:
        raise ExceptionGroup("both", [ValueError("second")]) from error


def test_a_traceback_reads_no_file() -> None:
    """It names files and lines, causes before what they caused, and shows no source line."""
    text = ""
    try:
        _fail()  # not-in-the-log
    except ExceptionGroup as error:
        text = trace(error)

    assert text.index("KeyError: 'first'") < text.index("direct cause") < text.index("both")
    assert text.endswith("ValueError: second")
    assert f'File "{__file__}", line ' in text
    assert "not-in-the-log" not in text
