"""PROXY headers: cut in any way they name the client that a plain reader finds, and end there."""

from ipaddress import ip_address

from fuzz.cutting import SIZES, cut, steered
from fuzz.reference.proxy_header import proxy_header
from fuzz.reference.syntax import BadError
from fuzz.target import Target
from tailchat_gate.request.proxy_header import ProxyHeaderError, read_proxy_header

_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_V4 = b"\xcb\x00\x71\x07\x7f\x00\x00\x01\xdb\x04\x01\xbb"
_V6 = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x09" + bytes(15) + b"\x01" + b"\xdb\x04\x01\xbb"


def check(data: bytes) -> None:
    """Read a header from growing pieces, as a socket brings them."""
    sizes, rest = steered(data, SIZES)
    seen = b""
    for piece in cut(rest, sizes):
        seen += piece
        try:
            wanted = proxy_header(seen)
        except BadError:
            wanted = None
            refused = True
        else:
            refused = False
        try:
            found, size = read_proxy_header(seen)
        except ProxyHeaderError:
            assert refused, seen
            return
        assert not refused, seen
        if wanted is None:
            assert (found, size) == (None, len(seen))
            continue
        assert found is not None
        assert (_one_spelling(found.address), size) == (_one_spelling(wanted[0]), wanted[1])
        return


def _one_spelling(address: str) -> str:
    return address if address in {"", "unknown"} else str(ip_address(address))


TARGET = Target(
    check,
    parsers=("request.proxy_header",),
    seeds=(
        b"\0\0\0PROXY TCP4 203.0.113.7 127.0.0.1 56324 443\r\nGET / HTTP/1.1\r\n",
        b"\1\0\0PROXY TCP6 2001:db8::9 ::1 56324 443\r\n",
        b"\7\0\0PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n",
        b"\0\0\0PROXY UNKNOWN\r\n",
        b"\0\0\0PROXY UNKNOWN ffff:f...f:ffff 65535\r\n",
        b"\0\0\0PROXY TCP4 203.0.113.07 127.0.0.1 1 2\r\n",
        b"\0\0\0PROXY TCP4 203.0.113.7 127.0.0.1 01 65536\r\n",
        b"\0\0\0PROXY TCP4 203.0.113.7  127.0.0.1 1 2\r\n",
        b"\0\0\0PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"\0\0\0PROXY TCP4 \xff 127.0.0.1 1 2\r\n",
        b"\0\0\0PROXY " + b"a" * 101,
        b"\5\0\0" + _V2 + b"\x21\x11\x00\x0c" + _V4 + b"\x16\x03\x01",
        b"\0\0\0" + _V2 + b"\x21\x21\x00\x2b" + _V6 + b"\x04\x00\x04abcd",
        b"\0\0\0" + _V2 + b"\x20\x00\x00\x00GET",
        b"\0\0\0" + _V2 + b"\x21\x00\x00\x03abc",
        b"\0\0\0" + _V2 + b"\x21\x31\x00\xd8" + bytes(216),
        b"\0\0\0" + _V2 + b"\x21\x12\x00\x0c" + _V4,
        b"\0\0\0" + _V2 + b"\x21\x11\x00\x0b" + _V4,
        b"\0\0\0" + _V2 + b"\x22\x11\x00\x0c" + _V4,
        b"\0\0\0" + _V2 + b"\x21\x11\xff\xff" + _V4,
        b"\0\0\0GET / HTTP/1.1\r\n",
    ),
    words=(
        *(b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"\r\n", b" ", b"::1", b"203.0.113.7", b"0"),
        *(_V2, b"\x21\x11\x00\x0c", b"\x21\x21\x00\x24", b"\x20\x00\x00\x00", _V4, _V6),
    ),
)
