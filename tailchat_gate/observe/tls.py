"""When the certificate of a TLS peer expires."""

import ssl

from cryptography import x509


def expiry_of(connection: ssl.SSLObject | None) -> float:
    """Return the Unix second at which the peer's certificate expires, 0 if that is unknown.

    Not by `ssl.cert_time_to_seconds`, whose first call imports a module from the disk.
    """
    found = connection.getpeercert(binary_form=True) if connection is not None else None
    try:
        return x509.load_der_x509_certificate(found or b"").not_valid_after_utc.timestamp()
    except ValueError:
        return 0.0
