"""Runs `tailchat-gate doctor` for the admin page, in a separate process."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Final

from tailchat_gate.config.load import Source
from tailchat_gate.diagnosis.statement import Mark
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.observe.threads import in_thread

#: Seconds for all checks together.
SECONDS: Final = 120.0
#: Seconds from one run to the next, since each asks Tailchat and every tool.
_PAUSE: Final = 10.0
_MOST: Final = 1000

_log: Final = logging.getLogger(LOGGER_NAME)


class DoctorRun:
    """The last run, and whether one is under way; without a `source` no run is possible.

    It needs a process of its own because the command changes its user to the owner of the store,
    and reads files and resolves names, which may block.
    """

    def __init__(self, source: Source | None, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        #: The Unix second of the last result, 0 for none yet.
        self.at = 0.0
        self.findings: list[dict[str, str]] = []
        self.failed = False

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Start a run, unless one is under way or has just ended, or none is possible."""
        if self._source is None:
            return
        if not self.running and not 0 <= self._clock() - self.at < _PAUSE:
            self._task = asyncio.get_running_loop().create_task(self._run(str(self._source.path)))

    def close(self) -> None:
        """Kill a run that is under way, also if its process is only about to start."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        if self._process is not None:
            self._process.kill()

    def shown(self) -> dict[str, object]:
        """Return the values for the page."""
        return {
            "possible": self._source is not None,
            "running": self.running,
            "at": self.at,
            "failed": self.failed,
            "findings": self.findings,
        }

    async def _run(self, path: str) -> None:
        # -P: without it, a package of that name in the current directory would be run, which
        # others may have written.
        own = [sys.executable, "-P", "-m", "tailchat_gate"]
        command = [*own, "doctor", "--json", "--config", path]
        try:
            output = await in_thread(lambda: self._output(command))
            self.findings, self.failed = _read(output), False
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            _log.error("doctor could not be run", extra={"details": {"error": repr(error)[:200]}})
            self.findings, self.failed = [], True
        self.at = self._clock()

    def _output(self, command: list[str]) -> bytes:
        quiet = subprocess.DEVNULL
        with subprocess.Popen(  # noqa: S603 - the gate's own command
            command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet
        ) as process:
            self._process = process
            if self._closed:
                process.kill()
            try:
                return process.communicate(timeout=SECONDS)[0]
            finally:
                process.kill()
                self._process = None


def _read(output: bytes) -> list[dict[str, str]]:
    """Return the checks from the command's JSON output. Raises ValueError."""
    document = json.loads(output)
    checks = document.get("checks") if isinstance(document, dict) else None
    if not isinstance(checks, list):
        raise ValueError("doctor printed no list of checks")  # noqa: TRY004 - no argument's type
    read = [{key: str(check[key]) for key in ("check", "mark", "text", "next")} for check in checks]
    marks = set(Mark)
    return [check for check in read if check["mark"] in marks][:_MOST]
