"""What a process gets from outside: sockets, its service manager, its predecessor."""

import sys
from collections.abc import MutableMapping
from typing import NamedTuple

from tailchat_gate.serving.listening.balance import Balance
from tailchat_gate.serving.systemd import (
    PassedSockets,
    ServiceManager,
    passed_sockets,
    service_manager,
)
from tailchat_gate.serving.upgrade import Predecessor, Successor


class Surroundings(NamedTuple):
    """The sockets and processes around this one.

    `successor` starts a process that takes over, None if none can. `balance` is given to workers
    only.
    """

    passed: PassedSockets
    manager: ServiceManager
    predecessor: Predecessor
    successor: Successor | None
    balance: Balance | None = None


def no_surroundings() -> Surroundings:
    """Return the surroundings of a gate inside another program."""
    return Surroundings(PassedSockets(), ServiceManager(), Predecessor(), None)


def surroundings(environ: MutableMapping[str, str], predecessor: Predecessor) -> Surroundings:
    """Read the surroundings from `environ`. Raises PassedSocketError."""
    # The command that started this process: the files there may be a new version by now.
    command = (sys.executable, *sys.orig_argv[1:])
    return Surroundings(
        passed_sockets(environ),
        service_manager(environ),
        predecessor,
        Successor(command, environ),
    )
