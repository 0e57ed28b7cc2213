import asyncio
import json
import os
import pty
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from gatekit import START, Clock, until
from hypothesis import given, settings
from hypothesis import strategies as st
from terminals import all_of

from tailchat_gate.observe import access_log, sink
from tailchat_gate.observe.access_log import FLUSH_SECONDS, AccessLog
from tailchat_gate.reasons import Reason
from tailchat_gate.request.client import ClientAddress
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.head import RequestHead
from tailchat_gate.request.recorded import DEFAULT_LOG_FIELDS, LogField, Trace
from tailchat_gate.request.target import Host, Original, Target

LOGS = Path(__file__).parents[2] / "docs/operate/logs.md"
FIELDS = [
    *("time", "id", "client", "method", "host", "path", "status", "reason", "route", "sub"),
    *("token", "bytes", "ms", "agent"),
]


def make_context(**values: str) -> RequestContext:
    """Return a visit with these texts."""
    fields = FieldSection([])
    fields.host = Host(b"", values.get("host", "gate.test"), "")
    fields.agent = values.get("agent", "curl")
    target = Target(b"", values.get("path", "/a"), "?code=secret")
    context = RequestContext(
        "0" * 24, 1.0, RequestHead(values.get("method", "GET"), False, target, fields)
    )
    context.client_address = ClientAddress(values.get("client", "203.0.113.9"), "https", "")
    context.reason, context.route = Reason.SIGNED_IN, values.get("route", "tool")
    context.sub, context.token, context.status = (
        values.get("sub", "s"),
        values.get("token", ""),
        200,
    )
    context.sent_bytes, context.seconds = 2, 0.01234
    return context


@dataclass
class Pipe:
    """A pipe that a log writes into."""

    reader: int
    writer: int

    def read(self) -> list[bytes]:
        """Return the lines until the writing end is closed."""
        os.close(self.writer)
        self.writer = -1
        with open(self.reader, "rb", closefd=False) as file:
            return file.read().splitlines(keepends=True)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Return a pipe."""
    made = Pipe(*os.pipe())
    yield made
    for descriptor in (made.reader, made.writer):
        if descriptor >= 0:
            os.close(descriptor)


@asynccontextmanager
async def open_log(path: Path, clock: Clock) -> AsyncIterator[AccessLog]:
    """Write a log to a file until the block ends."""
    descriptor = await asyncio.to_thread(os.open, path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    log = AccessLog(descriptor, clock)
    try:
        yield log
    finally:
        await log.close()
        await asyncio.to_thread(os.close, descriptor)


async def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log file."""
    data = await asyncio.to_thread(path.read_bytes)
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


async def test_every_key_is_documented(tmp_path: Path, clock: Clock) -> None:
    """The keys of a line are those of the table in docs/operate/logs.md, in order."""
    context = make_context()
    context.original = Original("PUT", context.head.fields.host, context.target)
    context.upstream, context.connect_seconds, context.first_byte_at = "[::1]:80", 0.1, 2.0
    context.limit = "requests_per_person"
    context.trace = Trace("4bf92f3577b34da6a3ce929d0e0e4736", "", b"")
    async with open_log(tmp_path / "log", clock) as log:
        log.choose(get_args(LogField))
        log.write(context)
    (line,) = await lines_of(tmp_path / "log")
    document = await asyncio.to_thread(LOGS.read_text, encoding="utf-8")
    section = document.split("## Access log")[1].split("\n## ")[0]

    assert list(line) == re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert list(line) == list(get_args(LogField))


async def test_line(tmp_path: Path, clock: Clock) -> None:
    """A request is one line of JSON with fixed fields in fixed order, without its query."""
    clock.now = START + 0.25
    async with open_log(tmp_path / "log", clock) as log:
        log.write(make_context())
    (line,) = await lines_of(tmp_path / "log")

    assert list(line) == FIELDS
    assert line == {
        "time": "2027-01-15T08:00:00.250Z",
        "id": "0" * 24,
        "client": "203.0.113.9",
        "method": "GET",
        "host": "gate.test",
        "path": "/a",
        "status": 200,
        "reason": "signed-in",
        "route": "tool",
        "sub": "s",
        "token": "",
        "bytes": 2,
        "ms": 12.34,
        "agent": "curl",
    }
    assert b"secret" not in await asyncio.to_thread((tmp_path / "log").read_bytes)


async def test_the_upstream_has_its_address_and_times(tmp_path: Path, clock: Clock) -> None:
    """A request that reached a tool says where, and how long that took."""
    used, opened = make_context(), make_context()
    for context in (used, opened):
        context.upstream, context.first_byte_at = "10.0.0.7:3000", 1.0025
    opened.connect_seconds, opened.upstream_at = 0.0015, 1.0015
    async with open_log(tmp_path / "log", clock) as log:
        for names in (DEFAULT_LOG_FIELDS, (*DEFAULT_LOG_FIELDS, "query")):
            log.choose(names)
            log.write(used)
            log.write(opened)
    lines = await lines_of(tmp_path / "log")

    for first, second in (lines[:2], lines[2:]):
        assert (first["upstream"], first["first_byte_ms"]) == ("10.0.0.7:3000", 2.5)
        assert "connect_ms" not in first
        assert (second["connect_ms"], second["first_byte_ms"]) == (1.5, 1.0)
    assert [line | {"query": "?code=secret"} for line in lines[:2]] == lines[2:]


