"""HAProxy and nginx in front of one gate, and clients that send one request after another."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edgekit import program, serving
from gatekit import RawClient, request_bytes, until
from process import free_port

_HAPROXY = """
defaults
    mode http
    timeout connect 20s
    timeout client 60s
    timeout server 60s
frontend web
    bind 127.0.0.1:{port}
    default_backend gate
backend gate
    server gate 127.0.0.1:{gate}
"""
_NGINX = """
daemon off; master_process off; worker_processes 1; pid {directory}/pid; error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;
    fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
    upstream gate {{ server 127.0.0.1:{gate}; keepalive 32; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://gate; proxy_http_version 1.1; proxy_set_header Connection "";
        }}
    }}
}}
"""
#: A POST, because proxies never send one again by themselves.
_REQUEST = request_bytes(method="POST", Content_Length="4") + b"post"
#: Clients of each proxy, and the seconds between a response and a client's next request: without a
#: pause they would take all processors, which the gate needs as well.
_CLIENTS = 6
_PAUSE = 0.01


@dataclass
class Load:
    """The responses that clients got: by status, and how often there was none."""

    answers: Counter[str] = field(default_factory=Counter)
    clients: list["asyncio.Task[None]"] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def count(self) -> int:
        """How many requests have ended."""
        return self.answers.total()

    async def more(self, count: int = 100) -> None:
        """Wait until that many further requests have ended."""
        wanted = self.count + count
        await until(lambda: self.count >= wanted, within=40)

    async def send(self, port: int) -> None:
        """Send one request after another until the end, on one connection while it stays open."""
        while not self._stop.is_set():
            async with RawClient.connect(port) as client:
                await self._send_on(client)

    async def _send_on(self, client: RawClient) -> None:
        while not self._stop.is_set():
            client.send(_REQUEST)
            try:
                response = await client.response()
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                self.answers[type(error).__name__] += 1
                return
            self.answers[str(response.status)] += 1
            if response.value("Connection") == "close":
                return
            await asyncio.sleep(_PAUSE)

    async def end(self) -> None:
        """End each client after the response to its request under way."""
        self._stop.set()
        _, waiting = await asyncio.wait(self.clients, timeout=30)
        for client in waiting:
            client.cancel()
        await asyncio.gather(*self.clients, return_exceptions=True)
        assert not waiting


@asynccontextmanager
async def load_behind_proxies(directory: Path, gate: int) -> AsyncIterator[Load]:
    """Send requests through both proxies to the gate's port until the block ends."""
    load = Load()
    async with AsyncExitStack() as stack:
        ports = []
        for name, text in (("haproxy", _HAPROXY), ("nginx", _NGINX)):
            place, port = directory / name, free_port()
            place.mkdir()
            (place / "conf").write_text(text.format(port=port, gate=gate, directory=place))
            options = ("-db", "-f") if name == "haproxy" else ("-p", str(place), "-c")
            command = [program(name), *options, str(place / "conf")]
            await stack.enter_async_context(serving(command, place, port))
            ports.append(port)
        load.clients = [asyncio.create_task(load.send(port)) for port in ports * _CLIENTS]
        try:
            yield load
        finally:
            await load.end()
