"""A worker's side of the channel before it serves: who its parent is, and when it may begin."""

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

#: Holds, with colons between them: the parent's process ID, the descriptor of the channel, the
#: worker's number, the number of workers, and the descriptors `memory` and `turns` (ParentLink).
VARIABLE: Final = "GATE_WORKER"
_MOST_SHOWN: Final = 2000
#: prctl(2): sets the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG: Final = 1


class ParentLink:
    """The channel from worker `number` of `count` to its parent.

    All workers share two descriptors: `memory` counts each one's connections (balance.py), and
    `turns` is locked to write logs.
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
        """Report the configuration's digest, and return the sockets once this worker may serve.

        Blocks. Raises ChannelError if the parent has ended.
        """
        self.send({"loaded": digest, "version": __version__})
        reader = Reader()
        while (received := reader.message()) is None:
            if not reader.receive(self.end):
                raise ChannelError("the parent has ended")
        return passed_with(*received)

    def failed(self, reason: str) -> None:
        """Tell the parent why this worker cannot serve."""
        with suppress(OSError):
            self.send({"failed": reason[:_MOST_SHOWN]})

    def send(self, message: Message) -> None:
        """Send a message. Blocks; raises OSError."""
        self.end.sendall(encoded(json.dumps(message)))


def passed_with(message: Message, sockets: list[socket.socket]) -> PassedSockets:
    """Return the sockets that came with a message under the addresses that it names."""
    for sock in sockets:
        sock.setblocking(False)  # noqa: FBT003 - socket's own signature
    names = map(name_for, message["addresses"])
    return PassedSockets(zip(names, sockets, strict=True))


def parent_link(environ: MutableMapping[str, str]) -> ParentLink | None:
    """Return the link of a process that was started as a worker; removes it from `environ`.

    Raises ChannelError if the parent has ended: a worker must not go on as a separate gate, on
    addresses that the next gate needs.
    """
    value = environ.pop(VARIABLE, "")
    if not value:
        return None
    try:
        parent, descriptor, number, count, memory, turns = map(int, value.split(":"))
        # SIGTERM is handled in its own thread, so it ends even a worker whose event loop hangs.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if parent == os.getppid():
            os.set_inheritable(descriptor, False)  # noqa: FBT003 - os's own signature
            os.set_inheritable(memory, False)  # noqa: FBT003 - os's own signature
            os.set_inheritable(turns, False)  # noqa: FBT003 - os's own signature
            return ParentLink(socket.socket(fileno=descriptor), number, count, memory, turns)
    except (OSError, ValueError) as error:
        raise ChannelError(f"{VARIABLE}: {error}") from None
    raise ChannelError("the parent of this worker has ended")
