"""Whether the key of an upstream's certificate is one that the route names."""

import hashlib
import ssl
from collections.abc import Collection

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

#: What a pin begins with.
SHA256 = "sha256:"


def pin_of(certificate: bytes) -> str:
    """Return the pin of a certificate in DER: the SHA-256 of its public key (RFC 7469 section 2.4).

    Raises ValueError where it holds no key that can be read.
    """
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SHA256 + hashlib.sha256(encoded).hexdigest()


def check_pin(connection: ssl.SSLObject | None, pins: Collection[str]) -> None:
    """Raise SSLError where the other end has proved none of the keys that are pinned."""
    certificate = connection.getpeercert(binary_form=True) if connection is not None else None
    try:
        found = pin_of(certificate or b"")
    except ValueError:
        raise ssl.SSLError("no certificate with a key that tls_pin can name") from None
    if found not in pins:
        raise ssl.SSLError(f"the tool's key is {found}, which tls_pin does not name")
