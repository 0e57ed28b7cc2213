"""Reads and checks the gate's own certificates and makes TLS contexts of them.

It also finds out when the certificates expire that the configuration names for other servers.
"""

import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509

from tailchat_gate.config.files import FileError, exposure, load_authorities, load_pair
from tailchat_gate.config.model import Settings
from tailchat_gate.config.problems import Conflict, key_path
from tailchat_gate.config.tables.server import Certificate, Server
from tailchat_gate.syntax import WILDCARD

#: How many days before the end of a certificate the gate begins to warn.
WARN_DAYS: Final = 14
_SECONDS_OF_A_DAY: Final = 86_400


class CertificateFacts(NamedTuple):
    """The file of a certificate, its DNS names in lower case, and its dates in Unix seconds."""

    file: str
    names: tuple[str, ...]
    begins: float
    expires: float

    def covers(self, host: str) -> bool:
        """Whether it names a host, or a wildcard that covers the host (RFC 9525 section 6.3)."""
        return host in self.names or wildcard_of(host) in self.names


def wildcard_of(host: str) -> str:
    """Return the wildcard that covers a host: it replaces the first label."""
    return WILDCARD + host.partition(".")[2]


def facts_of(certificate: Certificate) -> CertificateFacts:
    """Read the first certificate of a PEM file. Raises OSError or ValueError."""
    loaded = x509.load_pem_x509_certificate(Path(certificate.certificate).read_bytes())
    try:
        extension = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = tuple(extension.value.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        names = ()
    return CertificateFacts(
        certificate.certificate,
        tuple(name.lower() for name in names),
        loaded.not_valid_before_utc.timestamp(),
        loaded.not_valid_after_utc.timestamp(),
    )


class ServerContext(ssl.SSLContext):
    """A context of the gate's own TLS.

    `clients` identifies the rule for client certificates: contexts with equal values accept the
    same clients.
    """

    clients: bytes = b""


def server_context(certificate: Certificate, server: Server) -> ServerContext:
    """Return the context that serves one certificate. Raises FileError.

    It speaks TLS 1.2 and 1.3, and offers only HTTP/1.1 by ALPN (RFC 7301). Renegotiation is off,
    because it costs the server more than the client. With `server.client_ca` each client is asked
    for a certificate.
    """
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    load_pair(context, certificate.certificate, certificate.key, ("certificate", "key"))
    if server.client_ca is not None:
        load_authorities(context, "client_ca", server.client_ca)
        required = server.client_certificate == "required"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


def unusable_certificates(server: Server) -> Iterator[Conflict]:
    """Find every file of the gate's own TLS that cannot be used."""
    for index, certificate in enumerate(server.tls):
        try:
            server_context(certificate, server)
            facts_of(certificate)
        except FileError as wrong:
            of_pair = wrong.key in Certificate.model_fields
            at = ("server", "tls", index, wrong.key) if of_pair else ("server", wrong.key)
            yield Conflict(at, wrong.found, wrong.expected)
        except (OSError, ValueError):
            found = f"{certificate.certificate}: a certificate that cannot be read"
            yield Conflict(("server", "tls", index, "certificate"), found, "an X.509 certificate")


def certificate_files(server: Server) -> Iterator[Path]:
    """Yield the files of the gate's own TLS."""
    for certificate in server.tls:
        yield Path(certificate.certificate)
        yield Path(certificate.key)
    if server.client_ca is not None:
        yield Path(server.client_ca)


def certificate_warnings(server: Server, hosts: Sequence[str]) -> Iterator[str]:
    """Warn of certificates that are or will soon be invalid, and of hosts without a certificate.

    `hosts` are the host names that visitors use.
    """
    now = time.time()
    known: list[CertificateFacts] = []
    for index, certificate in enumerate(server.tls):
        at = key_path(("server", "tls", index))
        # The file may have been replaced since it was checked; a reload follows and reports it.
        with suppress(OSError, ValueError):
            facts = facts_of(certificate)
            known.append(facts)
            if problem := date_problem(facts, now):
                yield f"{at}.certificate: {facts.file} {problem}"
    for host in dict.fromkeys(hosts) if known else ():
        if not any(facts.covers(host) for facts in known):
            yield f"server.tls: no certificate is for {host}, so browsers refuse the connection"


def exposed_certificate_keys(server: Server) -> Iterator[str]:
    """Warn of keys of the gate's own certificates that every user of the machine can read."""
    for index, certificate in enumerate(server.tls):
        yield from exposure(key_path(("server", "tls", index, "key")), certificate.key)


def date_problem(facts: CertificateFacts, now: float) -> str:
    """Return what is wrong with the dates of a certificate at `now`, in Unix seconds; else ""."""
    if now >= facts.expires:
        return f"expired at {_date(facts.expires)}"
    if now < facts.begins:
        return f"is not valid before {_date(facts.begins)}"
    if facts.expires - now < WARN_DAYS * _SECONDS_OF_A_DAY:
        return f"expires at {_date(facts.expires)}"
    return ""


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def certificate_expiries(settings: Settings) -> tuple[tuple[str, float], ...]:
    """Return each file with certificates for other servers, and its earliest end in Unix seconds.

    A file that cannot be read is left out: the part that uses the file reports it.
    """
    expiries: dict[str, float] = {}
    for path in dict.fromkeys(_of_others(settings)):
        try:
            certificates = x509.load_pem_x509_certificates(Path(path).read_bytes())
        except (OSError, ValueError):
            continue
        expiries[path] = min(
            certificate.not_valid_after_utc.timestamp() for certificate in certificates
        )
    return tuple(expiries.items())


def _of_others(settings: Settings) -> Iterator[str]:
    if settings.tailchat.ca_file:
        yield str(settings.tailchat.ca_file)
    for route in settings.route:
        yield from (file for file in (route.tls_ca, route.tls_certificate) if file)
