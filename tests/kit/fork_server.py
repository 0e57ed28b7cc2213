"""A Python that has imported the gate, and forks a process of the gate for each request.

forking.py starts it, with one end of a socket pair as its standard input, and explains why.

A gate that serves may start other processes: its workers and its successor. So may a process that
runs tests. Each of them has a fork server of its own, forked before the process began its work:
a process can only inherit the children of its own descendants.
"""

import contextlib
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import socket
import sys
import time
import warnings
from typing import Any, Final

from forking import HIGH, MOST, MOST_DESCRIPTORS, SCRIPT, TESTS, fork_from

#: Not imported: the first runs a command at its import, and no forked process uses the second.
_LEFT_OUT: Final = ("tailchat_gate.__main__", "tailchat_gate.demo")


def _import_gate() -> None:
    package = importlib.import_module("tailchat_gate")
    for module in pkgutil.walk_packages(package.__path__, "tailchat_gate."):
        if not module.name.startswith(_LEFT_OUT):
            importlib.import_module(module.name)
    # A gate reads and compiles these once in a process.
    importlib.import_module("tailchat_gate.pages.render").Pages()
    importlib.import_module("tailchat_gate.pages.admin_page").prepare()
    importlib.import_module("tailchat_gate.config.keys").all_keys()


def _serve(asked: socket.socket) -> dict[str, Any]:
    """Fork for each request; in the new process, take its descriptors and return the request."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(asked, MOST, MOST_DESCRIPTORS)
        if not data:
            os._exit(0)
        between = os.fork()
        if between:
            os.waitpid(between, 0)
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        # Once the process between has ended, the new one is a child of the process that asked.
        own = os.getpid()
        found = os.fork()
        if found:
            asked.send(str(found).encode())
            os._exit(0)
        while os.getppid() == own:
            time.sleep(0.0005)
        # `_take` closes its descriptor with the others.
        asked.detach()
        request: dict[str, Any] = json.loads(data)
        _take(request, descriptors)
        return request


def _take(request: dict[str, Any], descriptors: list[int]) -> None:
    """Give the descriptors of a request the numbers that it names; close all others."""
    high = [HIGH + number for number in range(len(descriptors))]
    for descriptor, copy in zip(descriptors, high, strict=True):
        os.dup2(descriptor, copy)
    os.closerange(3, HIGH)
    for copy, number in zip(high, request["numbers"], strict=True):
        os.dup2(copy, number)
    os.closerange(HIGH, HIGH + MOST_DESCRIPTORS)


def _serves(request: dict[str, Any]) -> bool:
    """Whether a process may start others: tests, the benchmark, and each gate but a worker."""
    if request["arguments"] == [TESTS] or request["kind"] == SCRIPT:
        return True
    return "serve" in request["arguments"] and "GATE_WORKER" not in request["environ"]


def _next(asked: socket.socket) -> dict[str, Any]:
    """Return the request that this process is to serve, once it is a forked one."""
    request = _serve(asked)
    while _serves(request):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork():
            theirs.close()
            high = fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD_CLOEXEC, HIGH)
            ours.close()
            fork_from(socket.socket(fileno=high))
            return request
        ours.detach()
        # Not the streams of the gate: their readers must see EOF when the gate has ended.
        _take({"numbers": [0, 1, 2, 3]}, [*[os.open(os.devnull, os.O_RDWR)] * 3, theirs.detach()])
        request = _serve(socket.socket(fileno=3))
    return request


def _warn_as_usual() -> None:
    """Treat warnings as Python does without -W."""
    sys.warnoptions.clear()
    warnings.resetwarnings()
    for category in (ImportWarning, ResourceWarning, PendingDeprecationWarning, DeprecationWarning):
        warnings.simplefilter("ignore", category)


def main() -> None:
    """Fork for requests; in a forked process, run what its request names."""
    _import_gate()
    # Else the collector of each process would examine all of this, and so copy its pages.
    gc.freeze()
    request = _next(socket.socket(fileno=os.dup(0)))
    os.umask(request["umask"])
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environ"])
    if not request["strict"]:
        _warn_as_usual()
    if request["moved"]:
        os.environ["LISTEN_PID"] = str(os.getpid())
    sys.orig_argv[:] = request["command"]
    what, *arguments = request["arguments"]
    sys.argv[:] = [what, *arguments]
    if request["kind"] == "-m":
        sys.path[0] = request["directory"]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    elif request["kind"] == SCRIPT:
        sys.path[0] = os.path.dirname(what)  # noqa: PTH120 - as Python has it, a text
        runpy.run_path(what, run_name="__main__")
    else:
        sys.path[0] = ""
        sys.argv[0] = "-c"
        names = vars(sys.modules["__main__"])
        with contextlib.suppress(KeyError):
            del names["__file__"]
        exec(compile(what, "<string>", "exec"), names)  # noqa: S102 - as python -c does


if __name__ == "__main__":
    main()
