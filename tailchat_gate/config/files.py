"""Reads and checks the files that the configuration names: keys, authorities and directories."""

import os
import ssl
import stat
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tailchat_gate.config.problems import Conflict, judged, key_path
from tailchat_gate.config.tables.process import ENDPOINT
from tailchat_gate.config.tables.route import RouteSettings
from tailchat_gate.config.values import tile
from tailchat_gate.config.values.address import FilesAddress, HttpAddress, upstream_address

_LARGEST = 64 * 1024
#: Small, because each page of the launcher contains it.
_LARGEST_PICTURE = 32 * 1024

_AUTHORITIES = "a PEM file with the certificates of authorities"
_CERTIFICATE = "a PEM file with a certificate, and below it those that lead to its authority"
_OF_A_ROUTE = ("tls_certificate", "tls_key")
_KEY = "a PEM file with one EC P-256 private key without a password; `tailchat-gate key` prints one"


def readable_by_all(path: Path) -> bool:
    """Whether every user of this machine may read the file; False for a missing file."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def exposed(path: Path) -> bool:
    """Whether every user of this machine may read a file that contains only a secret.

    A file that is a mount point itself does not count: container engines mount secrets so, with
    mode 0444. A container has no other users, and the rights at the source cannot be seen here.
    """
    return readable_by_all(path) and not _mounted_by_itself(path)


def exposure(key: str, file: str | Path) -> Iterator[str]:
    """Warn if every user of this machine can read the secret file that `key` names."""
    if exposed(Path(file)):
        yield f"{key}: every user of this machine can read {file}; set its mode to 0600 or 0640"


def _mounted_by_itself(path: Path) -> bool:
    """Whether a file is a mount point (proc_pid_mountinfo(5))."""
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes().splitlines()
        name = os.fsencode(path.resolve(strict=True))
    except OSError:
        return False
    for character in b"\\", b" ", b"\t", b"\n":
        name = name.replace(character, b"\\%03o" % ord(character))
    return any(mount.split()[4] == name for mount in mounts)


class KeyFileError(ValueError):
    """A file has no usable key; `found` says why to the admin, without content of the file."""

    def __init__(self, found: str) -> None:
        super().__init__(f"{found}; expected {_KEY}")
        self.found = found


def read_key(path: str) -> EllipticCurvePrivateKey:
    """Return the P-256 private key in a PEM file. Raises KeyFileError."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as refused:
        raise KeyFileError(f"{path}: {refused.strerror or 'unreadable'}") from None
    try:
        key = load_pem_private_key(content, None) if len(content) <= _LARGEST else None
    except TypeError:
        raise KeyFileError(f"{path}: a private key with a password") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if key is None:
        raise KeyFileError(f"{path}: no private key")
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise KeyFileError(f"{path}: a private key that is not EC P-256")
    return key


class FileError(ValueError):
    """A file cannot be used; `key` is the key that names it.

    `found` and `expected` are for the admin, as in a Problem, without content of the file.
    """

    def __init__(self, key: str, found: str, expected: str) -> None:
        super().__init__(f"{key}: {found}; expected {expected}")
        self.key = key
        self.found = found
        self.expected = expected


def verifying_context(authorities: str | None = None) -> ssl.SSLContext:
    """Return a client context that trusts a PEM file of authorities; None for the system's.

    It behaves the same under every version of Python. By default Python 3.13 refuses certificates
    without fields that RFC 5280 requires (VERIFY_X509_STRICT), as private authorities issue them;
    3.11 and curl accept them. Python 3.13 also trusts an intermediate authority by itself; 3.11
    does not. Raises OSError or ssl.SSLError.
    """
    context = ssl.create_default_context(cafile=authorities)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def authorities_context(key: str, authorities: str | None) -> ssl.SSLContext:
    """Do the same as verifying_context; `key` names the setting in the FileError raised."""
    if authorities is None:
        return verifying_context()
    with _loading(key, authorities):
        return verifying_context(authorities)


