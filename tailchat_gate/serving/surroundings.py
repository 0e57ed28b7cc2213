"""The process's surroundings: passed sockets, its manager, the process before it."""

import sys
from collections.abc import MutableMapping
from typing import NamedTuple

from tailchat_gate.serving.balance import Balance
from tailchat_gate.serving.systemd import (
    PassedSockets,
    ServiceManager,
    passed_sockets,
    service_manager,
)
from tailchat_gate.serving.upgrade import Predecessor, Successor


class Surroundings(NamedTuple):
    """The other processes: `successor` starts the one that takes over, None where none can.

    `balance`: with other workers of one parent, which binds all addresses, passes those of
    visitors, and is asked by admins; None for a gate by itself.
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
    # As it was started, from the same places: what is there now is the new version.
    command = (sys.executable, *sys.orig_argv[1:])
    return Surroundings(
        passed_sockets(environ),
        service_manager(environ),
        predecessor,
        Successor(command, environ),
    )
