"""Finds and opens the file that a path below a directory names, and tells its media type."""

import errno
import os
import re
import stat
import threading
from collections.abc import Iterable
from mimetypes import MimeTypes
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import unquote_to_bytes

from tailchat_gate.syntax import CTL, VCHAR

#: Segments of visible ASCII after slashes, each "%" with two digits: what a URL can contain (RFC
#: 3986 section 3.3, and some characters that browsers leave unescaped). No backslash, which
#: browsers and Windows treat as a slash.
_SENT: Final = re.compile(rf"(?:/(?:(?![/?#%\\])[{VCHAR}]|%[0-9A-Fa-f]{{2}})*)*")
#: A decoded slash or backslash would give the path a second reading; control characters are in no
#: honest name.
_REFUSED: Final = re.compile(rf"[/\\{CTL}]")
#: RFC 8615: the only name with a leading dot that is meant for visitors.
_WELL_KNOWN: Final = ".well-known"

#: Types that Python lacks, or that differ between its versions. XML declares its own encoding,
#: which a charset of text/xml would override (RFC 7303 section 3.2).
_TYPES: Final = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".md": "text/markdown",
    ".log": "text/plain",
    ".xml": "application/xml",
    ".map": "application/json",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".ttf": "font/ttf",
    ".otf": "font/otf",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".ogg": "audio/ogg",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".epub": "application/epub+zip",
    ".gz": "application/gzip",
    ".bz2": "application/x-bzip2",
    ".xz": "application/x-xz",
    ".zst": "application/zstd",
    ".7z": "application/x-7z-compressed",
}
UNKNOWN: Final = "application/octet-stream"

#: The file that is served for a directory.
INDEX: Final = b"index.html"
#: The most links on the way to a file: a mounted ConfigMap of Kubernetes needs two.
MAX_LINKS: Final = 8
#: The deepest tree: each directory on the way is held open.
MAX_DEPTH: Final = 64

#: O_PATH asks for no permission to list a directory, only to pass through it.
_DIRECTORY: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY
#: Without O_NONBLOCK, opening a FIFO that took a file's place would wait for a writer.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
#: Names through which a link must not lead, because no path can name them. Kubernetes mounts a
#: ConfigMap by links through "..data" and a folder that is named by a timestamp.
_HIDDEN: Final = re.compile(rb"\.(?!\Z|\.\Z|\.data\Z|\.[0-9_]{19}\.[0-9]+\Z|well-known\Z)")
#: Errors about the path or its permissions. Any other (no descriptors left, a broken disk) is a
#: fault of the machine.
_NOT_SERVED: Final = frozenset(
    (
        *(errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG),
        *(errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV),
    )
)


class AskedPath(NamedTuple):
    """A path below the directory: `names` as in the file system, none of them "", "." or "..".

    `folder`: it ends with a slash, so that it names a directory.
    """

    names: tuple[bytes, ...]
    folder: bool


def read_path(raw: str) -> AskedPath | None:
    """Parse a raw path; return None if it is never served.

    `raw` is the path after the route's, as it was sent: "" or text that begins with "/". Never
    served are dot segments, empty segments, names that begin with a dot (except ".well-known"),
    and segments that decode to a slash, a backslash, a control character or invalid UTF-8. A
    segment is decoded once.
    """
    if not _SENT.fullmatch(raw):
        return None
    segments = raw.split("/")[1:]
    folder = bool(segments) and not segments[-1]
    if folder:
        segments.pop()
    names: list[bytes] = []
    for segment in segments:
        octets = unquote_to_bytes(segment)
        if not _is_served(octets):
            return None
        names.append(octets)
    return AskedPath(tuple(names), folder)


def _is_served(octets: bytes) -> bool:
    try:
        name = octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    if not name or _REFUSED.search(name):
        return False
    return not name.startswith(".") or name == _WELL_KNOWN


class MediaTypes:
    """A table of media types that is the same on every machine: it ignores the system's."""

    def __init__(self) -> None:
        self._known = MimeTypes()
        # A compressed file keeps its own type: with a Content-Encoding the client would unpack it
        # (RFC 9110 section 8.4), and you want the archive that you download.
        self._known.encodings_map.clear()
        for ending, media_type in _TYPES.items():
            self._known.add_type(media_type, ending)

    def content_type(self, name: str) -> str:
        """Return the Content-Type for a file name, with UTF-8 as the charset of text."""
        # As a path, because "data:text/html,x" as a URL would name its own type.
        media_type = self._known.guess_type(f"./{name}")[0] or UNKNOWN
        return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type


