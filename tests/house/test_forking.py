"""Processes that tests fork instead of starting them: see tests/kit/forking.py."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from clikit import GATE, run
from forking import HIGH, TESTS
from gatekit import RawUpstream
from processkit import NOT_FORKED
from workerkit import workers

#: What a process sees of itself.
_FACTS = Path(__file__).with_name("process_facts.py")
#: What a process that will run tests knows before it does, and what it starts.
_TOLD_OF_TESTS = """
import json, subprocess, sys
told = ["tailchat_gate.gate" in sys.modules, "pytest" in sys.modules, sys.warnoptions]
python = [sys.executable, "-W", "error", "-c"]
text = "import tailchat_gate, pathlib; print(pathlib.Path('/proc/self/cmdline').read_text())"
told.append("fork_server" in subprocess.check_output([*python, text], text=True))
print(json.dumps(told))
"""


def _told(directory: Path, *program: str, forked: bool, **more: str) -> list[object]:
    """Return what a process with a pipe among its descriptors tells, which has to be `forked`."""
    reads, writes = os.pipe()
    passed = fcntl.fcntl(reads, fcntl.F_DUPFD, 300)
    mask = os.umask(0o027)
    try:
        done = subprocess.run(
            [sys.executable, *program, "x"],
            pass_fds=(passed,),
            cwd=directory,
            env={**os.environ, "A": "b", **more},
            capture_output=True,
            check=True,
        )
    finally:
        os.umask(mask)
        for descriptor in (reads, writes, passed):
            os.close(descriptor)
    *found, numbers, command = json.loads(done.stdout)
    assert ("fork_server.py" in command) is forked
    # One that may start others has the way to its server as well.
    return [*found, [number for number in numbers if number != HIGH]]


@pytest.mark.parametrize(
    "program", [("-W", "error", "-c", _FACTS.read_text()), (str(_FACTS),)], ids=["text", "file"]
)
def test_a_process_that_is_forked_is_as_one_that_is_started(
    tmp_path: Path, program: Sequence[str]
) -> None:
    """It has the arguments, environment, directory, descriptors and parent that it would have."""
    forked = _told(tmp_path, *program, forked=True)
    started = _told(tmp_path, *program, forked=False, **NOT_FORKED)

    assert forked == started


async def test_it_ends_as_one_that_is_started() -> None:
    """Its exit code, output and errors come, of a command that fails, too."""
    code, out, err = await run("check", "--config", "/nowhere")

    assert (code, out) == (2, "")
    assert "/nowhere" in err
    command = (*GATE[:3], "-c", "import time, tailchat_gate; time.sleep(60)")
    process = await asyncio.create_subprocess_exec(*command)
    process.kill()
    assert await process.wait() == -9


def _is_forked(pid: int) -> bool:
    return "fork_server.py" in Path(f"/proc/{pid}/cmdline").read_text()


async def test_what_a_forked_gate_starts_is_forked(tmp_path: Path, upstream: RawUpstream) -> None:
    """Its workers are, and so is the process that takes over from it."""
    async with workers(tmp_path, upstream) as found:
        assert [_is_forked(pid) for pid in await found.pids()] == [True] * 2
        code, out, _ = await run("upgrade", "--config", str(found.config))
        assert code == 0
        successor = int(out.split()[1])
        try:
            assert _is_forked(successor)
        finally:
            os.kill(successor, signal.SIGTERM)
            await found.gate.process.wait()


async def test_what_is_not_to_be_forked_is_started(tmp_path: Path, upstream: RawUpstream) -> None:
    """A gate that Python itself is to start has workers that Python itself starts."""
    async with workers(tmp_path, upstream, variables=NOT_FORKED) as found:
        pids = [found.gate.process.pid, *await found.pids()]
        assert [_is_forked(pid) for pid in pids] == [False] * 3


def test_a_process_of_tests_begins_with_the_gate_alone() -> None:
    """It has nothing that tests import, Python's usual warnings, and forks what it starts."""
    done = subprocess.run(
        [sys.executable, "-u", "-c", TESTS],
        input=f"{_TOLD_OF_TESTS!r}\n",
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr == ""
    assert json.loads(done.stdout) == [True, False, [], True]
