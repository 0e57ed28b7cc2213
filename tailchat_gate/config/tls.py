"""The files by which the gate and an https tool know each other, read into a TLS context."""

import ssl
from collections.abc import Iterator

_AUTHORITIES = "a PEM file with the certificates of authorities"
_CERTIFICATE = "a PEM file with a certificate, and below it those that lead to its authority"
_KEY = "a PEM file with the private key of tls_certificate, without a password"


class PemError(ValueError):
    """A file that cannot be used; `key` is the route's key that names it.

    `found` and `expected` are for the admin, as in a Problem; nothing of the file is in them.
    """

    def __init__(self, key: str, found: str, expected: str) -> None:
        super().__init__(f"{key}: {found}; expected {expected}")
        self.key = key
        self.found = found
        self.expected = expected


def verifying_context(authorities: str | None = None) -> ssl.SSLContext:
    """Make a context that verifies by a PEM file of authorities, None for the system's.

    By one rule under every version of Python: 3.13 refuses certificates of private authorities
    that leave out what RFC 5280 wants (VERIFY_X509_STRICT), where 3.11
    and curl take them; and it trusts an intermediate authority by itself, which 3.11 does not.
    Raises OSError or ssl.SSLError.
    """
    context = ssl.create_default_context(cafile=authorities)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def authorities_context(key: str, authorities: str | None) -> ssl.SSLContext:
    """Make a context as verifying_context does; `key` names the file. Raises PemError."""
    if authorities is None:
        return verifying_context()
    _readable(key, authorities, _AUTHORITIES)
    try:
        return verifying_context(authorities)
    except ssl.SSLError:
        raise PemError(key, f"{authorities}: no certificate", _AUTHORITIES) from None


def client_context(
    authorities: str | None, certificate: str | None, key: str | None, *, pinned: bool = False
) -> ssl.SSLContext:
    """Make the context for connections to an https tool, whose certificate has to be valid.

    The arguments are paths of PEM files: `authorities` are trusted in place of the system's, and
    `certificate`, given only together with `key`, is what the tool is shown. `pinned`: the tool
    is known by its key, which is compared behind the handshake; without `authorities` nothing
    else of its certificate counts.
    Reads these files. Raises PemError for the first that cannot be used.
    """
    if authorities is None:
        context = verifying_context()
        if pinned:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    else:
        context = authorities_context("tls_ca", authorities)
    if certificate is not None and key is not None:
        _show(context, certificate, key)
    return context


def pem_problems(
    authorities: str | None, certificate: str | None, key: str | None
) -> Iterator[PemError]:
    """Find what is wrong with the same files, all of it."""
    if authorities is not None:
        try:
            client_context(authorities, None, None)
        except PemError as wrong:
            yield wrong
    if certificate is not None and key is not None:
        try:
            _show(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, key)
        except PemError as wrong:
            yield wrong


def _show(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load a certificate and its key; raises PemError."""
    _readable("tls_certificate", certificate, _CERTIFICATE)
    _readable("tls_key", key, _KEY)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate)
    except ssl.SSLError:
        found = f"{certificate}: no certificate"
        raise PemError("tls_certificate", found, _CERTIFICATE) from None
    asked: list[str] = []

    def password() -> str:
        # Without a callback OpenSSL would ask at the terminal and wait.
        asked.append(key)
        return ""

    try:
        context.load_cert_chain(certificate, key, password)
    except ssl.SSLError as refused:
        why = "no private key"
        if asked:
            why = "a private key with a password"
        elif refused.reason == "KEY_VALUES_MISMATCH":
            why = "the private key of another certificate"
        raise PemError("tls_key", f"{key}: {why}", _KEY) from None


def _readable(key: str, path: str, expected: str) -> None:
    """Open a file, since the errors of OpenSSL do not say which of two it could not read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as written, in the error's text too
            file.read(1)
    except OSError as refused:
        found = f"{path}: {refused.strerror or 'unreadable'}"
        raise PemError(key, found, expected) from None
