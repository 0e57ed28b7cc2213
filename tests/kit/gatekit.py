"""What the tests run against: a gate on port 0, an upstream that records bytes, a raw client."""

import asyncio
import json
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import pytest

from tailchat_gate.config.load import Source
from tailchat_gate.config.model import Settings
from tailchat_gate.config.tables.server import PUBLIC_ADDRESSES
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.cookie_fields import CookieNames
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sessions.session_cookie import Lifetimes, SessionCookie
from tailchat_gate.serving.generations import Generation
from tailchat_gate.serving.process_state import ProcessState, spans_of
from tailchat_gate.serving.server import GateServer
from tailchat_gate.serving.wiring.build import build
from tailchat_gate.state.places import server_of

SECRET = "q8Zr1XvK3mTn7PbY5wLd2HcJ9sGf4RtE6uAo0iQe"
SUB = "660000000000000000000001"
START = 1_800_000_000.0
ALICE = Profile(SUB, "Alice", "0042", "https://chat.example/static/a.png")


@dataclass
class Clock:
    """A clock that moves only when a test moves it; Unix seconds."""

    now: float = START

    def __call__(self) -> float:
        """Return the time the test has set."""
        return self.now


def make_settings(
    upstream: str = "http://127.0.0.1:9",
    **sections: Any,  # noqa: ANN401 - as in the file, before it is checked
) -> Settings:
    """Return settings for one tool at `upstream`; a section's keys override the defaults."""
    base: dict[str, Any] = {
        "server": {
            "public_url": "http://gate.test",
            "listen": ["127.0.0.1:0"],
            "admin_listen": "",
            "shutdown_timeout": "2s",
        },
        "tailchat": {
            "api_url": "http://127.0.0.1:9",
            "client_id": "tc_test",
            "client_secret": "app-secret-of-the-test",
            # Nothing answers there: most tests have no Tailchat.
            "people_refresh": "0",
        },
        "session": {"secrets": [SECRET], "lifetime": "12h", "idle": "0"},
        "state": {"path": ""},
        "groups": {},
        "route": [{"name": "tool", "upstream": upstream, "headers": {}}],
    }
    for name, values in sections.items():
        base[name] = {**base[name], **values} if isinstance(base.get(name), dict) else values
    # Most tests of a tool that is down do not want to wait for it.
    usual = {"headers": {}, "upstream": upstream, "connect_retry": "0"}
    base["route"] = [{**usual, **route} for route in base["route"]]
    return Settings.model_validate(base)


def elsewhere(settings: Settings) -> Settings:
    """Return the settings of one more gate, which has a port of its own."""
    server = settings.server.model_copy(update={"listen": ("127.0.0.1:0",)})
    return settings.model_copy(update={"server": server})


def sealed(
    settings: Settings, clock: Callable[[], float], record: SessionRecord, purpose: str
) -> str:
    """Return the Cookie value for a record at a gate with these settings."""
    names = CookieNames.for_origin(settings.server.public_url, settings.session.cookie_name)
    keys = KeyRing([s.get_secret_value().encode() for s in settings.session.secrets], purpose)
    lifetimes = Lifetimes(settings.session.lifetime, settings.session.idle)
    return SessionCookie(keys, names, lifetimes, clock).set(record).partition(";")[0]


@dataclass
class RunningGate:
    """A gate that serves on loopback."""

    server: GateServer
    clock: Clock
    log_file: Path

    @property
    def generation(self) -> Generation:
        """The configuration that answers new requests."""
        return self.server.in_force

    @property
    def port(self) -> int:
        """The port of the public listener."""
        return self.addresses_of(*PUBLIC_ADDRESSES)[0][1]

    @property
    def admin_address(self) -> tuple[str, int]:
        """Host and port of the admin listener."""
        return self.addresses_of("admin_listen")[0]

    def addresses_of(self, *keys: str) -> list[tuple[str, int]]:
        """Return the bound TCP addresses of keys of [server], such as "https_listen"."""
        listeners = self.server._listeners
        return [
            one.getsockname()[:2]
            for key in keys
            for (setting, _), listener in (listeners._open.items() if listeners else ())
            for one in listener.sockets
            if setting == f"server.{key}" and one.family in (socket.AF_INET, socket.AF_INET6)
        ]

    def cookie(self, profile: Profile = ALICE, *, signed_in_at: float | None = None) -> str:
        """Return a Cookie value of a session that this gate accepts."""
        record = SessionRecord.begin(
            profile, now=self.clock() if signed_in_at is None else signed_in_at, login="x"
        )
        return self.seal(record)

    def cookie_for(self, host: str, profile: Profile = ALICE) -> str:
        """Return a Cookie value of a session on a tool's own host."""
        record = SessionRecord.begin(profile, now=self.clock(), login="x")
        return self.seal(record, f"session {host}")

    def seal(self, record: SessionRecord, purpose: str = "session") -> str:
        """Return the Cookie value for a record; `purpose` tells the host."""
        return sealed(self.generation.settings, self.clock, record, purpose)

    async def log(self) -> list[dict[str, Any]]:
        """Return the lines of the access log so far."""
        await self.generation.process_state.access_log.close(60.0)
        text = await asyncio.to_thread(self.log_file.read_text)
        return [json.loads(line) for line in text.splitlines()]


