"""Answers routes without a tool: with a fixed status, or with the files of a directory."""

import hashlib
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

from aiohttp import web

from tailchat_gate.proxy.sockets import Descriptors, RequestSlots, slots_of_one
from tailchat_gate.proxy.static.conditional import (
    ByteSpan,
    Fields,
    UnsatisfiableRangeError,
    Validators,
    judge_preconditions,
    requested_span,
)
from tailchat_gate.proxy.static.response import FIRST_BYTES, WRITE_BYTES, FileAnswer, Reads, Rest
from tailchat_gate.proxy.static.tree import INDEX, AskedPath, MediaTypes, OpenFile, find, read_path
from tailchat_gate.reasons import Reason

#: Seconds that a file must be unchanged before its tag is strong: a second change within one tick
#: of the file system's clock would not change the tag (RFC 9110 section 8.8.1).
SETTLED_SECONDS: Final = 2

_SERVER: Final = {"Server": "tailchat-gate"}
#: Stored by the visitor's browser only, since a route may be for some people only; revalidated
#: each time, since a session may have ended (RFC 9111 section 5.2.2).
_FILE: Final = {
    **_SERVER,
    "Cache-Control": "private, no-cache",
    "X-Content-Type-Options": "nosniff",
}
_ALLOWED: Final = "GET, HEAD"
_METHODS: Final = frozenset(_ALLOWED.split(", "))
#: The fields that a response of these statuses must have (RFC 9110 section 15).
_OWED: Final[Mapping[int, Mapping[str, str]]] = MappingProxyType(
    {
        HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": 'TailchatGate realm="tailchat"'},
        HTTPStatus.METHOD_NOT_ALLOWED: {"Allow": ""},
    }
)
_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))
_SCHEME_AND_HOST: Final = "://"


