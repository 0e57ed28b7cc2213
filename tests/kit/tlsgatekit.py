"""A gate with TLS of its own, and clients that speak it."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from gatekit import RawClient, RunningGate
from tlskit import Authority, Issued


@dataclass(frozen=True)
class Certificates:
    """An authority, and what it issued for the hosts of a gate."""

    authority: Authority
    gate: Issued
    tools: Issued

    @classmethod
    def create(cls, directory: Path) -> "Certificates":
        """Issue one for gate.test, and one for all names below tools.test."""
        authority = Authority.create(directory)
        tools = authority.issue("tools.test", others=("*.tools.test",))
        return cls(authority, authority.issue("gate.test"), tools)

    def server(self, **keys: Any) -> dict[str, Any]:  # noqa: ANN401 - as in the file
        """Return a [server] with TLS."""
        return {
            "public_url": "https://gate.test",
            "listen": ["127.0.0.1:0"],
            "https_listen": ["127.0.0.1:0"],
            "tls": [files_of(self.gate), files_of(self.tools)],
            **keys,
        }

    def trusting(self, **options: Any) -> ssl.SSLContext:  # noqa: ANN401 - of the context
        """Return a client's context that trusts the authority."""
        context = ssl.create_default_context(cafile=self.authority.file)
        for name, value in options.items():
            setattr(context, name, value)
        return context


def files_of(issued: Issued) -> Mapping[str, str]:
    """Return a [[server.tls]]."""
    return {"certificate": str(issued.certificate), "key": str(issued.key)}


def https_port(gate: RunningGate) -> int:
    """Return the port of the first https listener."""
    return gate.addresses_of("https_listen")[0][1]


@asynccontextmanager
async def tls_client(
    port: int, context: ssl.SSLContext, name: str = "gate.test"
) -> AsyncIterator[RawClient]:
    """Connect by TLS until the block ends; `name` is asked for, and must be the certificate's."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, limit=2**20, ssl=context, server_hostname=name
    )
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()


def tls_of(client: RawClient) -> ssl.SSLObject:
    """Return what is known of a client's TLS."""
    found = client.writer.get_extra_info("ssl_object")
    assert isinstance(found, ssl.SSLObject)
    return found


def names_of(client: RawClient) -> set[str]:
    """Return the DNS names of the certificate that a client was shown."""
    der = tls_of(client).getpeercert(binary_form=True)
    assert der is not None
    found = x509.load_der_x509_certificate(der).extensions
    names = found.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names.get_values_for_type(x509.DNSName))


def resumed(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None, request: bytes
) -> tuple[bool, ssl.SSLSession | None, bytes]:
    """Send a request, resuming a session; return whether it was resumed, the next one, the answer.

    It blocks: asyncio's streams resume no session.
    """
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="gate.test", session=session) as found,
    ):
        found.sendall(request)
        answer = b""
        while more := found.recv(65536):
            answer += more
        return bool(found.session_reused), found.session, answer