def load_authorities(context: ssl.SSLContext, key: str, authorities: str) -> None:
    """Let a context trust a PEM file of authorities too; `key` names it. Raises FileError."""
    with _loading(key, authorities):
        context.load_verify_locations(authorities)


@contextmanager
def _loading(key: str, authorities: str) -> Iterator[None]:
    """Raise FileError if the file loaded inside the block cannot be used."""
    _readable(key, authorities, _AUTHORITIES)
    try:
        yield
    except ssl.SSLError:
        raise FileError(key, f"{authorities}: no certificate", _AUTHORITIES) from None


def client_context(
    authorities: str | None, certificate: str | None, key: str | None, *, pinned: bool = False
) -> ssl.SSLContext:
    """Return the context for connections to an https tool, whose certificate must be valid.

    The arguments are paths of PEM files, which are read here. `authorities` replace the system's.
    `certificate`, given only together with `key`, is the client certificate for the tool.
    `pinned`: the caller compares the tool's public key after the handshake, so without
    `authorities` nothing else of the tool's certificate is checked.
    Raises FileError for the first unusable file.
    """
    if authorities is None:
        context = verifying_context()
        if pinned:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    else:
        context = authorities_context("tls_ca", authorities)
    if certificate is not None and key is not None:
        load_pair(context, certificate, key, _OF_A_ROUTE)
    return context


def pem_problems(
    authorities: str | None, certificate: str | None, key: str | None
) -> Iterator[FileError]:
    """Yield every problem with the files of client_context."""
    if authorities is not None:
        try:
            client_context(authorities, None, None)
        except FileError as wrong:
            yield wrong
    if certificate is not None and key is not None:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            load_pair(context, certificate, key, _OF_A_ROUTE)
        except FileError as wrong:
            yield wrong


def load_pair(context: ssl.SSLContext, certificate: str, key: str, names: tuple[str, str]) -> None:
    """Load a certificate and its private key into a context. Raises FileError.

    `names` are the configuration keys that name the two files.
    """
    key_wanted = f"a PEM file with the private key of {names[0]}, without a password"
    _readable(names[0], certificate, _CERTIFICATE)
    _readable(names[1], key, key_wanted)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate)
    except ssl.SSLError:
        raise FileError(names[0], f"{certificate}: no certificate", _CERTIFICATE) from None
    keys: list[str] = []

    def password() -> str:
        # Without a callback OpenSSL would ask on the terminal and wait.
        keys.append(key)
        return ""

    try:
        context.load_cert_chain(certificate, key, password)
    except ssl.SSLError as refused:
        why = "no private key"
        if keys:
            why = "a private key with a password"
        elif refused.reason == "KEY_VALUES_MISMATCH":
            why = "the private key of another certificate"
        raise FileError(names[1], f"{key}: {why}", key_wanted) from None