class LocalBackend(Protocol):
    """Answers the requests of a route without a tool."""

    async def answer(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Return a response to be sent.

        `path` is the raw path after the route's: "" or text that begins with "/".
        """


class StaticAnswer:
    """Answers every request with one status and an empty body."""

    def __init__(self, status: int) -> None:
        self._status = status
        self._headers = {**_SERVER, "Cache-Control": "no-store", **_OWED.get(status, {})}

    async def answer(self, request: web.BaseRequest, path: str) -> web.StreamResponse:  # noqa: ARG002 - as LocalBackend
        """Return the response, with `Content-Length: 0` if the status allows it."""
        headers = dict(self._headers)
        if self._status not in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            headers["Content-Length"] = "0"
        return web.Response(status=self._status, headers=headers)


class LocalFiles:
    """Answers with the files below a directory, to GET and HEAD.

    `idle_timeout` is how many seconds a client may read nothing of a file, 0 for no limit. `clock`
    returns Unix seconds.
    """

    def __init__(
        self,
        directory: Path,
        *,
        idle_timeout: float = 600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._idle_timeout = idle_timeout or None
        self._clock = clock
        self._media_types = MediaTypes()
        self._reads = Reads()

    async def answer(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Return a file or a part of it, a 304, a redirect or an error response.

        Raises OSError if the directory itself cannot be opened, and for faults of the machine.
        """
        if request.method not in _METHODS:
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": _ALLOWED})
        path_read = read_path(path)
        if path_read is None:
            return _refusal(HTTPStatus.NOT_FOUND)
        wanted = _Wanted(path_read, request.raw_path, request.headers, request.method == "HEAD")
        async with self._reads.turns:
            response = await self._reads.run(self._look_up, wanted)
        headers = {**_FILE, **response.headers}
        if response.rest is None:
            return web.Response(status=response.status, headers=headers, body=response.body)
        return FileAnswer(response.status, headers, response.rest, self._reads, self._idle_timeout)

    def close(self) -> None:
        """Let the threads end; call it when no file is being sent."""
        self._reads.threads.shutdown(wait=False)

    def _look_up(self, wanted: "_Wanted") -> "_Response":
        """Find the file, judge the request and read the first piece; it blocks."""
        node = find(self._directory, wanted.path.names)
        if node is None:
            return _refused(HTTPStatus.NOT_FOUND)
        if node.in_folder and not wanted.path.folder:
            node.file.close()
            return _Response(
                HTTPStatus.PERMANENT_REDIRECT,
                {"Location": _with_slash(wanted.target), "Content-Length": "0"},
            )
        if wanted.path.folder and not node.in_folder:
            node.file.close()
            return _refused(HTTPStatus.NOT_FOUND)
        return self._judge(wanted, node.file, INDEX if node.in_folder else wanted.path.names[-1])

    def _judge(self, wanted: "_Wanted", file: OpenFile, name: bytes) -> "_Response":
        current = self._validators(file)
        headers = {"ETag": current.etag, "Last-Modified": formatdate(current.modified, usegmt=True)}
        status = judge_preconditions(wanted.fields, current)
        if status is HTTPStatus.NOT_MODIFIED:
            return _Response(status, headers)
        if status is HTTPStatus.PRECONDITION_FAILED:
            return _refused(status)
        size = file.status.st_size
        headers["Accept-Ranges"] = "bytes"
        headers["Content-Type"] = self._media_types.content_type(name.decode())
        if wanted.head:
            return _Response(status, {**headers, "Content-Length": str(size)})
        try:
            span = requested_span(wanted.fields, current.etag, size)
        except UnsatisfiableRangeError:
            return _refused(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{size}"}
            )
        if span is not None:
            status = HTTPStatus.PARTIAL_CONTENT
            end = span.start + span.length - 1
            headers["Content-Range"] = f"bytes {span.start}-{end}/{size}"
        return _begin(status, headers, file, span or ByteSpan(0, size))

    def _validators(self, file: OpenFile) -> Validators:
        status, now = file.status, self._clock()
        # It includes the inode's number and change time, because reproducible builds and copying
        # tools give changed files their old dates. It is hashed, because inode numbers must not
        # leak (CVE-2003-1418).
        version = f"{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_size}-{status.st_ino}"
        tag = hashlib.blake2b(version.encode("ascii"), digest_size=12).hexdigest()
        settled = now - status.st_ctime >= SETTLED_SECONDS
        # Not later than the response itself (RFC 9110 section 8.8.2.1), nor before the epoch,
        # which not every date format can express.
        modified = max(0, min(int(status.st_mtime), int(now)))
        return Validators(f'"{tag}"' if settled else f'W/"{tag}"', modified)


class _Wanted(NamedTuple):
    """The parts of a request that a file's response depends on; `target` is the raw target."""

    path: AskedPath
    target: str
    fields: Fields
    head: bool


class _Response(NamedTuple):
    """A response as the thread made it; a `rest` is sent instead of `body`."""

    status: HTTPStatus
    headers: dict[str, str]
    body: bytes | None = None
    rest: Rest | None = None


def _begin(
    status: HTTPStatus, headers: Mapping[str, str], file: OpenFile, span: ByteSpan
) -> "_Response":
    """Read the first piece of a body; close the file if that is all."""
    full = {**headers, "Content-Length": str(span.length)}
    first = file.read(span.start, min(span.length, FIRST_BYTES))
    if len(first) < span.length or len(first) > WRITE_BYTES:
        return _Response(status, full, rest=Rest(file, span, first))
    file.close()
    return _Response(status, full, body=first)


def _refused(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> _Response:
    body = f"{status.value} {status.phrase}\n".encode("ascii")
    text = {"Content-Type": "text/plain; charset=utf-8"}
    return _Response(status, {**text, **(headers or {})}, body=body)


def _refusal(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> web.Response:
    response = _refused(status, headers)
    return web.Response(status=status, headers={**_FILE, **response.headers}, body=response.body)


def _with_slash(target: str) -> str:
    """Return a directory's target with a slash after its path, as a path on this host."""
    if not target.startswith("/"):
        # The absolute form (RFC 9112 section 3.2.2).
        target = "/" + target.partition(_SCHEME_AND_HOST)[2].partition("/")[2]
    path, mark, query = target.partition("?")
    # One slash in front, and no backslash after it: "//name" would name another host.
    path = path.strip("/\\")
    location = (f"/{path}/" if path else "/") + mark + query
    return quote(location, safe=_VISIBLE, errors="surrogateescape")


class StaticSlots:
    """The slots of a route that the gate answers itself; each may hold a file open.

    `most` and `most_of_one` are as in RequestSlots, 0 for a limit that depends on the descriptors.
    """

    def __init__(self, descriptors: Descriptors, most: int, most_of_one: int) -> None:
        self._descriptors = descriptors
        self._most = most
        self._most_of_one = most_of_one
        self._slots = RequestSlots()

    def enter(self, who: str) -> Reason | None:
        """Give a request of the client `who` a slot; return why not, None if it got one."""
        descriptors = self._descriptors
        most = self._most or descriptors.tool_requests
        refused = self._slots.enter(who, most, slots_of_one(most, self._most_of_one))
        if refused is None:
            descriptors.upstreams += 1
        return refused

    def leave(self, who: str) -> None:
        """Free a slot."""
        self._descriptors.upstreams -= 1
        self._slots.leave(who)
