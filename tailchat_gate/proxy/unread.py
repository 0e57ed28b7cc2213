"""The last words of a connection that broke."""

import asyncio
import os
from typing import Final

#: How much of them is read at most.
_MAX_BYTES: Final = 262_144


def unread(transport: asyncio.Transport | None) -> bytes:
    """Return what the peer had sent before its connection broke, as far as nobody has read it.

    To be asked while connection_lost runs, when the socket is still open. A write that fails is
    the end of a transport at once, even where the reason for it lies unread in the socket: the
    413 or the close frame behind which the peer has closed. Of TLS nothing is returned.
    """
    if transport is None or transport.get_extra_info("ssl_object") is not None:
        return b""
    found = transport.get_extra_info("socket")
    words = b""
    try:
        while len(words) < _MAX_BYTES and (more := os.read(found.fileno(), _MAX_BYTES)):
            words += more
    except OSError:
        return words
    return words
