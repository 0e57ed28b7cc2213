"""How a connection ended: its last words where it broke, and whether TLS was ended at all."""

import asyncio
import os
import ssl
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
    if found is None:
        return b""
    words = b""
    try:
        while len(words) < _MAX_BYTES and (more := os.read(found.fileno(), _MAX_BYTES)):
            words += more
    except OSError:
        return words
    return words


def end_writing(transport: asyncio.Transport) -> bool:
    """Send the end of what was written; return False where the peer has reset the connection.

    asyncio's own transport raises then, uvloop's does not.
    """
    try:
        transport.write_eof()
    except OSError:
        transport.abort()
        return False
    return True


def is_told(transport: asyncio.Transport | None) -> bool:
    """Tell whether the peer itself has ended what it sends, once an end was heard of.

    The end of TCP is enough. Of TLS it is not: anybody between can make one, so only the closing
    alert says that all has come (RFC 9112 section 9.8, RFC 8446 section 6.1).
    """
    found = transport.get_extra_info("ssl_object") if transport is not None else None
    if found is None:
        return True
    try:
        # All that came was given to the protocol before the end was: nothing is taken here.
        return not found.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False
