"""The gate's own log as text for people."""

import asyncio
import io
import logging
import os
import pty

import pytest
from terminals import all_of

from tailchat_gate.observe.log import TextFormatter, close_logging, set_up_logging
from tailchat_gate.observe.text_lines import in_colour, is_text


def _record(message: str, **details: object) -> logging.LogRecord:
    record = logging.LogRecord("tailchat_gate", logging.WARNING, "", 1, message, (), None)
    record.created = 1_800_000_000.0
    record.__dict__["details"] = details
    return record


def test_a_line_for_people() -> None:
    """It has the time, the level, the message and each detail."""
    line = TextFormatter(colour=False).format(_record("a tool is down", upstream="http://a", n=3))

    assert line == "2027-01-15T08:00:00Z warning a tool is down upstream=http://a n=3"


@pytest.mark.parametrize("odd", ["\n2027 error forged", "\x1b[2J", "\x9b2J", "\u202e", "\u2028x"])
def test_nothing_in_it_is_obeyed_by_a_terminal(odd: str) -> None:
    """Line breaks, escape sequences and turned text are escaped, in messages and details."""
    line = TextFormatter(colour=False).format(_record(f"m{odd}", name=f"v{odd}"))

    assert line.isprintable()
    assert 'name="' in line or "name=v" in line


def test_a_traceback_is_below_its_line() -> None:
    """Each line of it is indented, so that none looks like a line of the log."""
    record, error = _record("failed"), ValueError("no\nsecond")
    record.exc_info = (ValueError, error, None)
    first, *rest = TextFormatter(colour=False).format(record).split("\n")

    assert first == "2027-01-15T08:00:00Z warning failed"
    assert all(line.startswith("    ") for line in rest)
    assert rest[-2:] == ["    ValueError: no", "    second"]


def test_colour_is_for_terminals_alone() -> None:
    """A pipe gets JSON without colour, a terminal text; NO_COLOR and a dumb terminal get none."""
    reader, writer = os.pipe()
    master, slave = pty.openpty()
    try:
        assert [is_text(form, writer) for form in ("auto", "json", "text")] == [False, False, True]
        assert [is_text(form, slave) for form in ("auto", "json", "text")] == [True, False, True]
        assert [in_colour(end, {}) for end in (writer, slave)] == [False, True]
        assert not in_colour(slave, {"NO_COLOR": "1"})
        assert in_colour(slave, {"NO_COLOR": ""})
        assert not in_colour(slave, {"TERM": "dumb"})
    finally:
        for end in (reader, writer, master, slave):
            os.close(end)


async def test_the_gates_own_log_on_a_terminal() -> None:
    """With "auto" its lines are coloured text there."""
    master, slave = await asyncio.to_thread(pty.openpty)
    try:
        await asyncio.to_thread(set_up_logging, "info", descriptor=slave, form="auto")
        logging.getLogger("tailchat_gate").warning("look here")
        await asyncio.to_thread(close_logging)
    finally:
        os.close(slave)
    line = await asyncio.to_thread(all_of, master)
    os.close(master)

    assert line.endswith(b" \x1b[33mwarning\x1b[0m look here\r\n")
    assert io.BytesIO(line).readline() == line