def _readable(key: str, path: str, expected: str) -> None:
    """Raise FileError if a file cannot be read; OpenSSL's error does not say which file it is."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as written, in the error's text too
            file.read(1)
    except OSError as refused:
        found = f"{path}: {refused.strerror or 'unreadable'}"
        raise FileError(key, found, expected) from None


def key_problems(paths: Sequence[str]) -> Iterator[Conflict]:
    """Find every problem with the files of assertion.key_files."""
    first_with: dict[tuple[int, int], int] = {}
    for index, path in enumerate(paths):
        at = ("assertion", "key_files", index)
        try:
            key = read_key(path)
        except KeyFileError as wrong:
            yield Conflict(at, wrong.found, _KEY)
            continue
        point = key.public_key().public_numbers()
        first = first_with.setdefault((point.x, point.y), index)
        if first != index:
            yield Conflict(
                at, f"{path}: the key of key_files[{first}] again", "another key in each file"
            )


def exposed_key_files(paths: Sequence[str]) -> Iterator[str]:
    """Warn of key files that every user of this machine can read."""
    for index, path in enumerate(paths):
        yield from exposure(key_path(("assertion", "key_files", index)), path)


def unusable(routes: Mapping[int, RouteSettings]) -> Iterator[Conflict]:
    """Check every file and directory of the routes, by position in the file."""
    for index, route in routes.items():
        yield from judged(_unusable_of(index, route))


def _unusable_of(index: int, route: RouteSettings) -> Iterator[Conflict]:
    try:
        read_picture("icon", route.icon)
    except FileError as unread:
        yield Conflict(("route", index, unread.key), unread.found, unread.expected)
    upstream = upstream_address(route.backends[0])
    if isinstance(upstream, FilesAddress):
        reason = _closed(upstream.directory)
        if reason:
            found = f"{upstream.directory}: {reason}"
            wanted = "a directory whose files the gate can read"
            yield Conflict(("route", index, "upstream"), found, wanted)
    elif isinstance(upstream, HttpAddress) and upstream.tls:
        for wrong in pem_problems(route.tls_ca, route.tls_certificate, route.tls_key):
            yield Conflict(("route", index, wrong.key), wrong.found, wrong.expected)


def named_files(routes: Mapping[int, RouteSettings]) -> Iterator[Path]:
    """Yield the files that the routes name."""
    for route in routes.values():
        icon = route.icon if route.icon.startswith("/") else None
        for path in (route.tls_ca, route.tls_certificate, route.tls_key, icon):
            if path is not None:
                yield Path(path)


def exposed_keys(routes: Mapping[int, RouteSettings]) -> Iterator[str]:
    """Warn of private keys that every user of this machine can read."""
    for index, route in routes.items():
        if route.tls_key is not None:
            yield from exposure(key_path(("route", index, "tls_key")), route.tls_key)


def read_picture(key: str, path: str) -> str:
    """Return a picture file as a data: URL; "" if `path` is no path but, for example, an emoji.

    Raises FileError, whose key is `key`.
    """
    if not path.startswith("/"):
        return ""
    expected = f"a picture of at most {_LARGEST_PICTURE // 1024} KiB"
    _readable(key, path, expected)
    with Path(path).open("rb") as file:
        content = file.read(_LARGEST_PICTURE + 1)
    if not content or len(content) > _LARGEST_PICTURE:
        raise FileError(key, f"{path}: {len(content) or 'no'} bytes", expected)
    return f"data:{tile.picture(path)};base64,{b64encode(content).decode('ascii')}"


def unusable_logo(path: str) -> Iterator[Conflict]:
    """Check the file of the logo; "" is no logo."""
    try:
        read_picture("logo", path)
    except FileError as unread:
        yield Conflict(("pages", unread.key), unread.found, unread.expected)


def _closed(directory: str) -> str:
    """Return why files below a directory cannot be opened, "" if they can."""
    try:
        os.stat(f"{directory}/.")  # noqa: PTH116 - a Path would lose the dot, which needs entry
    except OSError as refused:
        return refused.strerror or "unreadable"
    return ""


def unusable_authorities(file: str) -> Iterator[Conflict]:
    """Check `tailchat.ca_file`; "" is no file."""
    if file:
        try:
            authorities_context("ca_file", file)
        except FileError as wrong:
            yield Conflict(("tailchat", wrong.key), wrong.found, wrong.expected)


def missing_exporter(endpoint: str) -> Iterator[Conflict]:
    """Check that the packages that send spans are installed if an endpoint is set."""
    # In this order: to find a module, find_spec imports the packages above it.
    names = ("opentelemetry", "opentelemetry.exporter.otlp.proto.http", "opentelemetry.sdk.trace")
    try:
        missing = bool(endpoint) and not all(map(find_spec, names))
    except ModuleNotFoundError:
        missing = True
    if missing:
        remedy = "no address, or `pip install 'tailchat-gate[tracing]'`"
        yield Conflict(ENDPOINT, "the packages of OpenTelemetry are missing", remedy)