class OpenFile:
    """A regular file that is open for reading; calls may block.

    Its descriptor is closed when it is garbage-collected, in case its response is never sent.
    """

    __slots__ = ("_descriptor", "_lock", "status")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        #: The status of the open file, even if its name is now another file's.
        self.status: Final = os.fstat(descriptor)

    def __del__(self) -> None:
        self.close()

    def read(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes from `offset` on, b"" after the end of the file.

        Raises OSError if the disk fails or the file is closed.
        """
        # Locked, because a closed descriptor's number may soon be another file's.
        with self._lock:
            return os.pread(self._descriptor, count, offset)

    def close(self) -> None:
        """Close the file, after a read under way; a second call does nothing."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)


class FoundFile(NamedTuple):
    """A file to serve; `in_folder`: the path named a directory, and this is its index file."""

    file: OpenFile
    in_folder: bool


def find(directory: Path, names: Iterable[bytes]) -> FoundFile | None:
    """Open the file to which `names` lead below `directory`; None if nothing is served.

    The walk opens one name at a time from an open directory, and no step follows a symbolic link:
    a directory that is replaced by a link meanwhile is an error, never a way out. The walk reads a
    link itself and goes on through its target in the same way. So each step of a link must stay
    below `directory` and have a name that a path could contain; absolute links fail. `directory`
    itself may be a link: it is opened for each request, so that you can replace the tree by a
    rename. Only regular files are opened; a directory is served as its index.html.

    Raises OSError if `directory` cannot be opened, and for faults of the machine.
    """
    with _Walk(os.open(directory, _DIRECTORY)) as walk:
        try:
            file = walk.to(names)
            if file is not None:
                return FoundFile(file, in_folder=False)
            file = walk.to((INDEX,))
        except _NotServedError:
            return None
        except OSError as error:
            if error.errno in _NOT_SERVED:
                return None
            raise
    return None if file is None else FoundFile(file, in_folder=True)


class _NotServedError(Exception):
    """The path leaves the directory, or names neither a directory nor a regular file."""


class _Walk:
    """The directories that were entered, outermost first, each open."""

    def __init__(self, root: int) -> None:
        self._entered = [root]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for descriptor in self._entered:
            os.close(descriptor)

    def to(self, names: Iterable[bytes]) -> OpenFile | None:
        """Walk on to the file to which `names` lead; None if they end at a directory."""
        ahead = list(names)[::-1]
        links = 0
        while ahead:
            name = ahead.pop()
            if name in {b"", b"."}:
                continue
            if name == b"..":
                self._leave()
                continue
            here = self._entered[-1]
            mode = os.stat(name, dir_fd=here, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                self._enter(name, here)
            elif stat.S_ISLNK(mode):
                links += 1
                ahead.extend(_link_target(name, here, links))
            elif stat.S_ISREG(mode) and not ahead:
                return _open_file(name, here)
            else:
                raise _NotServedError
        return None

    def _enter(self, name: bytes, here: int) -> None:
        if len(self._entered) > MAX_DEPTH:
            raise _NotServedError
        self._entered.append(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=here))

    def _leave(self) -> None:
        # Back to the directory that the walk came from: the file system's ".." may have changed.
        if len(self._entered) == 1:
            raise _NotServedError
        os.close(self._entered.pop())


def _link_target(name: bytes, here: int, links: int) -> list[bytes]:
    """Return the names in a link's target, last first."""
    target = os.readlink(name, dir_fd=here)
    if links > MAX_LINKS or target.startswith(b"/"):
        raise _NotServedError
    names = target.split(b"/")[::-1]
    if any(map(_HIDDEN.match, names)):
        raise _NotServedError
    return names


def _open_file(name: bytes, here: int) -> OpenFile:
    file = OpenFile(os.open(name, _FILE, dir_fd=here))
    # The name may be another file's since the check; the descriptor cannot be.
    if not stat.S_ISREG(file.status.st_mode):
        raise _NotServedError
    return file
