"""Backends: which routes share their connections, and how a connection is opened.

All addresses of a name are tried (RFC 8305), and pinned keys of certificates are checked.
"""

import asyncio
import hashlib
import socket
import ssl
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from aiohappyeyeballs import start_connection
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tailchat_gate.bounded import BoundedCache
from tailchat_gate.config.files import client_context
from tailchat_gate.config.model import RouteSettings
from tailchat_gate.config.values.address import HttpAddress, UnixAddress
from tailchat_gate.proxy.sockets import ReadBuffers
from tailchat_gate.proxy.upstream.resolver import AddressInfo, Names


@dataclass(frozen=True, slots=True)
class Backend:
    """An upstream: `host` and `port`, or the `path` of a Unix socket; `tls` if it uses https.

    `server_name` is the name that is sent (SNI) and verified, "" for `host`. `pins` are the
    allowed keys; () allows any.
    """

    url: str
    host: str = ""
    port: int = 0
    path: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    pins: tuple[str, ...] = ()

    @classmethod
    def of_route(cls, settings: RouteSettings, address: HttpAddress | UnixAddress) -> "Backend":
        """Return the backend of a route with `address`; reads the route's PEM files."""
        if isinstance(address, UnixAddress):
            return cls(str(address), path=address.path)
        tls = None
        if address.tls:
            tls = client_context(
                settings.tls_ca,
                settings.tls_certificate,
                settings.tls_key,
                pinned=bool(settings.tls_pin),
            )
        name = settings.tls_server_name or ""
        return cls(
            str(address),
            address.host,
            address.port,
            tls=tls,
            server_name=name,
            pins=settings.tls_pin,
        )


def shared_by(settings: RouteSettings, address: HttpAddress | UnixAddress) -> tuple[object, ...]:
    """Return the key that routes of any configuration must share to share connections.

    Reads the PEM files of a route that uses https, because a file may change between two reloads.
    """
    if isinstance(address, UnixAddress) or not address.tls:
        return (str(address),)
    files = (settings.tls_ca, settings.tls_certificate, settings.tls_key)
    content = tuple(_digest(path) for path in files)
    system = _system_authorities() if settings.tls_ca is None else ()
    return (str(address), settings.tls_server_name, settings.tls_pin, *files, *content, *system)


def _digest(path: str | None) -> bytes:
    """Return the SHA-256 of a file's content, b"" if it cannot be read."""
    if path is None:
        return b""
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest()
    except OSError:
        return b""


def _system_authorities() -> tuple[object, ...]:
    """Return a value that changes with the system's CA certificates."""
    states: list[object] = []
    paths = ssl.get_default_verify_paths()
    for path in (paths.cafile, paths.capath):
        try:
            status = Path(path or "").stat()
        except OSError:
            states.append(None)
        else:
            states.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(states)


#: The start of a pin.
SHA256 = "sha256:"

#: How long an address may be silent before the next is tried in parallel (RFC 8305 section 5).
STAGGER_SECONDS: Final = 0.25
#: How long an address that did not answer is tried after all others.
SILENT_SECONDS: Final = 60.0
_MOST_SILENT: Final = 1024

_P = TypeVar("_P", bound=asyncio.BaseProtocol)


def pin_of(certificate: bytes) -> str:
    """Return the pin of a certificate in DER: the SHA-256 of its public key (RFC 7469 section 2.4).

    Raises ValueError if no key can be read from it.
    """
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SHA256 + hashlib.sha256(encoded).hexdigest()


def check_pin(connection: ssl.SSLObject | None, pins: Collection[str]) -> None:
    """Raise SSLError unless the peer's key is one of the pinned keys."""
    certificate = connection.getpeercert(binary_form=True) if connection is not None else None
    try:
        pin = pin_of(certificate or b"")
    except ValueError:
        raise ssl.SSLError("no certificate with a key that tls_pin can name") from None
    if pin not in pins:
        raise ssl.SSLError(f"the tool's key is {pin}, which tls_pin does not name")


class Dialer:
    """Opens connections, and remembers which addresses did not answer."""

    def __init__(self, names: Names) -> None:
        self.names: Final = names
        self.buffers: Final = ReadBuffers()
        self._time = time.monotonic
        #: Until when addresses are tried last.
        self._silent: BoundedCache[tuple[str, int], float] = BoundedCache(_MOST_SILENT)

    async def connect(self, backend: Backend, make: Callable[[], _P]) -> _P:
        """Open a connection whose protocol `make` builds. Raises OSError or ssl.SSLError."""
        made: list[_P] = []

        def build() -> _P:
            made.append(make())
            return made[-1]

        try:
            return await self._connect(backend, build)
        except BaseException:
            # If a task is cancelled in the iteration in which its connection opens, uvloop closes
            # the connection without telling the protocol, which would be counted forever.
            for protocol in made:
                protocol.connection_lost(None)
            raise

    async def _connect(self, backend: Backend, make: Callable[[], _P]) -> _P:
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
        return sorted(infos, key=lambda info: (self._silent.get(info[4][:2]) or now) > now)

    def _note(
        self, opened: socket.socket, tried: Sequence[tuple[socket.socket, AddressInfo]]
    ) -> None:
        """Remember the addresses that were tried before the one that answered."""
        now = self._time()
        for made, info in tried:
            where = info[4][:2]
            if made is opened:
                self._silent.drop(where)
                return
            self._silent.keep(where, now + SILENT_SECONDS)
