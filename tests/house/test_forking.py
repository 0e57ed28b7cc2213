"""Processes that tests fork instead of starting them: see tests/kit/forking.py."""

import asyncio
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

from clikit import GATE, run

#: What a process sees of itself.
_TOLD = """
import json, os, sys
from tailchat_gate import cli
seen = [sys.argv, sys.orig_argv[1:], os.getppid(), os.getcwd(), sys.warnoptions, sys.path[0]]
numbers = sorted(int(name) for name in os.listdir("/proc/self/fd"))
print(json.dumps([seen, os.environ.get("A"), numbers, os.umask(0o77), __name__]))
"""


def _told(directory: Path, *options: str, **more: str) -> list[object]:
    """Return what a process with a pipe among its descriptors tells."""
    reads, writes = os.pipe()
    passed = fcntl.fcntl(reads, fcntl.F_DUPFD, 300)
    mask = os.umask(0o027)
    try:
        done = subprocess.run(
            [sys.executable, *options, "-c", _TOLD, "x"],
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
    found: list[object] = json.loads(done.stdout)
    return found


def test_a_process_that_is_forked_is_as_one_that_is_started(tmp_path: Path) -> None:
    """It has the arguments, environment, directory, descriptors and parent that it would have."""
    forked = _told(tmp_path, "-W", "error")
    # Python itself reads it, so that this one is started.
    started = _told(tmp_path, "-W", "error", PYTHONASYNCIODEBUG="0")

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
