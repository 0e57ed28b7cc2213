"""The PROXY protocol, versions 1 and 2: the header in which a proxy names its client.

Source: HAProxy's doc/proxy-protocol.txt. It is read strictly: a connection that does not begin with
such a header is refused.
"""

from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from tailchat_gate.syntax import MAX_PORT

#: Section 2.1: the longest line of version 1, with CRLF.
_LONGEST_LINE: Final = 107
#: Section 2.2: the signature of version 2, and its bytes before the addresses.
_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED: Final = 16
#: The most bytes of addresses and TLVs. HAProxy's own need less than 536 bytes, a TLV with a
#: certificate some thousand.
_LONGEST_REST: Final = 8192
#: No header is longer.
LONGEST_HEADER: Final = _FIXED + _LONGEST_REST

_WORD: Final = b"PROXY "
_WORDS: Final = len(("PROXY", "TCP4", "source", "destination", "port", "port"))
_LOCAL, _PROXY = 0x20, 0x21
#: Version 2: the family and transport byte, with the size of its addresses.
_UNSPECIFIED: Final = 0x00
_TCP4, _TCP6, _UNIX = (0x11, 12), (0x21, 36), (0x31, 216)
_SIZES: Final = dict((_TCP4, _TCP6, _UNIX))

#: The address of a client that the proxy does not know (RFC 7239 section 6.2).
UNKNOWN: Final = "unknown"


class ProxyHeader(NamedTuple):
    """The address of the client, "" for the proxy's own connection, such as a health check."""

    address: str


class ProxyHeaderError(ValueError):
    """A connection does not begin with a valid PROXY header; the text says what is wrong."""


def read_proxy_header(data: bytes) -> tuple[ProxyHeader | None, int]:
    """Return the header that `data` begins with, and how many bytes of `data` belong to it.

    The header is None while it is incomplete; then all of `data` belongs to it. Raises
    ProxyHeaderError.
    """
    if data[: len(_SIGNATURE)] == _SIGNATURE[: len(data)]:
        return _binary(data)
    if data[: len(_WORD)] == _WORD[: len(data)]:
        return _line(data)
    raise ProxyHeaderError("no PROXY header")


def _line(data: bytes) -> tuple[ProxyHeader | None, int]:
    line, end, _ = data[:_LONGEST_LINE].partition(b"\r\n")
    if not end:
        if len(data) >= _LONGEST_LINE:
            raise ProxyHeaderError("a line that is too long")
        return None, len(data)
    size = len(line) + len(end)
    try:
        words = line.decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProxyHeaderError("a line that is not ASCII") from None
    if words[1] == "UNKNOWN":
        # The rest of the line is to be ignored.
        return ProxyHeader(UNKNOWN), size
    return ProxyHeader(_source(words)), size


def _source(words: list[str]) -> str:
    """Return the client's address from the words of a line of version 1."""
    # The protocol has no zones ("%eth0"), but Python's class accepts them.
    if len(words) != _WORDS or words[1] not in {"TCP4", "TCP6"} or "%" in words[2] + words[3]:
        raise ProxyHeaderError("a line of another form")
    read = IPv4Address if words[1] == "TCP4" else IPv6Address
    try:
        source, _ = read(words[2]), read(words[3])
    except ValueError:
        raise ProxyHeaderError("a line without two addresses") from None
    if not all(map(_is_port, words[4:])):
        raise ProxyHeaderError("a line without two ports")
    return _text(source)


def _is_port(text: str) -> bool:
    """Whether a text is a port: a number without leading zeros."""
    # int() is not slow here, because the line is short.
    return text.isdecimal() and str(int(text)) == text and int(text) <= MAX_PORT


def _binary(data: bytes) -> tuple[ProxyHeader | None, int]:
    if len(data) < _FIXED:
        return None, len(data)
    command, family = data[12], data[13]
    length = int.from_bytes(data[14:_FIXED], "big")
    if command not in {_LOCAL, _PROXY}:
        raise ProxyHeaderError("another version or command")
    if length > _LONGEST_REST:
        raise ProxyHeaderError("a header that is too long")
    if command == _PROXY and family != _UNSPECIFIED and length < _SIZES.get(family, length + 1):
        raise ProxyHeaderError("no addresses of a stream")
    size = _FIXED + length
    if len(data) < size:
        return None, len(data)
    if command == _LOCAL:
        return ProxyHeader(""), size
    # TLVs follow the addresses; the gate needs none of them.
    if family == _TCP4[0]:
        return ProxyHeader(_text(IPv4Address(data[_FIXED : _FIXED + 4]))), size
    if family == _TCP6[0]:
        return ProxyHeader(_text(IPv6Address(data[_FIXED : _FIXED + 16]))), size
    return ProxyHeader(UNKNOWN), size


def _text(address: IPv4Address | IPv6Address) -> str:
    """Return an address as text; one mapped into IPv6 as IPv4."""
    if isinstance(address, IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or address)
