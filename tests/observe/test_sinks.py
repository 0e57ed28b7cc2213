"""Logs whose file hangs, is full or goes away: only lines are lost, and they are counted."""

import asyncio
import json
import os
import signal
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from gatekit import until
from processkit import GateProcess, gate_process

from tailchat_gate.observe import sink as sinks
from tailchat_gate.observe.sink import RotatedFile, Sink, SinkFile

#: The end of a process whose `shutdown_timeout` is one second, with time for a busy machine.
END_SECONDS = 20.0
#: Of refused sign-ins with one reason that many are told in the audit log each minute.
TOLD = 5


@dataclass
class Pipe:
    """A pipe whose reader is the test."""

    reader: int
    writer: int

    async def fill(self) -> None:
        """Leave no room in it."""
        os.set_blocking(self.writer, False)
        try:
            while True:
                os.write(self.writer, b" " * 4095 + b"\n")
        except BlockingIOError:
            os.set_blocking(self.writer, True)


@asynccontextmanager
async def pipe() -> AsyncIterator[Pipe]:
    """Open a pipe until the block ends."""
    found = Pipe(*os.pipe())
    try:
        yield found
    finally:
        for descriptor in (found.reader, found.writer):
            os.close(descriptor)


async def _ended(gate: GateProcess) -> int:
    """Order the gate to stop, and return its exit code."""
    gate.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(END_SECONDS):
        return await gate.process.wait()


async def _text(path: Path) -> str:
    return await asyncio.to_thread(path.read_text)


async def test_standard_error_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    """Callbacks of strangers that fill the pipe cost lines: /ping is answered, SIGTERM obeyed."""
    async with pipe() as errors, gate_process(tmp_path, stderr=errors.writer) as gate:
        await errors.fill()
        await gate.callbacks(400)

        assert (await gate.ping()).status == 200
        assert await _ended(gate) == 0


async def test_one_pipe_for_both_logs_that_nobody_reads(tmp_path: Path) -> None:
    """As above where standard output is the same full pipe, as in a container."""
    async with (
        pipe() as both,
        gate_process(tmp_path, stdout=both.writer, stderr=both.writer) as gate,
    ):
        await both.fill()
        await gate.callbacks(400)

        assert (await gate.ping()).status == 200
        assert await _ended(gate) == 0


async def test_no_line_of_one_log_is_within_one_of_the_other(tmp_path: Path) -> None:
    """Two logs of one pipe write whole lines, however slowly it is read."""
    async with (
        pipe() as both,
        gate_process(tmp_path, stdout=both.writer, stderr=both.writer) as gate,
    ):
        reading = asyncio.create_task(asyncio.to_thread(_until_end, both.reader))
        await asyncio.gather(*(gate.callbacks(200, size=1000) for _ in range(3)))
        # A gate that ends waits two seconds for a reader.
        while await gate.metric("gate_log_lines_total", sink="access") < 600:
            pass
        assert await _ended(gate) == 0
        os.write(both.writer, b"end\n")
        lines = await reading

    told = [json.loads(line) for line in lines]
    assert sum("agent" in line for line in told) == 600
    # Of refused sign-ins five a minute are told, and how many were left out.
    refused = [line for line in told if line.get("event") == "sign-in-refused"]
    left_out = [line for line in told if line.get("event") == "sign-ins-left-out"]
    assert len(refused) + sum(line["count"] for line in left_out) == 600


def _until_end(reader: int) -> list[bytes]:
    data = b""
    while not data.endswith(b"end\n"):
        data += os.read(reader, 3000)
    return data.splitlines()[:-1]


@pytest.mark.parametrize("reader", ["none", "idle", "gone"])
async def test_a_fifo_of_the_audit_log_that_nobody_reads(tmp_path: Path, reader: str) -> None:
    """Nobody opened it, nobody reads it, or its reader left: told once, and the gate ends."""
    fifo, errors = tmp_path / "audit", tmp_path / "errors"
    os.mkfifo(fifo)
    other = -1 if reader == "none" else os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with await asyncio.to_thread(errors.open, "wb") as file:
        async with gate_process(
            tmp_path, stderr=file.fileno(), log={"audit_file": str(fifo)}
        ) as gate:
            if reader == "gone":
                os.close(other)
            await gate.callbacks(400)
            assert (await gate.ping()).status == 200
            assert await _ended(gate) == 0
    if reader == "idle":
        os.close(other)
    told = [json.loads(line)["message"] for line in (await _text(errors)).splitlines()]

    assert sum("audit log cannot be written" in line for line in told) == (reader != "idle")
    assert len(told) <= 8
    assert "Traceback" not in await _text(errors)


