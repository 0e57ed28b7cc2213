"""The measurement of what signed-in people notice of reloads, restarts and outages."""

import shutil
import subprocess
import sys

import events
import pytest
from parts import missing
from process import BenchError, program


@pytest.mark.timeout(400)
def test_a_reload_and_a_killed_worker_cost_no_request() -> None:
    """A short run: behind HAProxy no GET fails, and no line of the audit log is lost or doubled."""
    try:
        program("haproxy")
    except BenchError as problem:
        missing(str(problem))
    if shutil.which("redis-server") is None:
        missing("redis-server")
    # The events are what is tried, so that the load between them is a light one.
    load = ("--gates", "1", "--quiet", "0.3", "--pause", "0.02")
    done = subprocess.run(
        [sys.executable, events.__file__, *load, "--events", "reload,worker killed"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("GET 200", "POST 200", "sign-ins in the audit log", "reload, in tenths"):
        assert f"- {name}" in done.stdout
    assert "- requests and lines that failed: 0" in done.stdout
