"""What tells one state of a file from another without reading it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple


class Mark(NamedTuple):
    """The state of a file: another one after a write, a rename over it, or a change of mode.

    Times are in nanoseconds, since a file may be written twice a second.
    """

    device: int
    inode: int
    size: int
    modified: int
    changed: int


Marks = Mapping[Path, Mark | None]


def marks_of(paths: Iterable[Path]) -> Marks:
    """Return the state of each file behind its links, None for one that cannot be looked at.

    Links are followed to their end, because where Kubernetes mounts a ConfigMap it exchanges the
    directory that all of them lead through.
    """
    return {path: _mark(path) for path in paths}


def _mark(path: Path) -> Mark | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return Mark(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
