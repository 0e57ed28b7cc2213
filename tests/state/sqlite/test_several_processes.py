"""Three real processes on one store, as workers will be."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from statekit import running

CLAIMING = Path(__file__).parent / "reserving_process.py"
COUNT = 200


async def _line(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(40):
        return (await process.stdout.readline()).decode().strip()


def _go_on(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")


@asynccontextmanager
async def _started(directory: Path, first: int) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(CLAIMING), str(directory), str(COUNT), str(first)),
        stdin=PIPE,
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_three_processes(tmp_path: Path) -> None:
    """Each key is granted to one process alone, and what one notes is known to all in a moment."""
    firsts = (0, COUNT // 3, 2 * COUNT // 3)
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(_started(tmp_path, first)) for first in firsts]
        assert [await _line(process) for process in processes] == ["ready"] * 3
        for process in processes:
            _go_on(process)
        granted = [int(await _line(process)) for process in processes]
        assert sum(granted) == COUNT

        async with running(tmp_path) as here:
            await here.put("locked")
            told = await asyncio.gather(*(_line(process) for process in processes))
        assert told == ["locked"] * 3
        for process in processes:
            _go_on(process)
            assert await process.wait() == 0
