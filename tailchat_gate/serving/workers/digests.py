"""Digests of a configuration's files, by which processes know that they read the same content."""

import hashlib
from pathlib import Path
from typing import Final

from tailchat_gate.config.load import ConfigError, Loaded, Source, file_states
from tailchat_gate.config.problems import Problem

#: How often files are read that change during each read.
_ATTEMPTS: Final = 3
MOVING: Final = Problem(
    "the files of the configuration",
    "changed while they were read",
    "files that nobody changes meanwhile; try again",
)


def read(source: Source) -> tuple[Loaded, str]:
    """Read a configuration; return it with the digest of its files. Blocks; raises ConfigError."""
    for _ in range(_ATTEMPTS):
        loaded = source.read()
        digest = digest_of(source)
        if digest:
            return loaded, digest
    raise ConfigError((MOVING,), loaded.files)


def digest_of(source: Source) -> str:
    """Return the digest of the files of the last read, "" if they have changed since. Blocks."""
    digest = hashlib.sha256()
    for path in source.states:
        content = _content(path)
        digest.update(f"{path}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest() if file_states(source.states) == source.states else ""


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
