"""Connects to upstreams: tries every address (RFC 8305) and checks the certificate's key."""

import asyncio
import hashlib
import socket
import ssl
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeVar

from aiohappyeyeballs import start_connection
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tailchat_gate.proxy.sockets import ReadBuffers
from tailchat_gate.proxy.upstream.backends import Backend
from tailchat_gate.proxy.upstream.resolver import AddressInfo, Names

#: What a pin begins with.
SHA256 = "sha256:"

#: How long an address may be silent before the next is tried in parallel (RFC 8305 section 5).
STAGGER_SECONDS: Final = 0.25
#: How long an address that did not answer is tried after the others.
SILENT_SECONDS: Final = 60.0
_MOST_SILENT: Final = 1024

_P = TypeVar("_P", bound=asyncio.BaseProtocol)


def pin_of(certificate: bytes) -> str:
    """Return the pin of a certificate in DER: the SHA-256 of its public key (RFC 7469 section 2.4).

    Raises ValueError where no key can be read from it.
    """
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SHA256 + hashlib.sha256(encoded).hexdigest()


def check_pin(connection: ssl.SSLObject | None, pins: Collection[str]) -> None:
    """Raise SSLError where the peer's key is not one of the pinned keys."""
    certificate = connection.getpeercert(binary_form=True) if connection is not None else None
    try:
        found = pin_of(certificate or b"")
    except ValueError:
        raise ssl.SSLError("no certificate with a key that tls_pin can name") from None
    if found not in pins:
        raise ssl.SSLError(f"the tool's key is {found}, which tls_pin does not name")


class Dialer:
    """Opens connections, and remembers which addresses did not answer."""

    def __init__(self, names: Names) -> None:
        self.names: Final = names
        self.buffers: Final = ReadBuffers()
        self._time = time.monotonic
        self._silent: dict[tuple[str, int], float] = {}

    async def connect(self, backend: Backend, make: Callable[[], _P]) -> _P:
        """Open a connection whose protocol `make` builds. Raises OSError or ssl.SSLError."""
        loop = asyncio.get_running_loop()
        if backend.path:
            return (await loop.create_unix_connection(make, backend.path))[1]
        opened = await self._open(await self.names.addresses(backend.host, backend.port))
        name = (backend.server_name or backend.host) if backend.tls else None
        transport, made = await loop.create_connection(
            make, sock=opened, ssl=backend.tls, server_hostname=name
        )
        if backend.pins:
            try:
                check_pin(transport.get_extra_info("ssl_object"), backend.pins)
            except ssl.SSLError:
                # Nothing was sent yet.
                transport.abort()
                raise
        return made

    async def _open(self, infos: Sequence[AddressInfo]) -> socket.socket:
        """Return a socket that is connected to the first address that answers."""
        tried: list[tuple[socket.socket, AddressInfo]] = []

        def make(info: AddressInfo) -> socket.socket:
            made = socket.socket(info[0], info[1], info[2])
            tried.append((made, info))
            return made

        opened = await start_connection(
            self._ordered(infos),
            happy_eyeballs_delay=STAGGER_SECONDS,
            socket_factory=make,
            loop=asyncio.get_running_loop(),
        )
        self._note(opened, tried)
        return opened

    def _ordered(self, infos: Sequence[AddressInfo]) -> list[AddressInfo]:
        if not self._silent:
            return list(infos)
        now = self._time()
        return sorted(infos, key=lambda info: self._silent.get(info[4][:2], now) > now)

    def _note(
        self, opened: socket.socket, tried: Sequence[tuple[socket.socket, AddressInfo]]
    ) -> None:
        """Remember the addresses that had their turn before the one that answered."""
        now = self._time()
        for made, info in tried:
            where = info[4][:2]
            if made is opened:
                self._silent.pop(where, None)
                return
            if len(self._silent) >= _MOST_SILENT:
                self._silent.clear()
            self._silent[where] = now + SILENT_SECONDS