async def test_a_full_disk_loses_no_line_that_can_wait(tmp_path: Path) -> None:
    """Access and audit lines wait for room, are whole, in order and once; both are told of."""
    access, audit, errors = (tmp_path / name for name in ("access", "audit", "errors"))
    with (
        await asyncio.to_thread(access.open, "ab") as out,
        await asyncio.to_thread(errors.open, "ab") as err,
    ):
        async with gate_process(
            tmp_path, stdout=out.fileno(), stderr=err.fileno(), log={"audit_file": str(audit)}
        ) as gate:
            # Neither is a multiple of a line's length: the last one is cut short.
            gate.limit(1200)
            await gate.callbacks(100)
            await _until_told(errors, "the access log cannot be written")
            await _until_told(errors, "the audit log cannot be written")
            assert access.stat().st_size == audit.stat().st_size == 1200
            gate.limit(-1)
            await _until_told(errors, "the access log can be written again")
            await _until_told(errors, "the audit log can be written again")
            assert await gate.metric("gate_log_lines_total", sink="audit") == TOLD
            assert await gate.metric("gate_log_lines_lost_total", sink="audit") == 0
            assert await gate.metric("gate_log_lines_lost_total", sink="access") == 0
            assert await _ended(gate) == 0

    for path, key, count in ((access, "id", 100), (audit, "request_id", TOLD)):
        lines = [json.loads(line) for line in (await _text(path)).splitlines()]
        lines = [line for line in lines if key in line]
        ids = [
            line[key]
            for line in lines
            if "/oauth2/callback" in line.get("path", "/oauth2/callback")
        ]
        assert len(ids) == count
        assert ids == sorted(set(ids))


async def _until_told(path: Path, text: str) -> None:
    async with asyncio.timeout(END_SECONDS):
        while text not in await _text(path):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)


async def test_a_device_that_takes_nothing(tmp_path: Path) -> None:
    """With every log on /dev/full the gate serves, counts and ends."""
    full = await asyncio.to_thread(os.open, "/dev/full", os.O_WRONLY)
    async with gate_process(
        tmp_path, stdout=full, stderr=full, log={"audit_file": "/dev/full"}
    ) as gate:
        await gate.callbacks(100)
        assert (await gate.ping()).status == 200
        for sink in ("access", "audit", "gate"):
            assert await gate.metric("gate_log_lines_total", sink=sink) == 0
        assert await _ended(gate) == 0
    os.close(full)


def test_lines_that_are_lost_are_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What does not fit while the file hangs is told with its number when it can be written."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    file = RotatedFile(str(fifo))
    file.open()
    sink = Sink("audit", file, capacity=1000)
    for number in range(30):
        sink.put(b"%098d\n" % number)
    assert sink.lost == 20
    with os.fdopen(os.open(fifo, os.O_RDONLY), "rb") as reader:
        lines = [reader.readline() for _ in range(10)]
        assert sink.close(END_SECONDS) == 0

    assert [int(line) for line in lines] == list(range(10))
    assert (sink.written, sink.lost, sink.waiting) == (10, 20, 0)
    (told,) = [record for record in caplog.records if "were lost" in record.message]
    assert vars(told)["details"] == {"sink": "audit", "lost": 20}


def test_lines_of_strangers_are_lost_first() -> None:
    """They take half of the queue; the other half is kept for those who are known."""
    reader, writer = os.pipe()
    while_full = Pipe(reader, writer)
    asyncio.run(while_full.fill())
    sink = Sink("gate", SinkFile(writer), capacity=1000)
    for number in range(100):
        sink.put(b"stranger%091d\n" % number, stranger=True)
    for number in range(5):
        sink.put(b"known%094d\n" % number)
    assert (sink.lost, sink.waiting) == (95, 1000)
    sink.put(b"known\n")
    assert sink.lost == 96
    os.set_blocking(reader, False)
    found = _drained(sink, reader)
    os.close(reader)
    os.close(writer)

    assert [line[:8] for line in found if line.strip()] == [b"stranger"] * 5 + [b"known000"] * 5


