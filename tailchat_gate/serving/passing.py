"""Starts a program with listening sockets, as sd_listen_fds(3) wants them."""

import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from tailchat_gate.serving.inherited import name_for

#: Moves the descriptors of the first argument to 3 and up, and becomes the program of the others.
#: LISTEN_PID is the number of that process, which nobody knows before it exists. The signals that a
#: gate takes in a thread of its own are blocked in what it starts.
_MOVE: Final = """
import fcntl, os, signal, sys
signal.pthread_sigmask(signal.SIG_SETMASK, [])
given = [int(number) for number in sys.argv[1].split(",")]
wanted = range(3, 3 + len(given))
moved = [fcntl.fcntl(number, fcntl.F_DUPFD, wanted.stop) for number in given]
for number in given:
    os.close(number)
for number, place in zip(moved, wanted):
    os.dup2(number, place)
    os.close(number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Passing(NamedTuple):
    """A command, the descriptors that its process inherits, and its environment."""

    command: Sequence[str]
    descriptors: Sequence[int]
    environ: Mapping[str, str]


def passing(
    command: Sequence[str],
    sockets: Sequence[tuple[str, socket.socket]],
    environ: Mapping[str, str],
) -> Passing:
    """Return how to start `command`, whose first word is a path, with sockets by their address."""
    descriptors = [found.fileno() for _, found in sockets]
    if not descriptors:
        return Passing(command, (), environ)
    variables = {
        "LISTEN_FDS": str(len(descriptors)),
        "LISTEN_FDNAMES": ":".join(name_for(address) for address, _ in sockets),
    }
    moved = ",".join(map(str, descriptors))
    return Passing(
        (sys.executable, "-I", "-S", "-c", _MOVE, moved, *command),
        descriptors,
        {**environ, **variables},
    )
