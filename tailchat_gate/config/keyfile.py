"""The files with the private keys of the signed identity, read and checked."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tailchat_gate.config.conflict import Conflict
from tailchat_gate.config.problem import key_path
from tailchat_gate.config.secretfile import exposed

_KEY = "a PEM file with one EC P-256 private key without a password; `tailchat-gate key` prints one"
_LARGEST = 64 * 1024


class KeyFileError(ValueError):
    """A file that holds no such key; `found` is for the admin, and nothing of the file is in it."""

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
        raise KeyFileError(f"{path}: a private key of another kind")
    return key


def key_problems(paths: Sequence[str]) -> Iterator[Conflict]:
    """Find what is wrong with the files of assertion.key_files, all of it."""
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
            yield Conflict(at, f"{path}: a key again", f"a key that key_files[{first}] is not")


def exposed_key_files(paths: Sequence[str]) -> Iterator[str]:
    """Warn of key files that every user of this machine can read."""
    for index, path in enumerate(paths):
        if exposed(Path(path)):
            place = key_path(("assertion", "key_files", index))
            yield (
                f"{place}: every user of this machine can read {path}; mode 0600 or 0640 keeps it"
            )
