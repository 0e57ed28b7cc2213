"""Facts about a TLS peer: its certificate, and when that expires."""

import ssl
from collections.abc import Callable

from cryptography import x509


def after_handshakes(context: ssl.SSLContext, note: Callable[[ssl.SSLObject], None]) -> None:
    """Call `note` with each connection of a context when its handshake is done."""

    class Noted(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            note(self)

    context.sslobject_class = Noted


def expiry_of(connection: ssl.SSLObject | None) -> float:
    """Return the Unix second at which the peer's certificate expires, 0 if that is unknown.

    `ssl.cert_time_to_seconds` is not used, because its first call imports a module from the disk.
    """
    certificate = connection.getpeercert(binary_form=True) if connection is not None else None
    try:
        return x509.load_der_x509_certificate(certificate or b"").not_valid_after_utc.timestamp()
    except ValueError:
        return 0.0