def _drained(sink: Sink, reader: int) -> list[bytes]:
    """Read all that a sink writes."""
    data = b""
    sink.finish()
    while sink.is_running:
        try:
            data += os.read(reader, 65536)
        except BlockingIOError:
            sink.close(0.01)
    with suppress(BlockingIOError):
        data += os.read(reader, 65536)
    return data.splitlines()


async def test_a_line_that_an_earlier_process_left_cut_short(tmp_path: Path) -> None:
    """The next line begins on a line of its own, in a file by its path and in an inherited one."""
    for name in ("path", "inherited"):
        path = tmp_path / name
        await asyncio.to_thread(path.write_bytes, b'{"half":')
        descriptor = await asyncio.to_thread(os.open, path, os.O_WRONLY | os.O_APPEND)
        file = RotatedFile(str(path)) if name == "path" else SinkFile(descriptor)
        sink = Sink("audit", file)
        sink.put(b"{}\n")
        assert await asyncio.to_thread(sink.close) == 0
        os.close(descriptor)

        assert await _text(path) == '{"half":\n{}\n'


async def test_a_log_is_for_the_gate_and_its_group(tmp_path: Path) -> None:
    """A file of a log that is not there is made so that other users cannot read it."""
    path, mask = tmp_path / "audit", os.umask(0)
    try:
        await asyncio.to_thread(RotatedFile(str(path)).open)
    finally:
        os.umask(mask)

    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a directory away")
def test_a_log_that_root_made_is_for_the_gates_user(tmp_path: Path) -> None:
    """After a first start by hand the service can go on with it; what is there keeps its owner."""
    there, made = tmp_path / "there.log", tmp_path / "made.log"
    there.touch()
    os.chown(tmp_path, 12_345, 12_346)
    for path in (there, made):
        log = RotatedFile(str(path))
        log.open()
        log.close()

    assert [path.stat().st_uid for path in (there, made)] == [0, 12_345]
    assert made.stat().st_gid == 12_346


async def test_a_rotated_file_gets_whole_lines(tmp_path: Path) -> None:
    """After a move the lines go on in a new file, and one whose directory is gone is waited for."""
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "audit"
    file = RotatedFile(str(path))
    await asyncio.to_thread(file.open)
    sink = Sink("audit", file)
    sink.put(b"one\n")
    await until(lambda: sink.written == 1)
    folder.rename(tmp_path / "moved")
    sink.put(b"two\n")
    await until(lambda: sink._failing)
    folder.mkdir()
    assert await asyncio.to_thread(sink.close) in {0, 1}
    sink.put(b"three\n")
    assert await asyncio.to_thread(sink.close) in {0, 1}

    assert await _text(tmp_path / "moved" / "audit") == "one\n"
    assert (await _text(path)).endswith("three\n")
    assert sink.written + sink.lost == 3


async def test_a_fault_in_the_writer_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """An error that nobody foresaw costs its lines, one complaint, and not the thread."""
    # A descriptor that no system call takes: an OverflowError and no OSError.
    sink = Sink("audit", SinkFile(2**64))
    for number in range(5):
        sink.put(b"x\n")
        await until(lambda wanted=number + 1: sink.lost == wanted)  # type: ignore[misc]

    assert sink.is_running
    assert len(caplog.records) == 1
    await asyncio.to_thread(sink.close)


def test_what_waits_is_bounded() -> None:
    """The bound is in bytes and holds for the default too."""
    reader, writer = os.pipe()
    asyncio.run(Pipe(reader, writer).fill())
    sink = Sink("gate", SinkFile(writer))
    for _ in range(20):
        sink.put(b"x" * (1 << 20))

    assert sink.waiting <= sinks.CAPACITY
    os.close(reader)
    sink.close(END_SECONDS)
    os.close(writer)
