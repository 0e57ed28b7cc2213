"""Forks processes of the gate from one that has imported it: imports take most of a start.

A test starts Python with the gate or with a file of the checkout by `subprocess` or asyncio. In its
place fork_server.py forks a child of this process with the same arguments, environment, directory
and descriptors. This module starts Python after all if a variable that Python reads at its start
differs, or if an option is unknown here. The fork itself gives passed sockets their numbers, not
the program that systemd.py has for that. The processes that share the tests are forked as well.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from tailchat_gate.serving.systemd import _MOVE, FIRST_DESCRIPTOR

#: Bytes of a request: its arguments and its environment.
MOST: Final = 2**20
#: Descriptors of a request: the three standard streams, and those that are passed.
MOST_DESCRIPTORS: Final = 64
#: A request may name descriptors below this number.
HIGH: Final = 512
#: The program that execnet passes to Python for a process that runs tests.
TESTS: Final = "import sys;exec(eval(sys.stdin.readline()))"
#: Marks a Python that runs a file, in the place of an option such as -m.
SCRIPT: Final = "script"
_SERVER: Final = Path(__file__).with_name("fork_server.py")
_ROOT: Final = _SERVER.parents[2]
#: The starts of names of variables that Python and its libraries read at their start.
_READ_EARLY: Final = ("PYTHON", "LANG", "LC_", "LD_", "TZ", "MALLOC", "OPENSSL", "SSL_")
_SUBREAPER: Final = 36
#: The socket of this process's own fork server, if this process was forked with one.
_forks_already: Final[list[socket.socket]] = []
#: How many seconds a start may take on a busy machine.
_TIMEOUT: Final = 60


class _Forks:
    """The fork server and the socket to it; starts the server if there is none."""

    def __init__(self, stack: ExitStack, asked: socket.socket | None = None) -> None:
        self._stack = stack
        self._lock = threading.Lock()
        self._environ = dict(os.environ)
        self._asked = asked

    def _server(self) -> socket.socket:
        if self._asked is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MOST)
            ours.settimeout(_TIMEOUT)
            process = subprocess.Popen(
                [sys.executable, "-W", "error", str(_SERVER)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd=_ROOT,
                env=self._environ,
            )
            theirs.close()
            # It ends when the socket closes.
            self._stack.callback(process.wait)
            self._stack.callback(ours.close)
            self._asked = ours
        return self._asked

    def begin_so(self, environ: Mapping[str, str]) -> bool:
        """Whether Python would start with an environment as the server did."""
        return _read_early(environ) == _read_early(self._environ)

    def fork(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> int:
        """Fork a child of this process for a request; return its process ID."""
        with self._lock:
            server = self._server()
            data = json.dumps(request).encode()
            # The process between the two ends at once, and this process inherits its child.
            with _subreaper():
                socket.send_fds(server, [data], list(descriptors))
                pid = int(server.recv(MOST))
                _await_child(pid)
            return pid


@contextmanager
def _subreaper() -> Iterator[None]:
    libc = ctypes.CDLL(None)
    libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_SUBREAPER, 0, 0, 0, 0)


def _await_child(pid: int) -> None:
    """Wait until a process is a child of this one."""
    end = time.monotonic() + _TIMEOUT
    while time.monotonic() < end:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return
        time.sleep(0.0005)
    raise ChildProcessError(f"{pid} is no child of this process")


def _is_of_checkout(file: str = "") -> bool:
    path = Path(file)
    return path.suffix == ".py" and path.is_relative_to(_ROOT) and path != _SERVER


def _request(
    args: Any,  # noqa: ANN401 - as subprocess takes it
    cwd: Any,  # noqa: ANN401 - as subprocess takes it
    env: Mapping[str, str] | None,
) -> dict[str, Any] | None:
    """Return a command as a request to the server, None if Python must be started."""
    command = [] if isinstance(args, str | bytes | os.PathLike) else list(map(os.fspath, args))
    moved: list[int] = []
    if _MOVE in command:
        numbers, *command = command[command.index(_MOVE) + 1 :]
        moved = list(map(int, numbers.split(",")))
    python, *words = command or [""]
    if words == ["-u", "-c", TESTS]:
        del words[0]
    strict = words[:2] == ["-W", "error"]
    words = words[2 * strict :]
    if _is_of_checkout(*words[:1]):
        words.insert(0, SCRIPT)
    kind, what, *_ = arguments = [*words, "", ""]
    of_gate = {
        "-m": what == "tailchat_gate",
        "-c": what == TESTS or (strict and "tailchat_gate" in what),
        SCRIPT: True,
    }
    if python != sys.executable or not of_gate.get(kind):
        return None
    environ = dict(os.environ) if env is None else dict(env)
    directory = os.path.abspath(cwd or ".")  # noqa: PTH100 - may be bytes or text
    return {
        "command": command,
        "kind": kind,
        "arguments": arguments[1:-2],
        "strict": strict,
        "environ": environ,
        "directory": directory,
        "moved": moved,
    }


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _read_early(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in environ.items() if name.startswith(_READ_EARLY)}


def _start_by(forks: _Forks) -> Callable[..., None]:
    """Return the method that starts the process of a Popen."""
    started = subprocess.Popen._execute_child  # type: ignore[attr-defined]

    def start(process: Any, *given: Any) -> None:  # noqa: ANN401 - as in subprocess
        (args, executable, preexec, close, passed, cwd, env, _, _, shell) = given[:10]
        streams, (restored, *unusual) = given[10:16], given[16:]
        descriptors = [
            own if own >= 0 else number
            for number, own in enumerate((streams[0], streams[3], streams[5]))
        ]
        usual = executable is preexec is None and close and restored and not shell
        usual = usual and tuple(unusual) == (None, None, None, -1, False, -1)
        request = _request(args, cwd, env)
        if not (request and usual and forks.begin_so(request["environ"])) or (
            any(map(os.isatty, descriptors)) and request["arguments"] != [TESTS]
        ):
            started(process, *given)
            return
        moved = request["moved"]
        others = sorted({*map(int, passed)} - {*moved})
        numbers = [*range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + len(moved)), *others]
        request |= {"numbers": [0, 1, 2, *numbers], "umask": _umask()}
        assert len(numbers) + 3 <= MOST_DESCRIPTORS
        assert max(numbers, default=0) < HIGH
        process.pid = forks.fork(request, [*descriptors, *moved, *others])
        process._child_created = True
        process._close_pipe_fds(*streams)

    return start


@contextmanager
def forked() -> Iterator[None]:
    """Fork processes of the gate until the block ends; a forked process always does."""
    if _forks_already:
        yield
        return
    with ExitStack() as stack:
        start = _start_by(_Forks(stack))
        stack.enter_context(patch.object(subprocess.Popen, "_execute_child", start))
        yield


def fork_from(asked: socket.socket) -> None:
    """Fork processes of the gate from the server at the other end of `asked`, from now on."""
    asked.settimeout(_TIMEOUT)
    start = _start_by(_Forks(ExitStack(), asked))
    _forks_already.append(asked)
    subprocess.Popen._execute_child = start  # type: ignore[attr-defined]
