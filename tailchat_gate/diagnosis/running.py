"""Checks whether a gate runs, by what its admin listener answers."""

import http.client
import json
import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple

from tailchat_gate import __version__
from tailchat_gate.diagnosis.statement import (
    REPEATED,
    RUNNING_GATE,
    STATE_SERVER,
    TAILCHAT,
    Statement,
    ok,
    unknown,
    warning,
    wrong,
)
from tailchat_gate.observe.threads import in_thread

GATE: Final = "gate"
_MAX_FDS: Final = re.compile(rb"^process_max_fds ([0-9.e+]+)$", re.MULTILINE)

Ask = Callable[[str], tuple[int, bytes]]
"""Gets a page of the admin listener; returns status and body. Raises OSError, HTTPException."""


class Running(NamedTuple):
    """What a running gate answered: `status` is the JSON of `/status`, None without an answer.

    `problem` says why there is none. `descriptors` is the limit of its file descriptors, None if it
    is not known.
    """

    status: dict[str, Any] | None = None
    problem: str = ""
    is_ready: bool = False
    descriptors: int | None = None


async def look(ask: Ask) -> Running:
    """Ask the running gate, if there is one."""
    return await in_thread(lambda: _look(ask))


def _look(ask: Ask) -> Running:
    try:
        code, body = ask("/status")
        status = json.loads(body) if code == HTTPStatus.OK else None
        if not isinstance(status, dict) or not isinstance(status.get("configuration"), dict):
            return Running(problem=f"another program answers there: status {code}")
        is_ready = ask("/readyz")[0] == HTTPStatus.OK
        match = _MAX_FDS.search(ask("/metrics")[1])
    except ValueError:
        return Running(problem="another program does")
    except (OSError, http.client.HTTPException) as error:
        problem = error.strerror if isinstance(error, OSError) else None
        return Running(problem=problem or type(error).__name__)
    limit = int(float(match[1])) if match is not None else None
    return Running(status, is_ready=is_ready, descriptors=limit)


async def gate(where: str, running: Running, file: str) -> AsyncIterator[Statement]:
    """Say whether a gate runs with this file, and which faults it reports.

    `where` is its admin address, "" for none.
    """
    if not where:
        text = "server.admin_listen is off, so a running gate cannot be asked"
        yield unknown(GATE, text, "set it to an address of this machine")
        return
    if running.status is None:
        text = f"no gate answers at server.admin_listen, {where}: {running.problem}"
        remedy = "start the gate; if it runs in another container, run this command there"
        yield warning(GATE, text, remedy)._replace(lacks=RUNNING_GATE)
        return
    for statement in await in_thread(partial(_of_status, running, file)):
        yield statement


def _of_status(running: Running, file: str) -> list[Statement]:
    status = running.status or {}
    about = status["configuration"]
    statements: list[Statement] = []
    if not running.is_ready:
        statements.append(wrong(GATE, "the running gate takes no requests: it is stopping", ""))
    used = about.get("file")
    if isinstance(used, str) and Path(used).resolve() != Path(file).resolve():
        text = f"the gate at this address runs with {used}"
        statements.append(warning(GATE, text, "name that file with --config"))
    if about.get("problems"):
        text = "the running gate refused this file and serves with an earlier configuration"
        statements.append(wrong(GATE, text, "`tailchat-gate reload` says why"))
    if status.get("version") != __version__:
        text = f"the running gate is version {status.get('version')}, this command {__version__}"
        statements.append(warning(GATE, text, "restart the gate"))
    for key, needs in (("state_faults", STATE_SERVER), ("group_faults", TAILCHAT)):
        statements.extend(
            wrong(GATE, f"the running gate says: {fault}")._replace(needs=needs, about=REPEATED)
            for fault in status.get(key, ())
        )
    return statements or [ok(GATE, f"the gate has run for {status.get('uptime_seconds')} seconds")]
