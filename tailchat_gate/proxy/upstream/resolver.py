"""Looks up host names: one lookup at a time for each name, each in its own thread."""

import asyncio
import ipaddress
import socket
import threading
import time
from contextlib import suppress
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

#: How long an answer is used without another lookup.
FRESH_SECONDS: Final = 5.0
#: How long a failure is used, so that not every request starts a lookup.
FAILED_SECONDS: Final = 1.0
#: How long a request waits for a lookup if an earlier answer can be used (RFC 8767 section 5, the
#: client response timer).
RESPONSE_SECONDS: Final = 0.5
#: How long the last good answer is used while lookups fail or hang.
LAST_GOOD_SECONDS: Final = 3600.0

#: There is no such name, so its last address may belong to another host.
_NO_SUCH_NAME: Final = frozenset((socket.EAI_NONAME, getattr(socket, "EAI_NODATA", -5)))

#: A result of getaddrinfo: family, type, protocol, canonical name, address.
AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]


class _Name:
    """The last lookups of one name."""

    __slots__ = (
        "asked_at",
        "error",
        "failing",
        "good",
        "good_at",
        "host",
        "pending",
        "pending_since",
        "tried_at",
    )  # fmt: skip

    def __init__(self, host: str) -> None:
        self.host: Final = host
        self.good: tuple[AddressInfo, ...] = ()
        self.good_at = self.tried_at = self.asked_at = self.pending_since = float("-inf")
        self.error: OSError = socket.gaierror(socket.EAI_AGAIN, "not looked up yet")
        #: Whether the last lookup failed, or took longer than RESPONSE_SECONDS.
        self.failing = False
        self.pending: asyncio.Future[None] | None = None

    def is_settled(self, now: float) -> bool:
        """Whether no lookup is needed yet."""
        if self.pending is not None:
            return False
        fresh_seconds = FAILED_SECONDS if self.failing else FRESH_SECONDS
        return now - self.tried_at < fresh_seconds

    def is_usable(self, now: float) -> bool:
        return bool(self.good) and now - self.good_at < LAST_GOOD_SECONDS


class Names:
    """The names of tools and of Tailchat, and their addresses.

    A lookup uses getaddrinfo, so that /etc/hosts, search domains and mDNS work as for other
    programs. It may hang as long as the system's resolver does, so each name has its own thread,
    which delays neither other names nor the end of the process.
    """

    def __init__(self) -> None:
        self._time = time.monotonic
        self._names: dict[str, _Name] = {}

    async def addresses(self, host: str, port: int) -> list[AddressInfo]:
        """Return a host's addresses, in the system's order of preference.

        Raises OSError (socket.gaierror) if no address is known.
        """
        if literal := _literal(host, port):
            return [literal]
        now = self._time()
        name = self._name(host, now)
        if not name.is_settled(now):
            await self._wait(name, now)
        if not name.is_usable(self._time()):
            raise name.error
        return [_with_port(info, port) for info in name.good]

    def waits(self, host: str) -> bool:
        """Whether a host is being looked up, and no earlier answer can be used."""
        name = self._names.get(host)
        return name is not None and name.pending is not None and not name.is_usable(self._time())

    def refresh(self, host: str) -> frozenset[str] | None:
        """Return the known addresses of a host, None if nothing is known.

        Starts a lookup if one is due, without waiting for it.
        """
        now = self._time()
        name = self._names.get(host)
        if name is None:
            return None
        if name.pending is None and not name.is_settled(now):
            self._look_up(name, now)
        if not name.good and not name.failing:
            return None
        return frozenset(info[4][0] for info in name.good)

    async def _wait(self, name: _Name, now: float) -> None:
        """Wait for a lookup, at most RESPONSE_SECONDS if an earlier answer can be used."""
        pending = self._look_up(name, now) if name.pending is None else name.pending
        if not name.is_usable(now):
            await asyncio.wait((pending,))
        elif not name.failing:
            left = name.pending_since + RESPONSE_SECONDS - now
            await asyncio.wait((pending,), timeout=max(left, 0.0))
            if not pending.done():
                name.failing = True

    def _name(self, host: str, now: float) -> _Name:
        name = self._names.get(host)
        if name is None:
            for old in [old for old in self._names.values() if _is_forgotten(old, now)]:
                del self._names[old.host]
            name = self._names[host] = _Name(host)
        name.asked_at = now
        return name

    def _look_up(self, name: _Name, now: float) -> "asyncio.Future[None]":
        loop = asyncio.get_running_loop()
        pending = name.pending = loop.create_future()
        name.pending_since = now

        def ask() -> None:
            answer = _getaddrinfo(name.host)
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(self._settle, name, answer)

        try:
            # Not in the loop's executor, because the end of the process waits for its threads.
            threading.Thread(target=ask, name="look-up", daemon=True).start()
        except RuntimeError:
            error = socket.gaierror(socket.EAI_AGAIN, "no thread to look the name up in")
            loop.call_soon(self._settle, name, error)
        return pending

    def _settle(self, name: _Name, answer: tuple[AddressInfo, ...] | OSError) -> None:
        name.tried_at = self._time()
        name.failing = isinstance(answer, OSError)
        if isinstance(answer, OSError):
            name.error = answer
            if answer.errno in _NO_SUCH_NAME:
                name.good = ()
        else:
            name.good, name.good_at = answer, name.tried_at
        pending, name.pending = name.pending, None
        if pending is not None and not pending.done():
            pending.set_result(None)


class NamesResolver(AbstractResolver):
    """A resolver for aiohttp's client that uses `Names`."""

    def __init__(self, names: Names) -> None:
        self._names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return a host's addresses. Raises OSError."""
        return [
            ResolveResult(
                hostname=host,
                host=info[4][0],
                port=port,
                family=info[0],
                proto=info[2],
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for info in await self._names.addresses(host, port)
            if family in (socket.AF_UNSPEC, info[0])
        ]

    async def close(self) -> None:
        """Do nothing: `Names` is shared."""


def _getaddrinfo(host: str) -> tuple[AddressInfo, ...] | OSError:
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        if host.rstrip(".").lower().endswith(".localhost"):
            # Loopback for browsers (RFC 6761 section 6.3), but not for every system.
            return _getaddrinfo("localhost")
        return error
    except UnicodeError:
        return socket.gaierror(socket.EAI_NONAME, "not a host name")
    # If Python is built without IPv6, an IPv6 address has other parts.
    infos: list[AddressInfo] = []
    for family, kind, protocol, canonical, address in addresses:
        if isinstance(address[0], str):
            infos.append((family, kind, protocol, canonical, address))
    return tuple(infos) or socket.gaierror(socket.EAI_NONAME, "no address")


def _literal(host: str, port: int) -> AddressInfo | None:
    """Return the address of a host that is an IP address, None for a name."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    family = socket.AF_INET if version == 4 else socket.AF_INET6  # noqa: PLR2004 - of IP
    address = (host, port) if family is socket.AF_INET else (host, port, 0, 0)
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address


def _with_port(info: AddressInfo, port: int) -> AddressInfo:
    family, kind, protocol, canonical, address = info
    whole = (address[0], port) if len(address) == 2 else (address[0], port, *address[2:])  # noqa: PLR2004 - IPv4
    return family, kind, protocol, canonical, whole


def _is_forgotten(name: _Name, now: float) -> bool:
    return name.pending is None and now - name.asked_at > LAST_GOOD_SECONDS
