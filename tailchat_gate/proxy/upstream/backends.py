"""An upstream's address, and which routes may share its connections."""

import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path

from tailchat_gate.config.files import client_context
from tailchat_gate.config.model import RouteSettings
from tailchat_gate.config.values.address import HttpAddress, UnixAddress


@dataclass(frozen=True, slots=True)
class Backend:
    """An upstream: `host` and `port`, or `path` of a Unix socket; `tls` where it speaks https.

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

    Reads the PEM files of a route that uses https: between two reloads, a file may have got
    another certificate under the same path.
    """
    if isinstance(address, UnixAddress) or not address.tls:
        return (str(address),)
    files = (settings.tls_ca, settings.tls_certificate, settings.tls_key)
    content = tuple(_digest(path) for path in files)
    system = _system_authorities() if settings.tls_ca is None else ()
    return (str(address), settings.tls_server_name, settings.tls_pin, *files, *content, *system)


def _digest(path: str | None) -> bytes:
    """Return the SHA-256 of a file's content, b"" where it cannot be read."""
    if path is None:
        return b""
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest()
    except OSError:
        return b""


def _system_authorities() -> tuple[object, ...]:
    """Return a value that changes with the system's CA certificates."""
    found: list[object] = []
    paths = ssl.get_default_verify_paths()
    for path in (paths.cafile, paths.capath):
        try:
            status = Path(path or "").stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)
