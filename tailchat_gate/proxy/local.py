"""What the gate answers in place of a tool: a fixed status, or the files of a directory."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.proxy.conditional import (
    Fields,
    Span,
    UnsatisfiableRangeError,
    Validators,
    judge_preconditions,
    requested_span,
)
from tailchat_gate.proxy.local_path import AskedPath, read_path
from tailchat_gate.proxy.local_tree import INDEX, OpenFile, find
from tailchat_gate.proxy.media_type import MediaTypes

#: Bytes read from a file at once; what does not fit into one piece is read as the client takes it.
CHUNK_BYTES: Final = 65_536
#: Threads that read for one route. A pool of its own, so that a disk that hangs does not keep
#: everything else in the process waiting that needs a thread, such as name lookups.
THREADS: Final = 8
#: Seconds that a file must have been left alone before its tag is a strong one: a second change
#: within one tick of the file system's clock would not show in it (RFC 9110 section 8.8.1).
SETTLED_SECONDS: Final = 2

_SERVER: Final = {"Server": "tailchat-gate"}
#: Kept by the visitor's browser alone, since a route may be for some people only, and asked for
#: again each time, since a session may have ended (RFC 9111 section 5.2.2).
_FILE: Final = {
    **_SERVER,
    "Cache-Control": "private, no-cache",
    "X-Content-Type-Options": "nosniff",
}
_ALLOWED: Final = "GET, HEAD"
_METHODS: Final = frozenset(_ALLOWED.split(", "))
#: RFC 9110 section 15: what an answer of these statuses has to say.
_OWED: Final[Mapping[int, Mapping[str, str]]] = MappingProxyType(
    {
        HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": 'TailchatGate realm="tailchat"'},
        HTTPStatus.METHOD_NOT_ALLOWED: {"Allow": ""},
    }
)
_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))
_SCHEME_AND_HOST: Final = "://"

_log = logging.getLogger(LOGGER_NAME)


class LocalBackend(Protocol):
    """What answers the requests of a route without a connection to a tool."""

    async def answer(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Return the answer to a request; nothing has been sent of it.

        `path` is the raw path behind that of the route: "" or text that begins with "/".
        """


class StaticAnswer:
    """Answers every request with one status and an empty body."""

    def __init__(self, status: int) -> None:
        self._status = status
        self._headers = {**_SERVER, "Cache-Control": "no-store", **_OWED.get(status, {})}

    async def answer(self, request: web.BaseRequest, path: str) -> web.StreamResponse:  # noqa: ARG002 - as LocalBackend
        """Return the answer: `Content-Length: 0`, and none where the status forbids it."""
        headers = dict(self._headers)
        if self._status not in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            headers["Content-Length"] = "0"
        return web.Response(status=self._status, headers=headers)


class LocalFiles:
    """Answers with the files below a directory, to GET and HEAD.

    `idle_timeout` is how many seconds a client may take nothing of a file, 0 for ever. `clock`
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
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="local-files")

    async def answer(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Return a file, a part of it, that it is unchanged, a redirect or a refusal.

        Raises OSError where the directory itself cannot be opened and for faults of the machine.
        """
        if request.method not in _METHODS:
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": _ALLOWED})
        asked = read_path(path)
        if asked is None:
            return _refusal(HTTPStatus.NOT_FOUND)
        wanted = _Wanted(asked, request.raw_path, request.headers, request.method == "HEAD")
        reply = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._look_up, wanted
        )
        headers = {**_FILE, **reply.headers}
        if reply.rest is None:
            return web.Response(status=reply.status, headers=headers, body=reply.body)
        return _FileAnswer(reply.status, headers, reply.rest, self._threads, self._idle_timeout)

    def close(self) -> None:
        """Let the threads end; a file that is being sent must not be left."""
        self._threads.shutdown(wait=False)

    def _look_up(self, wanted: "_Wanted") -> "_Reply":
        """Find the file, judge the request and read what fits into one piece; blocking."""
        found = find(self._directory, wanted.path.names)
        if found is None:
            return _refused(HTTPStatus.NOT_FOUND)
        if found.in_folder and not wanted.path.folder:
            found.file.close()
            return _Reply(
                HTTPStatus.PERMANENT_REDIRECT,
                {"Location": _with_slash(wanted.target), "Content-Length": "0"},
            )
        if wanted.path.folder and not found.in_folder:
            found.file.close()
            return _refused(HTTPStatus.NOT_FOUND)
        return self._judge(wanted, found.file, INDEX if found.in_folder else wanted.path.names[-1])

    def _judge(self, wanted: "_Wanted", file: OpenFile, name: bytes) -> "_Reply":
        current = self._validators(file)
        headers = {"ETag": current.etag, "Last-Modified": formatdate(current.modified, usegmt=True)}
        status = judge_preconditions(wanted.fields, current)
        if status is HTTPStatus.NOT_MODIFIED:
            return _Reply(status, headers)
        if status is HTTPStatus.PRECONDITION_FAILED:
            return _refused(status)
        size = file.status.st_size
        headers["Accept-Ranges"] = "bytes"
        headers["Content-Type"] = self._media_types.content_type(name.decode())
        if wanted.head:
            return _Reply(status, {**headers, "Content-Length": str(size)})
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
        return _begin(status, headers, file, span or Span(0, size))

    def _validators(self, file: OpenFile) -> Validators:
        status, now = file.status, self._clock()
        # With the time of the last change to the inode and its number, because builds that can
        # be repeated and copying tools give changed files their old dates. Hashed, because inode
        # numbers are nobody's business (CVE-2003-1418).
        version = f"{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_size}-{status.st_ino}"
        tag = hashlib.blake2b(version.encode("ascii"), digest_size=12).hexdigest()
        settled = now - status.st_ctime >= SETTLED_SECONDS
        # Not later than the answer itself (RFC 9110 section 8.8.2.1), nor before the epoch,
        # where the format of dates may end.
        modified = max(0, min(int(status.st_mtime), int(now)))
        return Validators(f'"{tag}"' if settled else f'W/"{tag}"', modified)


