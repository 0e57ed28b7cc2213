"""The gate's own certificates: their files are read, checked, and made into TLS contexts.

And when those expire that the configuration names for other servers.
"""

import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509

from tailchat_gate.config.files import FileError, exposed, load_authorities, load_pair
from tailchat_gate.config.model import Settings
from tailchat_gate.config.problems import Conflict, key_path
from tailchat_gate.config.tables.server import Certificate, Server
from tailchat_gate.syntax import WILDCARD

#: A certificate that expires within so many days is warned about.
WARN_DAYS: Final = 14
_SECONDS_OF_A_DAY: Final = 86_400


class CertificateFacts(NamedTuple):
    """Facts of a certificate: its DNS names, and its dates in Unix seconds."""

    file: str
    names: tuple[str, ...]
    begins: float
    expires: float

    def covers(self, host: str) -> bool:
        """Whether it is for a host, or for all names of a wildcard (RFC 9525 section 6.3)."""
        return host in self.names or wildcard_of(host) in self.names


def wildcard_of(host: str) -> str:
    """Return the wildcard that covers a host: it replaces the first label."""
    return WILDCARD + host.partition(".")[2]


def facts_of(certificate: Certificate) -> CertificateFacts:
    """Return the facts of the first certificate of a file. Raises OSError or ValueError."""
    found = x509.load_pem_x509_certificate(Path(certificate.certificate).read_bytes())
    try:
        extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = tuple(extension.value.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        names = ()
    return CertificateFacts(
        certificate.certificate,
        tuple(name.lower() for name in names),
        found.not_valid_before_utc.timestamp(),
        found.not_valid_after_utc.timestamp(),
    )


class ServerContext(ssl.SSLContext):
    """A context of the gate's own TLS; `clients` is equal where the same clients may connect."""

    clients: bytes = b""


def server_context(certificate: Certificate, server: Server) -> ServerContext:
    """Return the context that serves one certificate. Raises FileError.

    TLS 1.2 and 1.3, HTTP/1.1 alone by ALPN (RFC 7301), no renegotiation, which costs the server
    more than the client. With client_ca each client is asked for a certificate.
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
            yield Conflict(("server", "tls", index, "certificate"), found, "a certificate of X.509")


def certificate_files(server: Server) -> Iterator[Path]:
    """Yield the files of the gate's own TLS."""
    for certificate in server.tls:
        yield Path(certificate.certificate)
        yield Path(certificate.key)
    if server.client_ca is not None:
        yield Path(server.client_ca)


def certificate_warnings(server: Server, hosts: Sequence[str]) -> Iterator[str]:
    """Warn of dates, and of hosts without a certificate.

    `hosts` are those by which visitors come.
    """
    now = time.time()
    known: list[CertificateFacts] = []
    for index, certificate in enumerate(server.tls):
        at = key_path(("server", "tls", index))
        # A file may be replaced since it was checked; the reload that follows tells more.
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
        if exposed(Path(certificate.key)):
            at = key_path(("server", "tls", index, "key"))
            yield (
                f"{at}: every user of this machine can read {certificate.key}; mode 0600 or 0640 "
                "keeps it"
            )


def date_problem(facts: CertificateFacts, now: float) -> str:
    """Return what is wrong with the dates of a certificate, "" for nothing."""
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
    """Return each file with certificates, and the Unix second at which its first one expires.

    A file that cannot be read is left out: the part that uses it reports it.
    """
    found: dict[str, float] = {}
    for path in dict.fromkeys(_of_others(settings)):
        try:
            certificates = x509.load_pem_x509_certificates(Path(path).read_bytes())
        except (OSError, ValueError):
            continue
        found[path] = min(one.not_valid_after_utc.timestamp() for one in certificates)
    return tuple(found.items())


def _of_others(settings: Settings) -> Iterator[str]:
    if settings.tailchat.ca_file:
        yield str(settings.tailchat.ca_file)
    for route in settings.route:
        yield from (file for file in (route.tls_ca, route.tls_certificate) if file)
