"""What the parent makes of workers that answer late, end while they are asked, or are orphans."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from clikit import GATE, environ
from gatekit import until
from process import free_port
from reloadkit import file_text, sections

from tailchat_gate.serving.reload_outcome import Reloads
from tailchat_gate.serving.workers.crew import Admit, Crew, Slot
from tailchat_gate.serving.workers.link import VARIABLE
from tailchat_gate.serving.workers.reports import CrewReports
from tailchat_gate.serving.workers.spawned import Spawned, WorkerSilentError

#: A process that speaks as a worker does: it has counted 5 requests, pings are answered at once,
#: questions for metrics unless it is told "hold", and by the second one once it is told "go".
#: "fail" is answered as a fault, "end" ends it.
SPEAKER = """
import asyncio, json, os
from tailchat_gate.serving.workers.channel import Channel
from tailchat_gate.serving.workers.link import parent_link

FAMILY = ("gate_requests", "Requests.", [], "counter", "sum", [])
link = parent_link(os.environ)
link.join("digest")

async def speak():
    waiting, open_, over = [], [link.number == 1], asyncio.Event()

    def heard(message, _):
        what = message["ask"]
        if what == "go":
            open_[0] = True
        elif what == "hold":
            open_[0] = False
        elif what == "end":
            os._exit(7)
        elif what == "fail":
            channel.send({"id": message["id"], "answer": {"failed": "ValueError"}})
        elif what == "ping":
            channel.send({"id": message["id"], "answer": {}})
        elif what == "metrics":
            waiting.append(message["id"])
        while open_[0] and waiting:
            channel.send({"id": waiting.pop(), "answer": {"metrics": [[FAMILY, [[[], 5]]]]}})

    channel = Channel(link.end, heard, over.set)
    channel.send({"ready": "here"})
    await over.wait()

asyncio.run(speak())
"""


async def _admit(process: Spawned) -> None:
    await process.loaded
    process.channel.send({"ask": "serve", "addresses": []})
    await process.ready


class Scene:
    """Two speakers, what is known of their counts, and those that have ended."""

    def __init__(self, memory: int) -> None:
        path = {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = (sys.executable, "-c", SPEAKER)
        self.ended: list[int] = []

        def spawn(number: int) -> Spawned:
            return Spawned(command, {**environ(), **path}, number, 2, memory)

        self.crew = Crew(2, spawn, self._admit, self._gone)
        self.admit: Admit = _admit
        self.reports = CrewReports(self.crew, Reloads(lambda: 0.0), lambda: True, lambda: "")

    async def _admit(self, process: Spawned) -> None:
        await self.admit(process)

    def _gone(self, slot: Slot) -> None:
        self.ended.append(slot.number)
        self.reports.gone(slot)

    async def count(self) -> float:
        """Return the sum of the requests."""
        text = (await self.reports.metrics("")).body.decode()
        (line,) = [one for one in text.splitlines() if one.startswith("gate_requests_total ")]
        return float(line.split()[1])

    def worker(self, number: int) -> Spawned:
        """Return a worker that serves."""
        (found,) = [one for one in self.crew.serving if one.number == number]
        return found


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """Start both until the block ends."""
    lock = os.memfd_create("test")
    found = Scene(lock)
    try:
        await found.crew.start()
        yield found
    finally:
        found.crew.abandon()
        for process in found.crew.serving:
            process.kill()
        await found.crew.stop(20, succeeded=False)
        os.close(lock)


async def test_one_late_answer_is_no_silence() -> None:
    """A worker that owes an answer about metrics is still asked whether it is stuck.

    A fault in a worker is no answer, and is not taken for one.
    """
    async with scene() as found:
        late = found.worker(2)
        with pytest.raises(WorkerSilentError):
            await late.ask("metrics", 0.05)
        assert await late.ask("ping", 20) == {}
        with pytest.raises(WorkerSilentError):
            await late.ask("metrics", 20)
        with pytest.raises(WorkerSilentError):
            await late.ask("fail", 20)
        late.order("go")
        assert await late.ask("ping", 20) == {}
        assert "metrics" in await late.ask("metrics", 20)


async def test_an_answer_in_the_turn_of_its_time_limit_is_owed_no_more() -> None:
    """Where the parent was busy until both had come, the worker is asked again."""
    async with scene() as found:
        process = found.worker(1)
        asked = asyncio.ensure_future(process.ask("ping", 0.05))
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 - as long as the parent does other things
        with suppress(WorkerSilentError):
            await asked

        async with asyncio.timeout(20):
            while not await _answers(process):  # noqa: ASYNC110 - it has to be asked
                await asyncio.sleep(0.01)


async def _answers(process: Spawned) -> bool:
    try:
        return await process.ask("ping", 20) == {}
    except WorkerSilentError:
        return False


async def test_counts_outlive_their_worker() -> None:
    """What the parent has learned is counted once, also while a worker ends during a scrape."""
    async with scene() as found:
        found.worker(2).order("go")
        await found.reports.learn()
        found.worker(2).order("hold")
        scrape = asyncio.ensure_future(found.count())
        await asyncio.sleep(0)
        # It has answered the scrape, which waits for the other one.
        await found.worker(1).ask("ping", 20)
        found.worker(1).order("end")
        await until(lambda: 1 in found.ended)
        found.worker(2).order("go")
        assert await scrape == 10
        await until(lambda: len(found.crew.serving) == 2)
        # The new worker has five of its own.
        assert await found.count() == 15
        assert found.crew.slots[0].restarts == 1


async def test_a_fault_in_a_start_leaves_no_place_empty() -> None:
    """Whatever goes wrong in starting a worker, another start follows; a reload hastens it."""
    async with scene() as found:
        faults = iter([ValueError("not expected"), OSError("no process")])

        async def admit(process: Spawned) -> None:
            for fault in faults:
                raise fault
            await _admit(process)

        found.admit = admit
        found.worker(1).order("end")
        while found.crew.slots[0].restarts < 3:
            await asyncio.sleep(0.01)
            found.crew.hasten()
        await until(lambda: len(found.crew.serving) == 2)
        assert found.crew.slots[0].problem == ""


async def test_an_orphan_is_no_gate(tmp_path: Path) -> None:
    """A worker whose parent was killed before it looked ends, and opens no address."""
    port = free_port()
    path = tmp_path / "config.toml"
    path.write_text(
        file_text(sections("http://127.0.0.1:9", server={"listen": f"127.0.0.1:{port}"}))
    )
    path.chmod(0o600)
    process = await asyncio.create_subprocess_exec(
        *(*GATE, "serve", "-c", str(path)),
        stderr=asyncio.subprocess.PIPE,
        env={**environ(), VARIABLE: "1:3:1:2:4:5"},
    )
    try:
        async with asyncio.timeout(60):
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, errors) == (1, b"the parent of this worker has ended\n")