class _Wanted(NamedTuple):
    """A request, as far as files are concerned; `target` is the raw request target."""

    path: AskedPath
    target: str
    fields: Fields
    head: bool


class _Rest(NamedTuple):
    """What is to be sent of a file, and the first piece of it."""

    file: OpenFile
    span: Span
    first: bytes


class _Reply(NamedTuple):
    """An answer as the thread made it; a `rest` is sent instead of `body`."""

    status: HTTPStatus
    headers: dict[str, str]
    body: bytes | None = None
    rest: _Rest | None = None


class _FileAnswer(web.StreamResponse):
    """Sends a part of an open file, as fast as the client takes it.

    aiohttp's FileResponse is not used. It opens by path, a second time after any check; it would
    have to be given /proc/self/fd/N, which not every container has. It ends a reply whose file
    became shorter as if it were whole and keeps the connection, so that the next reply is read
    as the rest of this one. And it takes an If-Range with a tag for none, and a Range in another
    unit for an error.
    """

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        rest: _Rest,
        threads: ThreadPoolExecutor,
        idle_timeout: float | None,
    ) -> None:
        super().__init__(status=status, headers=headers)
        self._rest = rest
        self._threads = threads
        self._idle_timeout = idle_timeout
        self._transport: asyncio.Transport | None = None
        self._path = ""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the head."""
        self._transport = request.transport
        # Without the query, which is in no log of the gate.
        self._path = request.raw_path.partition("?")[0]
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the body; `data` is none.

        Raises ConnectionError when the client left, and after closing the connection when the
        body cannot be sent whole.
        """
        try:
            await self._send()
        except OSError as error:
            # Never a clean end: the client must see that the reply is not whole (RFC 9112
            # section 8).
            if self._transport is not None:
                self._transport.abort()
            if isinstance(error, ConnectionError):
                raise
            if not isinstance(error, TimeoutError):
                details = {"path": self._path, "problem": str(error)}
                _log.warning("a file was not sent to its end", extra={"details": details})
            raise ConnectionResetError("a file was not sent to its end") from error
        finally:
            # In a thread, because a read that is under way holds it; and not waited for.
            self._threads.submit(self._rest.file.close)
        await super().write_eof(data)

    async def _send(self) -> None:
        file, (offset, left), piece = self._rest
        loop = asyncio.get_running_loop()
        while left:
            if not piece:
                raise OSError("it became shorter")
            async with asyncio.timeout(self._idle_timeout):
                await self.write(piece)
            offset += len(piece)
            left -= len(piece)
            if left:
                piece = await loop.run_in_executor(
                    self._threads, file.read, offset, min(left, CHUNK_BYTES)
                )


def _begin(status: HTTPStatus, headers: Mapping[str, str], file: OpenFile, span: Span) -> "_Reply":
    """Read the first piece of a body, and be done with the file if that is all."""
    full = {**headers, "Content-Length": str(span.length)}
    first = file.read(span.start, min(span.length, CHUNK_BYTES))
    if len(first) < span.length:
        return _Reply(status, full, rest=_Rest(file, span, first))
    file.close()
    return _Reply(status, full, body=first)


def _refused(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> _Reply:
    body = f"{status.value} {status.phrase}\n".encode("ascii")
    text = {"Content-Type": "text/plain; charset=utf-8"}
    return _Reply(status, {**text, **(headers or {})}, body=body)


def _refusal(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> web.Response:
    reply = _refused(status, headers)
    return web.Response(status=status, headers={**_FILE, **reply.headers}, body=reply.body)


def _with_slash(target: str) -> str:
    """Return the target of a directory with a slash behind its path, as a path on this host."""
    if not target.startswith("/"):
        # The absolute form (RFC 9112 section 3.2.2).
        target = "/" + target.partition(_SCHEME_AND_HOST)[2].partition("/")[2]
    path, mark, query = target.partition("?")
    # One slash in front, and no backslash behind it: "//name" leads to another host.
    path = path.strip("/\\")
    location = (f"/{path}/" if path else "/") + mark + query
    return quote(location, safe=_VISIBLE, errors="surrogateescape")
