"""Asks the running gate where it stores its state, for commands that change that state."""

import http.client
import json
import os
import shlex
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Final

from tailchat_gate.commands.admin import exchange
from tailchat_gate.commands.common import EXIT_FAILED, fail, fit_for_a_terminal, program
from tailchat_gate.config.load import admin_address

#: How long the running gate may take to say where it stores locks.
_SECONDS: Final = 5.0


def check_running(config: Path, path: str) -> None:
    """End the command if the gate that runs with this file stores its state elsewhere.

    The gate may run as another user or have started before the file changed, and a lock in a store
    that it does not read has no effect. The command never writes to the path that it answers:
    any process could listen at that address, and the commands often run as root.
    """
    used = _used_by_running(config)
    if used is not None and used != path:
        fail(
            f"the running gate keeps its state in {used or 'memory alone'}, not in {path}: "
            "give the directory by --state",
            EXIT_FAILED,
        )


def _used_by_running(config: Path) -> str | None:
    """Return where the gate with this file stores its state, "" for memory, None if unknown."""
    try:
        where = admin_address(config, os.environ)
        if where is None:
            return None
        status, body = exchange(where, "GET", "/status", seconds=_SECONDS)
        configuration = json.loads(body)["configuration"] if status == HTTPStatus.OK else {}
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException):
        return None
    if not isinstance(configuration, dict) or not _is_same(configuration.get("file"), config):
        return None
    used = configuration.get("state_path")
    return used if isinstance(used, str) else None


def command_despite(config: Path) -> str:
    """Return the command to run if the file does not say where the state is.

    A person has to run it, because any process could answer at the admin address.
    """
    used = _used_by_running(config)
    if used is not None and not used.startswith("/"):
        return f"the running gate keeps its state in {fit_for_a_terminal(used) or 'memory alone'}"
    command = f"{program()} {shlex.join(sys.argv[1:])}"
    if used is None:
        clue = 'the line "the gate is open" in the gate\'s log names that directory as `state`'
        return f"--state names the directory itself: {command} --state DIRECTORY; {clue}"
    directory = shlex.quote(fit_for_a_terminal(used))
    return (
        "--state names the directory itself; where the running gate says that it is:\n"
        f"{command} --state {directory}"
    )


def _is_same(file: object, config: Path) -> bool:
    return isinstance(file, str) and Path(file).resolve() == config.resolve()
