"""Workers that are stuck: none stays, with its parent or after its end."""

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

from clikit import gate_after
from gatekit import RawUpstream, until
from workerkit import workers

#: A gate whose second worker sleeps in its event loop while a file exists; the parent's limit for
#: that is a few seconds.
_STUCK = """
import asyncio, os, time
from tailchat_gate.serving.workers import parent, worker

parent.STUCK_SECONDS = 10.0
begin = worker.Worker.begin

def look():
    if os.path.exists({file!r}):
        os.unlink({file!r})
        time.sleep(600)
    asyncio.get_running_loop().call_later(0.02, look)

def begun(self, server):
    begin(self, server)
    if self._link.number == 2:
        look()

worker.Worker.begin = begun
"""


async def test_a_worker_that_is_stuck_does_not_stay(tmp_path: Path, upstream: RawUpstream) -> None:
    """Its parent kills and replaces it; a killed parent does not leave it behind."""
    hang = tmp_path / "hang"
    command = gate_after(_STUCK.format(file=str(hang)))
    async with workers(tmp_path, upstream, command=command) as found:
        _, second = await found.pids()
        hang.touch()
        (line,) = await found.logged("a worker is stuck and is killed")
        assert (line["worker"], line["pid"]) == (2, second)
        await found.logged("a worker serves in place of one that ended")
        pids = await found.pids()
        assert await found.ask(8) == {b"ok"}

        hang.touch()
        await until(lambda: not hang.exists())
        os.kill(found.gate.process.pid, signal.SIGKILL)
        try:
            await until(lambda: not any(map(_lives, pids)), within=60)
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        # The last thread of a process that is gone may have the listener for a moment.
        await until(lambda: _is_free(found.gate.port))


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


def _lives(pid: int) -> bool:
    """Whether a process runs; one that has ended may still wait for its parent."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
