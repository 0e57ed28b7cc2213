"""Files that the configuration names: secrets, key rings, and the files of routes."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import SecretStr

from tailchat_gate.config.conflicts import Conflict
from tailchat_gate.config.keys import SECRET_FORMS, env_name
from tailchat_gate.config.partial import judged
from tailchat_gate.config.problems import Problem, key_path, kind
from tailchat_gate.config.route import Route
from tailchat_gate.config.tls import pem_problems
from tailchat_gate.config.values.address import FilesAddress, HttpAddress, upstream_address

_LARGEST = 64 * 1024

_KEY = "a PEM file with one EC P-256 private key without a password; `tailchat-gate key` prints one"


@dataclass(frozen=True, slots=True)
class Given:
    """A secret after its form was chosen.

    `value` is what the model reads, None when nothing can be read; it is a SecretStr, a list of
    these, or whatever else stood in place of text.
    `label` names where the value came from; `listed` tells that its entries are named by number,
    and `lines` gives the line of a file that each entry came from, `files` that file.
    """

    value: object = field(default=None, repr=False)
    label: str = ""
    listed: bool = False
    lines: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


def given(
    owner: tuple[str, str],
    in_file: Mapping[str, object],
    in_environ: Mapping[str, object],
    folder: Path,
) -> Given:
    """Choose the one form of a secret and read it.

    `owner` is a key of SECRET_FORMS; `in_file` and `in_environ` hold the forms that either source
    gives, of which the environment's replace all of the file's.
    A relative path starts at `folder`.
    """
    source = in_environ or in_file
    forms = [form for form in SECRET_FORMS[owner] if form in source]
    labels = {
        form: env_name((owner[0], form)) if in_environ else key_path((owner[0], form))
        for form in SECRET_FORMS[owner]
    }
    if not forms:
        return Given(problems=(_missing(owner),))
    first, *others = forms
    if others:
        wanted = "only one of " + ", ".join(labels.values())
        twice = f"{labels[first]} is set too"
        return Given(problems=tuple(Problem(labels[form], twice, wanted) for form in others))
    value = source[first]
    if first.endswith("_file"):
        return _from_file(labels[first], value, folder, many=owner == ("session", "secrets"))
    if owner == ("session", "secrets") and first == "secret":
        return Given([_hidden(value)], labels[first])
    if isinstance(value, list):
        return Given([_hidden(item) for item in value], labels[first], listed=True)
    return Given(_hidden(value), labels[first])


def exposed(path: Path) -> bool:
    """Tell whether every user of this machine may read the file; a missing file is not exposed."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def _from_file(label: str, value: object, folder: Path, *, many: bool) -> Given:
    if not isinstance(value, str) or not value or "\0" in value:
        return Given(problems=(Problem(label, kind(value), "the path of a file"),))
    path = folder / value
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as refused:
        reason = refused.strerror or "unreadable"
        problem = Problem(label, f"{path}: {reason}", "a file that can be read")
        return Given(problems=(problem,), files=(path,))
    lines = _lines(content)
    if isinstance(lines, str):
        problem = Problem(label, f"{path}: {lines}", "a file that holds the secret")
        return Given(problems=(problem,), files=(path,))
    if not many and len(lines) > 1:
        found = f"{path}: {len(lines)} lines"
        problem = Problem(label, found, "a file with the secret on one line")
        return Given(problems=(problem,), files=(path,))
    everyone = f"{label}: every user of this machine can read {path}; mode 0600 or 0640 keeps it"
    warnings = (everyone,) if exposed(path) else ()
    secrets = [SecretStr(text) for _, text in lines]
    places = tuple(f"{path}, line {number}" for number, _ in lines)
    found_there = secrets if many else secrets[0]
    return Given(found_there, label, lines=places, warnings=warnings, files=(path,))


def _lines(content: bytes) -> list[tuple[int, str]] | str:
    """Number the lines that hold something; a str says what is wrong instead."""
    if len(content) > _LARGEST:
        return f"more than {_LARGEST // 1024} KiB"
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = None  # outside the handler nothing keeps the content
    if text is None:
        return "not UTF-8 text"
    numbered = enumerate(text.replace("\r\n", "\n").split("\n"), 1)
    return [(number, line) for number, line in numbered if line.strip()] or "empty"


def _hidden(value: object) -> object:
    return SecretStr(value) if isinstance(value, str) else value


def _missing(owner: tuple[str, str]) -> Problem:
    forms = list(SECRET_FORMS[owner])
    names = ", ".join(forms[:-1]) + f" or {forms[-1]}"
    here = key_path((owner[0], forms[0]))
    variables = " or ".join(env_name((owner[0], form)) for form in (forms[0], forms[-1]))
    return Problem(here, "nothing", f"{names} (or {variables} in the environment)")


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


def unusable(routes: Mapping[int, Route]) -> Iterator[Conflict]:
    """Look at every file and directory that routes name, by position in the file."""
    for index, route in routes.items():
        yield from judged(_unusable_of(index, route))


def _unusable_of(index: int, route: Route) -> Iterator[Conflict]:
    upstream = upstream_address(route.upstream)
    if isinstance(upstream, FilesAddress):
        reason = _closed(upstream.directory)
        if reason:
            found = f"{upstream.directory}: {reason}"
            wanted = "a directory whose files the gate can read"
            yield Conflict(("route", index, "upstream"), found, wanted)
    elif isinstance(upstream, HttpAddress) and upstream.tls:
        for wrong in pem_problems(route.tls_ca, route.tls_certificate, route.tls_key):
            yield Conflict(("route", index, wrong.key), wrong.found, wrong.expected)


def named_files(routes: Mapping[int, Route]) -> Iterator[Path]:
    """Yield the PEM files that routes name."""
    for route in routes.values():
        for path in (route.tls_ca, route.tls_certificate, route.tls_key):
            if path is not None:
                yield Path(path)


def exposed_keys(routes: Mapping[int, Route]) -> Iterator[str]:
    """Warn of private keys that every user of this machine can read."""
    for index, route in routes.items():
        if route.tls_key is not None and exposed(Path(route.tls_key)):
            place = key_path(("route", index, "tls_key"))
            yield (
                f"{place}: every user of this machine can read {route.tls_key}; mode 0600 or 0640 "
                "keeps it"
            )


def _closed(directory: str) -> str:
    """Say why no file below a directory can be opened, nothing where it can."""
    try:
        os.stat(f"{directory}/.")  # noqa: PTH116 - a Path would lose the dot, which needs entry
    except OSError as refused:
        return refused.strerror or "unreadable"
    return ""
