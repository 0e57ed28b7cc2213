"""Finds calls that may wait for a disk or a name server, by Python's audit events (PEP 578).

blockbuster finds only the functions that it wraps. Every other call that opens a file, such as an
import in the middle of a request, raises an audit event.
"""

import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import tailchat_gate

_EVENTS = frozenset(
    (
        *("open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.rmdir"),
        *("os.truncate", "os.link", "os.symlink", "os.chmod", "os.chown", "os.utime"),
        *("fcntl.flock", "fcntl.lockf", "socket.getaddrinfo", "socket.gethostbyname"),
        *("socket.getnameinfo", "subprocess.Popen", "os.system", "time.sleep"),
    )
)
_GATE = str(Path(tailchat_gate.__file__).parent)
#: Files that may wait: the demo, and the parent of workers, which serves no visitors, while another
#: program starts.
_MAY = (str(Path(_GATE, "demo")), str(Path(_GATE, "serving", "workers", "spawned.py")))
#: Events that the gate caused in an event loop, each with its call stack.
seen: list[str] = []


def _hook(event: str, arguments: Sequence[object]) -> None:
    if event not in _EVENTS or asyncio._get_running_loop() is None:
        return
    frame: FrameType | None = sys._getframe(1)
    places: list[str] = []
    while frame is not None:
        places.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        if frame.f_code is logging.Formatter.formatException.__code__:
            # pytest's copy of the log reads lines of source; the gate's own log does not.
            return
        if frame.f_code.co_filename.startswith(_GATE):
            if not frame.f_code.co_filename.startswith(_MAY):
                seen.append(f"{event} {arguments[:1]!r} in the event loop, by {places}")
            return
        frame = frame.f_back


sys.addaudithook(_hook)
