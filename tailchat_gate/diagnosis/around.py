"""Who reaches a tool without the gate, as far as this machine can tell."""

import asyncio
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final, NamedTuple

from tailchat_gate.config.values.address import HttpAddress, TcpAddress, UnixAddress
from tailchat_gate.diagnosis.statement import (
    CALL_SECONDS,
    Statement,
    in_thread,
    ok,
    unknown,
    warning,
)
from tailchat_gate.proxy.upstream.resolver import Names

AROUND: Final = "around"
_Address = IPv4Address | IPv6Address
#: Of proc(5): local addresses in hexadecimal, their words in this machine's order of bytes.
_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTEN: Final = "0A"
_WORD: Final = 8
_REMEDY: Final = (
    "let the tool listen where only the gate reaches it, keep others out by a firewall, or have it "
    "check X-Tailchat-Assertion"
)


class Listener(NamedTuple):
    """A socket of this machine, or of this container, that takes connections."""

    address: _Address
    port: int

    def __str__(self) -> str:
        """The address as people write it."""
        return str(TcpAddress(str(self.address), self.port))


async def who_else(
    label: str, address: HttpAddress | UnixAddress, names: Names
) -> AsyncIterator[Statement]:
    """Say who reaches a tool beside the gate."""
    if isinstance(address, UnixAddress):
        statement = await in_thread(lambda: of_socket(label, Path(address.path)))
        if statement is not None:
            yield statement
        return
    try:
        async with asyncio.timeout(CALL_SECONDS):
            infos = await names.addresses(address.host, address.port)
    except OSError:
        return  # said already where it is asked whether the tool answers
    found = [ip_address(info[4][0].partition("%")[0]) for info in infos]
    if all(one.is_loopback for one in found):
        listeners = await in_thread(lambda: tuple(read_listeners()))
        yield of_loopback(label, address.port, listeners)
    else:
        yield of_network(label, [one for one in found if not one.is_loopback])


def of_socket(label: str, path: Path) -> Statement | None:
    """Say whether every user of this machine can connect to a Unix socket."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if mode & stat.S_IWOTH:
        text = f"{label}: every user of this machine can connect to the socket"
        return warning(AROUND, text, f"`chmod o-w {path}`, or a directory that others cannot enter")
    return ok(AROUND, f"{label}: others of this machine cannot connect to the socket")


def of_loopback(label: str, port: int, listeners: tuple[Listener, ...]) -> Statement:
    """Say where else than on loopback a tool of this machine listens."""
    there = [one for one in listeners if one.port == port]
    outside = sorted({str(one) for one in there if not one.address.is_loopback})
    if outside:
        where = ", ".join(outside)
        text = f"{label}: port {port} is open beyond this machine, at {where}"
        return warning(AROUND, text, _REMEDY)
    if not there:
        return unknown(AROUND, f"{label}: from here it cannot be told where it listens")
    return ok(AROUND, f"{label}: it listens for this machine alone")


def of_network(label: str, addresses: list[_Address]) -> Statement:
    """Say which networks an address is in."""
    public = [str(one) for one in addresses if one.is_global]
    if public:
        text = f"{label}: {public[0]} is a public address, so anybody may reach it around the gate"
        return warning(AROUND, text, _REMEDY)
    return ok(
        AROUND,
        f"{label}: {addresses[0]} is in a private network; who is in it may reach it around the "
        "gate",
    )


def read_listeners() -> Iterator[Listener]:
    """Yield the listening TCP sockets that this process can see; none where /proc has none."""
    for table in _TABLES:
        try:
            lines = table.read_text("ascii").splitlines()[1:]
        except (OSError, UnicodeDecodeError):
            continue
        for line in lines:
            parts = line.split()
            if len(parts) > 3 and parts[3] == _LISTEN:  # noqa: PLR2004 - sl, local, remote, st
                host, _, port = parts[1].partition(":")
                yield Listener(_address(host), int(port, 16))


def _address(text: str) -> _Address:
    words = [text[start : start + _WORD] for start in range(0, len(text), _WORD)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    found = ip_address(packed)
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found