async def test_only_chosen_fields_are_written(tmp_path: Path, clock: Clock) -> None:
    """The fields come in the chosen order; a query is on tools' requests alone."""
    own = make_context(route="")
    async with open_log(tmp_path / "log", clock) as log:
        log.choose(("status", "query", "path"))
        log.write(make_context())
        log.write(own)
    lines = await lines_of(tmp_path / "log")

    assert list(lines[0]) == ["status", "query", "path"]
    assert [line["query"] for line in lines] == ["?code=secret", ""]


async def test_lines_of_text(tmp_path: Path, clock: Clock) -> None:
    """As text a line has the same fields, and nothing a visitor sends can look like another one."""
    path = tmp_path / "log"
    descriptor = await asyncio.to_thread(os.open, path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    log = AccessLog(descriptor, clock, form="text")
    log.choose(("time", "status", "path", "agent"))
    log.write(make_context(path="/a", agent="x status=200\n\x1b[31m"))
    await log.close()
    await asyncio.to_thread(os.close, descriptor)
    text = await asyncio.to_thread(path.read_text)

    assert text == (
        '2027-01-15T08:00:00.000Z status=200 path=/a agent="x status=200\\n\\u001b[31m"\n'
    )


@pytest.mark.parametrize(("environ", "colour"), [({}, True), ({"NO_COLOR": "1"}, False)])
async def test_a_terminal_gets_text_in_colour(environ: dict[str, str], colour: bool) -> None:
    """With "auto" lines are text on a terminal, coloured by status unless NO_COLOR says no."""
    master, slave = await asyncio.to_thread(pty.openpty)
    try:
        log = AccessLog(slave, Clock(), form="auto", environ=environ)
        log.choose(("status", "path"))
        log.write(make_context())
        await log.close()
    finally:
        os.close(slave)
    line = await asyncio.to_thread(all_of, master)
    os.close(master)

    status = b"\x1b[32m200\x1b[0m" if colour else b"200"
    assert line == b"status=" + status + b" path=/a\r\n"


async def test_a_file_that_was_moved_is_opened_again(tmp_path: Path, clock: Clock) -> None:
    """Lines after a rotation are in the new file, those before it in the old one; none is lost."""
    path = tmp_path / "access.log"
    log = AccessLog(-1, clock, file=str(path))
    for number in range(3):
        log.write(make_context(path=f"/{number}"))
        log.flush()
        await until(lambda number=number: log.sink.written == number + 1)  # type: ignore[misc]
        await asyncio.to_thread(path.rename, tmp_path / f"access.log.{number}")
    await log.close()

    for number in range(3):
        (line,) = await lines_of(tmp_path / f"access.log.{number}")
        assert line["path"] == f"/{number}"


async def test_time_moves(tmp_path: Path, clock: Clock) -> None:
    """Each line has its own time, within one second and in the next."""
    async with open_log(tmp_path / "log", clock) as log:
        for now in (START, START + 0.5, START + 1, START + 60.75):
            clock.now = now
            log.write(make_context())

    assert [line["time"][17:] for line in await lines_of(tmp_path / "log")] == [
        *("00.000Z", "00.500Z", "01.000Z", "00.750Z")
    ]


def as_json(text: str) -> str:
    """Return a text as JSON carries it: two surrogates that make a pair are one character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


texts = st.dictionaries(
    st.sampled_from(["client", "method", "host", "path", "route", "sub", "token", "agent"]),
    st.one_of(
        st.text(max_size=40),
        st.text(st.characters(categories=("Cs", "Cc", "Zl", "Zp")), max_size=10),
        st.sampled_from(['"}\n{"status":200}', "\\", '\\"', "\r\n", "\x00", "</script>", "\u2028"]),
    ),
)


@given(found=st.lists(texts, min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_nothing_a_visitor_sends_forges_a_line(
    tmp_path_factory: pytest.TempPathFactory, found: list[dict[str, str]]
) -> None:
    """Whatever texts a request holds, it is exactly one line that says them, in ASCII."""
    path = tmp_path_factory.mktemp("log") / "log"

    async def write() -> None:
        async with open_log(path, Clock()) as log:
            for values in found:
                log.write(make_context(**values))

    asyncio.run(write())
    data = path.read_bytes()
    lines = data.split(b"\n")

    assert data.isascii()
    assert lines.pop() == b""
    assert len(lines) == len(found)
    for line, values in zip(lines, found, strict=True):
        said = json.loads(line)
        assert list(said) == FIELDS
        assert {name: said[name] for name in values} == {
            name: as_json(text) for name, text in values.items()
        }
        assert all(0x20 <= octet <= 0x7E for octet in line)


async def test_texts_are_cut(tmp_path: Path, clock: Clock) -> None:
    """A text of a megabyte takes no more than its share of the line."""
    async with open_log(tmp_path / "log", clock) as log:
        log.write(make_context(agent="\U0001f600" * 2**20, path="/" + "x" * 2**20))
    (line,) = await lines_of(tmp_path / "log")

    assert line["agent"] == "\U0001f600" * 1024
    assert line["path"] == "/" + "x" * 1023


async def test_timer_writes(tmp_path: Path, clock: Clock) -> None:
    """Lines are written together, when the first of them has waited long enough."""
    loop = asyncio.get_running_loop()
    async with open_log(tmp_path / "log", clock) as log:
        before = loop.time()
        log.write(make_context(path="/1"))
        timer = log._timer
        assert timer is not None
        assert before <= timer.when() - FLUSH_SECONDS <= loop.time()
        log.write(make_context(path="/2"))
        assert log._timer is timer
        assert log.sink.waiting == 0
        # The timer rings.
        timer._run()
        assert log._timer is None
        assert timer.cancelled()
        assert log._lines == []
        log.write(make_context(path="/3"))
        assert log._timer is not None

    assert [line["path"] for line in await lines_of(tmp_path / "log")] == ["/1", "/2", "/3"]


async def test_much_is_written_at_once(tmp_path: Path, clock: Clock) -> None:
    """A busy gate does not wait for the timer: what has gathered is handed over by its size."""
    async with open_log(tmp_path / "log", clock) as log:
        for index in range(2000):
            log.write(make_context(path=f"/{index}"))
            assert sum(map(len, log._lines)) < access_log._FLUSH_SIZE

    assert [line["path"] for line in await lines_of(tmp_path / "log")] == [
        f"/{index}" for index in range(2000)
    ]
    assert log.sink.lost == 0
    assert log.sink.written == 2000


async def test_blocked_reader_costs_lines_and_bounded_memory(pipe: Pipe, clock: Clock) -> None:
    """While nobody reads, lines up to a bound in bytes wait, the rest is dropped and counted."""
    log = AccessLog(pipe.writer, clock)
    for _ in range(6000):
        log.write(make_context(agent="\U0001f600" * 1024))
    log.flush()

    assert 0 < log.sink.lost < 6000
    assert log.sink.waiting <= sink.CAPACITY
    closing = asyncio.create_task(log.close())
    lines = await asyncio.to_thread(pipe_lines, pipe, 6000 - log.sink.lost)
    await closing

    assert len(lines) == 6000 - log.sink.lost
    assert sum(map(len, lines)) <= sink.CAPACITY
    assert all(json.loads(line)["status"] == 200 for line in lines)


def pipe_lines(pipe: Pipe, count: int) -> list[bytes]:
    """Read a number of lines from a pipe."""
    with open(pipe.reader, "rb", closefd=False) as file:
        return [file.readline() for _ in range(count)]


async def test_reader_that_is_gone(pipe: Pipe, clock: Clock) -> None:
    """A log that nobody can write any more stops no request and no later line."""
    os.close(pipe.reader)
    pipe.reader = -1
    log = AccessLog(pipe.writer, clock)
    log.write(make_context())
    log.flush()
    log.write(make_context())
    await log.close()

    assert (log.sink.waiting, log.sink.written, log.sink.lost) == (0, 0, 2)


async def test_close_does_not_wait_for_ever(pipe: Pipe, clock: Clock) -> None:
    """A reader that has stopped holds the end of the gate up for a limited time only."""
    log = AccessLog(pipe.writer, clock)
    for _ in range(1000):
        log.write(make_context(agent="x" * 1000))
    await log.close(0.01)

    assert log.sink.is_running
    await asyncio.to_thread(pipe_lines, pipe, 1000)
    assert await asyncio.to_thread(log.sink.close) == 0
    assert not log.sink.is_running


async def test_close_without_a_line(pipe: Pipe, clock: Clock) -> None:
    """A log that was never written to starts no thread and closes at once, twice too."""
    log = AccessLog(pipe.writer, clock)
    await log.close()
    await log.close()
    log.flush()

    assert not log.sink.is_running
    assert await asyncio.to_thread(pipe.read) == []


async def test_line_after_close(tmp_path: Path, clock: Clock) -> None:
    """A request that ends after the log was closed is written all the same."""
    async with open_log(tmp_path / "log", clock) as log:
        log.write(make_context(path="/1"))
        await log.close()
        log.write(make_context(path="/2"))
        log.flush()

    assert [line["path"] for line in await lines_of(tmp_path / "log")] == ["/1", "/2"]
