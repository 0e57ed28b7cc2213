"""What goes wrong with an upstream, by kind: a closed list for the metrics."""

import errno
import socket
import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tailchat_gate.proxy.upstream.interfaces import End
from tailchat_gate.reasons import Reason

#: Of an OSError: the process or the system has no descriptor left.
NO_DESCRIPTOR: Final = frozenset((errno.EMFILE, errno.ENFILE))
#: What the metrics call the ends of exchanges that are the upstream's fault.
KINDS: Final = MappingProxyType(
    {
        End.UNANSWERED: "closed",
        End.BROKEN: "broken",
        End.TRUNCATED: "cut-off",
        End.RESPONSE_TIMEOUT: "slow",
        End.IDLE_TIMEOUT: "silent",
    }
)
#: Why such a request failed.
REASONS: Final[Mapping[End, Reason]] = MappingProxyType(
    {
        End.UNANSWERED: Reason.UPSTREAM_BROKEN,
        End.BROKEN: Reason.UPSTREAM_BROKEN,
        End.TRUNCATED: Reason.UPSTREAM_BROKEN,
        End.RESPONSE_TIMEOUT: Reason.UPSTREAM_SLOW,
        End.IDLE_TIMEOUT: Reason.UPSTREAM_BROKEN,
        End.CLIENT_GONE: Reason.CLIENT_GONE,
    }
)
#: No name server answered in time, where the time for a connection ran out with that.
DNS: Final = "dns"
#: What a restart looks like: there is no connection, so nothing was sent.
PASSING: Final = frozenset((DNS, "refused", "reset", "unreachable"))


def kind_of(error: OSError) -> str:
    """Return what the metrics call a connection that could not be opened."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, socket.gaierror):
        return DNS
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionError):
        return "reset"
    return "descriptors" if error.errno in NO_DESCRIPTOR else "unreachable"
