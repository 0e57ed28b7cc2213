"""PROXY headers, as bytes: cut anywhere, and followed by anything."""

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.request.proxy_header import (
    LONGEST_HEADER,
    ProxyHeader,
    ProxyHeaderError,
    read_proxy_header,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
PORTS = st.integers(0, 65535)


@st.composite
def headers(draw: st.DrawFn) -> tuple[bytes, str]:
    """Draw a header of either version, and the address that it names."""
    of_version = draw(st.sampled_from((st.ip_addresses(v=4), st.ip_addresses(v=6))))
    first, second = draw(of_version), draw(of_version)
    version, source, to = first.version, str(first), str(second)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    packed = socket.inet_pton(family, source)
    if packed.startswith(bytes(10) + b"\xff\xff"):
        source = "::1"
        packed = socket.inet_pton(family, source)
    ports = draw(PORTS), draw(PORTS)
    if draw(st.booleans()):
        line = f"PROXY TCP{version} {source} {to} {ports[0]} {ports[1]}\r\n"
        return line.encode(), source
    rest = packed + socket.inet_pton(family, to) + struct.pack(">HH", *ports)
    rest += draw(st.binary(max_size=300))
    start = SIGNATURE + bytes((0x21, 0x11 if version == 4 else 0x21))
    return start + struct.pack(">H", len(rest)) + rest, source


@given(headers(), st.binary(max_size=200))
def test_a_header_ends_where_it_ends(drawn: tuple[bytes, str], after: bytes) -> None:
    """Every part of it asks for more, and whatever follows belongs to something else."""
    header, source = drawn
    for size in {0, 1, 5, 11, 12, 15, 16, len(header) // 2, len(header) - 1}:
        part = header[: min(size, len(header) - 1)]
        assert read_proxy_header(part) == (None, len(part))
    assert read_proxy_header(header + after) == (ProxyHeader(source), len(header))


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda rest: b"PROXY " + rest))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Nothing else happens, and what waits for more is bounded."""
    try:
        header, size = read_proxy_header(data)
    except ProxyHeaderError:
        return
    assert 0 <= size <= min(len(data), LONGEST_HEADER)
    assert header is not None or size == len(data)