@asynccontextmanager
async def running_gate(
    settings: Settings,
    log_file: Path,
    clock: Clock | None = None,
    source: Source | None = None,
    *,
    checks_sign_in: bool = False,
) -> AsyncIterator[RunningGate]:
    """Serve `settings` until the block ends; further ones are read from `source`.

    `checks_sign_in`: as the command does it; other tests count the calls to Tailchat.
    """
    clock = clock or Clock()
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        # The generation has no name here, which would keep it in memory after a reload.
        server = GateServer(
            await asyncio.to_thread(_first, settings, clock, descriptor),
            source,
            checks_sign_in=checks_sign_in,
        )
        try:
            await server.start()
            yield RunningGate(server, clock, log_file)
        finally:
            _close_idle(server)
            await server.stop()
    finally:
        os.close(descriptor)


def _first(settings: Settings, clock: Clock, descriptor: int) -> Generation:
    return build(
        settings,
        ProcessState(
            state_path=settings.state.path,
            redis=server_of(settings.state),
            clock=clock,
            log_descriptor=descriptor,
            spans=spans_of(settings.tracing),
        ),
    )


def _close_idle(server: GateServer) -> None:
    """Close idle connections at once, for which a stop waits a second: tests leave many open."""
    for connection in tuple(server._server.connections) if server._server is not None else ():
        if connection.idle_deadline:
            connection.close_idle()


