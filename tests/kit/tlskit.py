"""Certificates for tools that speak https, and keys that sign identities."""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Issued:
    """The PEM files of a certificate and its key."""

    certificate: Path
    key: Path

    def server_context(self, *, clients: Path | None = None) -> ssl.SSLContext:
        """Return a server's context; `clients` is the authority its clients need, if any."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients)
        return context


@dataclass(frozen=True)
class Authority:
    """A certificate authority that writes what it issues into a directory."""

    directory: Path
    name: str
    _key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, directory: Path, name: str = "authority") -> Self:
        """Make an authority and write its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = cls(directory, name, key)
        made.file.write_bytes(made._sign(name, key, authority=True))
        return made

    @property
    def file(self) -> Path:
        """The authority's own certificate."""
        return self.directory / f"{self.name}.pem"

    def issue(
        self, name: str, *, ends: timedelta = timedelta(hours=1), others: tuple[str, ...] = ()
    ) -> Issued:
        """Write a certificate for a host name and its key; `ends` is when it does, from now.

        `others` are further names of it. One that was issued for the name before is replaced.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        found = Issued(
            self.directory / f"{self.name}-{name}.pem", self.directory / f"{self.name}-{name}.key"
        )
        found.certificate.write_bytes(self._sign(name, key, ends=ends, others=others))
        found.key.touch(0o600)
        found.key.write_bytes(_pem(key))
        return found

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        *,
        authority: bool = False,
        ends: timedelta = timedelta(hours=1),
        others: tuple[str, ...] = (),
    ) -> bytes:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, now + ends) - timedelta(hours=1))
            .not_valid_after(now + ends)
            .add_extension(
                x509.SubjectAlternativeName(list(map(_general_name, (name, *others)))),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def write_key(path: Path) -> str:
    """Write a new key to a file; return its path."""
    path.write_bytes(_pem(ec.generate_private_key(ec.SECP256R1())))
    return str(path)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
