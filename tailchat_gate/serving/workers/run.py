"""Runs the parent of several workers in this process."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tailchat_gate.config.load import Loaded, Source
from tailchat_gate.proxy.sockets import raise_limit
from tailchat_gate.serving.listening.balance import takes_none
from tailchat_gate.serving.process import live
from tailchat_gate.serving.signals import Signals
from tailchat_gate.serving.surroundings import Surroundings
from tailchat_gate.serving.workers.parent import Parent, Start


def run_parent(
    loaded: Loaded, signals: Signals, source: Source, around: Surroundings, count: int
) -> None:
    """Serve with `count` workers until a signal, or until another process has taken over."""
    # The command that started this process: the environment tells the new one to be a worker.
    command = (sys.executable, *sys.orig_argv[1:])
    left_out = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    environ = {name: value for name, value in os.environ.items() if name not in left_out}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if ignored, waiting for a worker fails
    memory = _memory(count)
    raise_limit()
    parent = Parent(loaded, source, Start(command, environ, count, memory), around)
    asyncio.run(live(parent, signals))


def processors() -> int:
    """Return the number of processors the gate may use, by its affinity and its cgroup's quota."""
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(count, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # the quota "max" is no number
        return count


def _memory(count: int) -> int:
    """Return the descriptor of the memory that the processes share. Raises OSError."""
    descriptor = os.memfd_create("gate-workers", os.MFD_CLOEXEC)
    for number in range(1, count + 1):
        takes_none(descriptor, number)
    return descriptor
