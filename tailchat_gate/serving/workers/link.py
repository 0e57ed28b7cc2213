"""A worker's side of the channel before it serves: whom it belongs to, and when it may begin."""

import ctypes
import json
import os
import signal
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final

from tailchat_gate import __version__
from tailchat_gate.serving.systemd import PassedSockets, name_for
from tailchat_gate.serving.workers.channel import ChannelError, Message, Reader, encoded

#: Names the parent, the descriptor of the channel, the worker's number, how many there are, and the
#: descriptors of what they share.
VARIABLE: Final = "GATE_WORKER"
_MOST_SHOWN: Final = 2000
#: Of prctl(2): the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG: Final = 1


class ParentLink:
    """The channel of worker `number`, of `count`, to its parent.

    `memory` and `turns` are descriptors of what all of them share: how many connections each has,
    and what they lock to write their logs.
    """

    def __init__(
        self, end: socket.socket, number: int, count: int, memory: int, turns: int
    ) -> None:
        self.end: Final = end
        self.number: Final = number
        self.count: Final = count
        self.memory: Final = memory
        self.turns: Final = turns

    def join(self, digest: str) -> PassedSockets:
        """Say what was read; wait until the parent lets this worker serve, on these sockets.

        Blocks. Raises ChannelError once there is no parent.
        """
        self.say({"loaded": digest, "version": __version__})
        reader = Reader()
        while (found := reader.message()) is None:
            if not reader.receive(self.end):
                raise ChannelError("the parent has ended")
        return passed_with(*found)

    def failed(self, reason: str) -> None:
        """Say why this worker cannot serve."""
        with suppress(OSError):
            self.say({"failed": reason[:_MOST_SHOWN]})

    def say(self, message: Message) -> None:
        """Send a message. Blocks; raises OSError."""
        self.end.sendall(encoded(json.dumps(message)))


def passed_with(message: Message, sockets: list[socket.socket]) -> PassedSockets:
    """Return the sockets of a message by the addresses that it names."""
    for one in sockets:
        one.setblocking(False)  # noqa: FBT003 - socket's own signature
    names = map(name_for, message["addresses"])
    return PassedSockets(zip(names, sockets, strict=True))


def parent_link(environ: MutableMapping[str, str]) -> ParentLink | None:
    """Return the link of a process that was started as a worker, and take it out of `environ`.

    Raises ChannelError where its parent has ended: it must not become a gate of its own, which
    nobody started, on the addresses that the next one needs.
    """
    told = environ.pop(VARIABLE, "")
    if not told:
        return None
    try:
        parent, descriptor, number, count, memory, turns = map(int, told.split(":"))
        # SIGTERM is taken in a thread of its own, so that also a worker that hangs ends.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if parent == os.getppid():
            os.set_inheritable(descriptor, False)  # noqa: FBT003 - os's own signature
            os.set_inheritable(memory, False)  # noqa: FBT003 - os's own signature
            os.set_inheritable(turns, False)  # noqa: FBT003 - os's own signature
            return ParentLink(socket.socket(fileno=descriptor), number, count, memory, turns)
    except (OSError, ValueError) as error:
        raise ChannelError(f"{VARIABLE}: {error}") from None
    raise ChannelError("the parent of this worker has ended")
