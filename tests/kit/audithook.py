"""Finds calls that may wait for a disk or a name server, by what Python itself reports of them.

blockbuster wraps functions that it knows. Whatever else opens a file, an import in the middle of
a request among it, shows as an audit event (PEP 578), wherever it comes from.
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
#: What may wait: the demonstration, and a parent of workers, which serves nobody, until another
#: program runs.
_MAY = (str(Path(_GATE, "demo")), str(Path(_GATE, "serving", "workers", "spawned.py")))
#: What was seen in an event loop on behalf of the gate: the event, and where it came from.
seen: list[str] = []


def _hook(event: str, arguments: Sequence[object]) -> None:
    if event not in _EVENTS or asyncio._get_running_loop() is None:
        return
    frame: FrameType | None = sys._getframe(1)
    places: list[str] = []
    while frame is not None:
        places.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        if frame.f_code is logging.Formatter.formatException.__code__:
            # What pytest keeps of the log has lines of source in it, which the gate's own has not.
            return
        if frame.f_code.co_filename.startswith(_GATE):
            if not frame.f_code.co_filename.startswith(_MAY):
                seen.append(f"{event} {arguments[:1]!r} in the event loop, by {places}")
            return
        frame = frame.f_back


sys.addaudithook(_hook)
