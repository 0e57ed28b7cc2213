"""A Python that has imported the gate, and becomes a process of it as often as it is asked.

Run by forking.py, with its end of a socket pair as the standard input. See there.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import socket
import sys
import time
from typing import Any, Final

#: Bytes of a request: its arguments and its environment.
MOST: Final = 2**20
#: Descriptors of a request: the three standard streams, and those that are passed.
MOST_DESCRIPTORS: Final = 64
#: Descriptors that are asked for by their numbers are below it.
HIGH: Final = 512
#: What is not imported: it starts at once, or no program of a test uses it.
_LEFT_OUT: Final = ("tailchat_gate.__main__", "tailchat_gate.demo")


def _import_gate() -> None:
    package = importlib.import_module("tailchat_gate")
    for module in pkgutil.walk_packages(package.__path__, "tailchat_gate."):
        if not module.name.startswith(_LEFT_OUT):
            importlib.import_module(module.name)


def _serve(asked: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork for each request; return it in the new process, with its descriptors."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(asked, MOST, MOST_DESCRIPTORS)
        if not data:
            asked.close()
            sys.exit()
        between = os.fork()
        if between:
            os.waitpid(between, 0)
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        # The process that asked has it as its own child, once the one between has ended.
        own = os.getpid()
        found = os.fork()
        if found:
            asked.send(str(found).encode())
            os._exit(0)
        while os.getppid() == own:
            time.sleep(0.0005)
        return json.loads(data), descriptors


def _take(request: dict[str, Any], descriptors: list[int]) -> None:
    """Have the descriptors of a request under the numbers that it says, and no other."""
    high = [HIGH + number for number in range(len(descriptors))]
    for descriptor, copy in zip(descriptors, high, strict=True):
        os.dup2(descriptor, copy)
    os.closerange(3, HIGH)
    for copy, number in zip(high, request["numbers"], strict=True):
        os.dup2(copy, number)
    os.closerange(HIGH, HIGH + MOST_DESCRIPTORS)


def main() -> None:
    """Serve, and be what is asked for."""
    _import_gate()
    # The collector would look through it at the end of each, and copy all of it by that.
    gc.freeze()
    asked = socket.socket(fileno=os.dup(0))
    request, descriptors = _serve(asked)
    # It is closed with the others, whatever the object knows.
    asked.detach()
    _take(request, descriptors)
    os.umask(request["umask"])
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.orig_argv[:] = request["command"]
    what, *arguments = request["arguments"]
    sys.argv[:] = [what, *arguments]
    if request["kind"] == "-m":
        sys.path[0] = request["directory"]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = ""
        sys.argv[0] = "-c"
        names = vars(sys.modules["__main__"])
        with contextlib.suppress(KeyError):
            del names["__file__"]
        exec(compile(what, "<string>", "exec"), names)  # noqa: S102 - as python -c does


if __name__ == "__main__":
    main()
