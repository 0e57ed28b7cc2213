"""How many connections by TLS the memory of the process has room for."""

import os
from asyncio import sslproto
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from tailchat_gate.proxy.sockets import READ_BYTES

#: What one takes at most, with a head and a body that nobody reads, in bytes: measured 207 kB on
#: asyncio's loop and 742 kB on uvloop's, whose buffer for a read is four times as large.
ASYNCIO_BYTES: Final = 256 << 10
UVLOOP_BYTES: Final = 768 << 10
#: They may take one in so many of the bytes that the process may have.
_PART: Final = 2
_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUPS: Final = Path("/proc/self/cgroup")


def read_less() -> None:
    """Let asyncio's TLS connections of this process have buffers of a usual size.

    One of 256 KiB is made for each at its beginning, and stays.
    """
    sslproto.SSLProtocol.max_size = READ_BYTES


def tls_connections(memory: int, *, uvloop: bool) -> int:
    """Return how many there may be in a process that may have so many bytes of memory."""
    return max(1, memory // _PART // (UVLOOP_BYTES if uvloop else ASYNCIO_BYTES))


def memory_limit(own: Path = _OWN_CGROUPS, root: Path = _CGROUPS) -> int:
    """Return how many bytes of memory the process may have: the machine's, or its cgroups'. Blocks.

    `own` names its groups, whose files are below `root` (cgroups(7)).
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min((machine, *_limits(own, root)))


def _limits(own: Path, root: Path) -> Iterator[int]:
    """Yield the limits of its groups; each holds for all groups below, too."""
    lines: list[str] = []
    with suppress(OSError, ValueError):
        lines = own.read_text().splitlines()
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            folder, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        # A container may be told a path of the machine, of which it sees the last part alone.
        path = Path(group.strip("/"))
        for each in (path, *path.parents):
            # "max" is no number, and no limit.
            with suppress(OSError, ValueError):
                yield int((folder / each / name).read_text())