@asynccontextmanager
async def listening(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
    *,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve raw connections on loopback until the block ends; yields the port."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def is_listening(port: int) -> bool:
    """Whether a port of loopback takes a connection now."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def until_listening(
    process: asyncio.subprocess.Process, port: int, log: Path, seconds: float
) -> None:
    """Wait until a program takes connections; one that ends before fails the test with its log."""
    async with asyncio.timeout(seconds):
        while not await is_listening(port):
            if process.returncode is not None:
                pytest.fail(await asyncio.to_thread(log.read_text, errors="replace"))
            await asyncio.sleep(0.05)


@dataclass
class Received:
    """A request as an upstream got it, in bytes."""

    head: bytes
    body: bytes = b""
    trailers: list[bytes] = field(default_factory=list)

    @property
    def line(self) -> bytes:
        """The request line."""
        return self.head.split(b"\r\n", 1)[0]

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """The header fields in order."""
        lines = self.head.split(b"\r\n")[1:]
        pairs = (line.partition(b": ") for line in lines if line)
        return [(name, value) for name, _, value in pairs]

    def values(self, name: str) -> list[bytes]:
        """The values of a field, its name compared without case."""
        wanted = name.lower().encode()
        return [value for found, value in self.fields if found.lower() == wanted]

    def value(self, name: str) -> bytes | None:
        """The one value of a field, None where it is absent."""
        values = self.values(name)
        assert len(values) <= 1, values
        return values[0] if values else None


def break_route(gate: RunningGate, route: str) -> None:
    """Let every request of a route fail inside the gate, after it was let in."""
    # A replaced method has no effect on compiled code. So the route gets local files that no part
    # of the gate serves.
    local = cast("dict[str, object]", gate.generation.gate.local)
    local[route] = None


async def until(holds: Callable[[], bool], *, within: float = 30.0, longest: float = 0.03) -> None:
    """Wait until `holds` returns True; fail after `within` seconds.

    `longest` is the longest pause between two checks, in seconds.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    pause = 0.001
    while not holds():
        assert loop.time() < end, f"not within {within} s"
        await asyncio.sleep(pause)
        # The longer it takes, the less often it checks, because some checks are expensive.
        pause = min(pause * 1.3, longest)


Answer = Callable[[Received, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class PausedAnswer:
    """An answer that waits: a request sets `arrived`, then the test sets `go_on`."""

    def __init__(self, then: bytes | Answer = OK) -> None:
        self.arrived = asyncio.Event()
        self.go_on = asyncio.Event()
        self._then = then

    async def __call__(
        self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer a request once the test lets it."""
        self.arrived.set()
        await self.go_on.wait()
        if isinstance(self._then, bytes):
            writer.write(self._then)
        else:
            await self._then(request, reader, writer)


@dataclass
class LoopbackServer:
    """A server on loopback, whose connections end with the block."""

    _server: asyncio.Server | None = field(default=None, init=False)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set, init=False)

    def options(self) -> dict[str, Any]:
        """Return the arguments for asyncio.start_server."""
        return {"port": 0}

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", **self.options())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.converse(reader, writer)
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


@dataclass
class RawUpstream(LoopbackServer):
    """An upstream that keeps every request's bytes and answers with given bytes."""

    answer: bytes | Answer = OK
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0
    #: For one that speaks https, by the name localhost.
    tls: ssl.SSLContext | None = None
    #: Where it listens, 0 for any.
    port: int = 0

    @property
    def url(self) -> str:
        """Its URL."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}" if self.tls is None else f"https://localhost:{port}"

    def options(self) -> dict[str, Any]:
        """As in the base class."""
        # Hundreds may come at once: with a short queue the kernel lets some wait for seconds.
        return {"port": self.port, "limit": 2**20, "ssl": self.tls, "backlog": 1024}

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As in the base class."""
        self.connections += 1
        self.open_connections += 1
        try:
            while head := await _read_head(reader):
                request = Received(head)
                self.requests.append(request)
                if callable(self.answer):
                    await self.answer(request, reader, writer)
                    continue
                request.body = await read_body(request, reader)
                writer.write(self.answer)
                await writer.drain()
        finally:
            self.open_connections -= 1


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return (await reader.readuntil(b"\r\n\r\n"))[:-2]
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def read_body(request: Received, reader: asyncio.StreamReader) -> bytes:
    """Read the body of a request by its framing; chunks are joined."""
    if request.value("Transfer-Encoding") == b"chunked":
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        while (trailer := await reader.readuntil(b"\r\n")) != b"\r\n":
            request.trailers.append(trailer.rstrip(b"\r\n"))
        return body
    return await reader.readexactly(int(request.value("Content-Length") or 0))


def once_a_connection() -> Answer:
    """Return an answer for the first request of each connection; the second one closes it."""
    served: set[asyncio.StreamWriter] = set()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request.body = await read_body(request, reader)
        if writer in served:
            writer.close()
            return
        served.add(writer)
        writer.write(OK)

    return answer


@dataclass
class Response:
    """An answer as a client got it."""

    status: int
    head: bytes
    body: bytes

    def values(self, name: str) -> list[str]:
        """The values of a field, in order."""
        return [value.decode("latin-1") for value in Received(self.head).values(name)]

    def value(self, name: str) -> str:
        """The first value of a field, "" where it is absent."""
        return next(iter(self.values(name)), "")

    @property
    def json(self) -> dict[str, Any]:
        """The body as JSON."""
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


class RawClient:
    """A client that writes bytes and reads one answer after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def connect(cls, port: int) -> AsyncIterator["RawClient"]:
        """Connect to a port on loopback until the block ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(data)

    async def head(self) -> bytes:
        """Read one head."""
        return (await self.reader.readuntil(b"\r\n\r\n"))[:-2]

    async def response(self, *, to_head: bool = False) -> Response:
        """Read one whole answer. Raises IncompleteReadError for one that is cut off."""
        return await self.rest(await self.head(), to_head=to_head)

    async def rest(self, head: bytes, *, to_head: bool = False) -> Response:
        """Read what comes after a head, as `response` does."""
        status = int(head.split(b" ", 2)[1])
        body = b""
        received = Received(head)
        if to_head or status in {204, 304}:
            pass
        elif received.value("Transfer-Encoding") == b"chunked":
            body = await read_body(received, self.reader)
        elif received.value("Content-Length") is not None:
            body = await self.reader.readexactly(int(received.value("Content-Length") or 0))
        else:
            body = await self.reader.read()
        return Response(status, head, body)


def request_bytes(
    target: str = "/", *, method: str = "GET", host: str = "gate.test", **fields: str
) -> bytes:
    """Return a request; `_` in a field's keyword stands for `-`."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


async def ask(port: int, data: bytes, *, to_head: bool = False) -> Response:
    """Send one request on a connection of its own and return the answer."""
    async with RawClient.connect(port) as client:
        client.send(data)
        return await client.response(to_head=to_head)


def login_cookie(response: Response) -> str:
    """Return the login cookie that an answer sets, as a Cookie field holds it."""
    found = [line.partition(";")[0] for line in response.values("Set-Cookie") if "_login_" in line]
    assert len(found) == 1, found
    return found[0]


def cookie_value(response: Response, name: str) -> str:
    """Return the value that an answer sets for a cookie; "" where it sets none."""
    for line in response.values("Set-Cookie"):
        match = re.match(rf"{re.escape(name)}=([^;]*)", line)
        if match:
            return match[1].strip('"')
    return ""
