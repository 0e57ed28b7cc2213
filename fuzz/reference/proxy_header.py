"""PROXY headers, read in the plainest way (HAProxy's doc/proxy-protocol.txt, sections 2.1, 2.2)."""

import socket

from fuzz.reference.syntax import DIGITS, BadError

_SIGNATURE = bytes((0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A))
#: The family and transport bytes of streams, with the size of both addresses and ports.
_STREAMS = {0x11: 12, 0x21: 36, 0x31: 216}
_LONGEST = 8192


def proxy_header(data: bytes) -> tuple[str, int] | None:
    """Return the client's address, as the system writes it, and the header's size.

    "" is the proxy itself, "unknown" a client that it does not know; None: more bytes are needed.
    Raises BadError.
    """
    if data.startswith(_SIGNATURE):
        return _second(data)
    if data.startswith(b"PROXY "):
        return _first(data)
    if _SIGNATURE.startswith(data) or b"PROXY ".startswith(data):
        return None
    raise BadError


def _first(data: bytes) -> tuple[str, int] | None:
    end = data.find(b"\r\n", 0, 107)
    if end < 0:
        if len(data) >= 107:
            raise BadError
        return None
    line = data[:end]
    if max(line) > 127:
        raise BadError
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return "unknown", end + 2
    pieces = line.split(b" ")
    if len(pieces) != 6 or pieces[1] not in {b"TCP4", b"TCP6"}:
        raise BadError
    family = socket.AF_INET if pieces[1] == b"TCP4" else socket.AF_INET6
    for port in pieces[4:]:
        if not port or len(port) > 5 or not DIGITS.issuperset(port) or int(port) > 65535:
            raise BadError
        if port != b"0" and port.startswith(b"0"):
            raise BadError
    source = _packed(family, pieces[2])
    _packed(family, pieces[3])
    return _written(family, source), end + 2


def _second(data: bytes) -> tuple[str, int] | None:
    if len(data) < 16:
        return None
    length = data[14] * 256 + data[15]
    if data[12] not in {0x20, 0x21} or length > _LONGEST:
        raise BadError
    if data[12] == 0x21 and data[13] and length < _STREAMS.get(data[13], 65536):
        raise BadError
    if len(data) < 16 + length:
        return None
    if data[12] == 0x20:
        return "", 16 + length
    if data[13] == 0x11:
        return _written(socket.AF_INET, data[16:20]), 16 + length
    if data[13] == 0x21:
        return _written(socket.AF_INET6, data[16:32]), 16 + length
    return "unknown", 16 + length


def _packed(family: int, text: bytes) -> bytes:
    try:
        return socket.inet_pton(family, text.decode("ascii"))
    except (OSError, ValueError):
        raise BadError from None


def _written(family: int, packed: bytes) -> str:
    if family == socket.AF_INET6 and packed.startswith(bytes(10) + b"\xff\xff"):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(family, packed)
