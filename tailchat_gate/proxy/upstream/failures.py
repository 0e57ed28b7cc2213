"""The kinds of upstream failures: a closed list for the metrics."""

import errno
import socket
import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tailchat_gate.proxy.upstream.interfaces import End
from tailchat_gate.reasons import Reason

#: The errno of an OSError where the process or the system has no descriptor left.
NO_DESCRIPTOR: Final = frozenset((errno.EMFILE, errno.ENFILE))
#: The metrics labels of the ends of exchanges that are the upstream's fault.
KINDS: Final = MappingProxyType(
    {
        End.UNANSWERED: "closed",
        End.BROKEN: "broken",
        End.TRUNCATED: "cut-off",
        End.RESPONSE_TIMEOUT: "slow",
        End.IDLE_TIMEOUT: "silent",
    }
)
#: The reason of a request whose exchange ended so.
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
#: The look-up of the name failed, or took the whole time for a connection.
DNS: Final = "dns"
#: Failures that a restart of the upstream causes: no connection, so nothing was sent.
PASSING: Final = frozenset((DNS, "refused", "reset", "unreachable"))


def kind_of(error: OSError) -> str:
    """Return the metrics label of a failure to connect."""
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
