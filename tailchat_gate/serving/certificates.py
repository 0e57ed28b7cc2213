"""When the certificates that the configuration names expire."""

from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from tailchat_gate.config.model import Settings


def certificate_expiries(settings: Settings) -> tuple[tuple[str, float], ...]:
    """Return each file with certificates, and the Unix second at which its first one expires.

    A file that cannot be read is left out: the part that uses it reports it.
    """
    found: dict[str, float] = {}
    for path in dict.fromkeys(_files(settings)):
        try:
            certificates = x509.load_pem_x509_certificates(Path(path).read_bytes())
        except (OSError, ValueError):
            continue
        found[path] = min(one.not_valid_after_utc.timestamp() for one in certificates)
    return tuple(found.items())


def _files(settings: Settings) -> Iterator[str]:
    if settings.tailchat.ca_file:
        yield str(settings.tailchat.ca_file)
    for route in settings.route:
        yield from (file for file in (route.tls_ca, route.tls_certificate) if file)
