"""The gate's own TLS: the context of each connection, chosen by the name that its client asks for.

Contexts live as long as their files are the same, so that clients can resume their sessions after
a reload; where a file has changed, a session of before is no longer resumed, which is what a
changed client_ca must do.
"""

import hashlib
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tailchat_gate.config.certificates import (
    CertificateFacts,
    certificate_files,
    facts_of,
    server_context,
    wildcard_of,
)
from tailchat_gate.config.files import FileError
from tailchat_gate.config.model import Server

#: What `clients_of` returns where clients are not asked for certificates.
ANY_CLIENT: Final = b""


class ServerTls:
    """The certificates of one configuration.

    `context` is for every new connection; `facts` say what the certificates are for, and `digest`
    is equal for equal files and settings. `clients` is equal where the same clients may connect.
    """

    def __init__(self, server: Server) -> None:
        """Read the files. Raises FileError."""
        files = _read(certificate_files(server))
        self.digest: Final = _digest(server, files)
        self.clients: Final = _clients(server, files)
        made = [server_context(each, server) for each in server.tls]
        try:
            self.facts: Final = tuple(map(facts_of, server.tls))
        except (OSError, ValueError):
            raise FileError("server.tls", "a file that changed", "certificates of X.509") from None
        self._by_name: Final = _by_name(zip(self.facts, made, strict=True))
        self.context: Final = made[0]
        for each in made:
            each.clients = self.clients
        self.context.sni_callback = self._choose

    def _choose(
        self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext
    ) -> None:
        """Use the certificate for the name in the ClientHello (RFC 6066 section 3), if any."""
        asked = (name or "").lower()
        found = self._by_name.get(asked) or self._by_name.get(wildcard_of(asked))
        if found is not None:
            connection.context = found


def server_tls(server: Server) -> ServerTls | None:
    """Return the TLS of a configuration, None where it has none. Raises FileError."""
    return ServerTls(server) if server.https_listen else None


def clients_of(tls: ServerTls | None) -> bytes:
    """Return a value that differs between configurations that admit different clients."""
    return ANY_CLIENT if tls is None else tls.clients


def _by_name(
    made: Iterable[tuple[CertificateFacts, ssl.SSLContext]],
) -> Mapping[str, ssl.SSLContext]:
    """Return the contexts by name; of two certificates for a name the first counts."""
    found: dict[str, ssl.SSLContext] = {}
    for facts, context in made:
        for name in facts.names:
            found.setdefault(name, context)
    return found


def _read(paths: Iterable[Path]) -> Mapping[Path, bytes]:
    """Return the files' contents. Raises FileError."""
    found: dict[Path, bytes] = {}
    for path in paths:
        try:
            found[path] = path.read_bytes()
        except OSError as error:
            wanted = "a file that can be read"
            raise FileError("server.tls", f"{path}: {error.strerror}", wanted) from None
    return found


def _digest(server: Server, files: Mapping[Path, bytes]) -> bytes:
    """Return a value that changes with each file and setting of TLS."""
    found = hashlib.sha256(repr((server.tls, server.client_certificate)).encode())
    # By the settings and not the mapping, in which a file that two of them name is there once.
    for path in certificate_files(server):
        found.update(hashlib.sha256(files[path]).digest())
    return found.digest()


def _clients(server: Server, files: Mapping[Path, bytes]) -> bytes:
    """Return a value that changes with what a client's certificate must be."""
    if server.client_ca is None:
        return ANY_CLIENT
    authorities = files[Path(server.client_ca)]
    return hashlib.sha256(server.client_certificate.encode() + b"\n" + authorities).digest()
