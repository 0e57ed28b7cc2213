"""Proxies in front of the gate, with the configurations of deploy/, for real."""

import asyncio
import os
import re
import shutil
import sysconfig
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import pytest
from gatekit import OK, Clock, ask, request_bytes, until_listening
from parts import missing
from process import free_port
from storykit import Story, story

from tailchat_gate.identity.machine_tokens import hash_of, make_token

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
_START_SECONDS: Final = 90.0
#: A machine's token, good for the route "wiki".
TOKEN: Final = make_token(bytes(32))
#: The addresses in the files of deploy/, which a test replaces by its own.
_GATE, _TOOL = "127.0.0.1:4180", "127.0.0.1:3000"


@dataclass
class Edge:
    """A proxy in front: `url(host)` is where a browser finds a host."""

    scene: Story
    port: int
    name: str = ""
    #: Where it speaks HTTP/2 without TLS.
    http2_port: int = 0

    def url(self, host: str) -> str:
        """Return the origin of a host."""
        return f"http://{host}:{self.port}"


class Place(NamedTuple):
    """The places of a proxy: its directory, its port, and the ports of gate and tool.

    `catch_all`: the tool's block answers for every host that no other block names.
    """

    directory: Path
    port: int
    gate: int
    tool: int
    catch_all: bool
    http2_port: int


def program(name: str) -> str:
    """Return the path of a server program; skip the test, or fail it in CI, without it."""
    places = (sysconfig.get_path("scripts"), os.environ.get("PATH", ""), "/usr/sbin")
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        missing(name)
    return found


def _replaced(text: str, *changes: tuple[str, str, int]) -> str:
    """Return a text with patterns replaced, each as often as it says."""
    for pattern, new, times in changes:
        text, count = re.subn(pattern, new, text, flags=re.MULTILINE)
        assert count == times, (pattern, count)
    return text


def _rewritten(file: str, place: Place, *changes: tuple[str, str, int]) -> str:
    """Return a file of deploy/ with this test's addresses in it; each must stand in the file.

    The names that the files write out get the test's port, as an admin's do where browsers see
    one.
    """
    text = (DEPLOY / file).read_text()
    for address, port in ((_GATE, place.gate), (_TOOL, place.tool)):
        assert address in text, address
        text = text.replace(address, f"127.0.0.1:{port}")
    return _replaced(text, *changes).replace("example.com", "test")


def nginx_command(place: Place) -> list[str]:
    """Write nginx's configuration into a directory; return the command that serves it."""
    directory, port = place.directory, place.port
    site = _rewritten(
        "nginx/wiki.conf",
        place,
        (r"(set \$tailchat_host [a-z.]+);", rf"\1:{port};", 2),
        (r"listen 80", f"listen 127.0.0.1:{port}", 3),
    )
    if place.catch_all:
        site = _replaced(
            site,
            (r"^server \{\n    listen [0-9.:]+ default_server;\n    return 421;\n\}\n", "", 1),
            (r"server_name wiki.test;", "server_name _;", 1),
            (
                r"server \{\n(.*\n)    listen ([0-9.:]+);\n(    server_name _;)",
                r"server {\n\1    listen \2 default_server;\n\3",
                1,
            ),
        )
    # The same server with HTTP/2, which the example has only with TLS.
    second = rf"\g<0>\n    listen 127.0.0.1:{place.http2_port}\1 http2;"
    site = _replaced(
        site,
        (rf"^    listen 127.0.0.1:{port}( default_server)?;", second, 2 + (not place.catch_all)),
    )
    for part in ("headers", "strip"):
        shutil.copy(DEPLOY / f"nginx/tailchat-gate-{part}.conf", directory)
    paths = "".join(
        f"{kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"daemon off; master_process off; worker_processes 1; pid {directory}/pid;\n"
        f"error_log stderr warn;\nevents {{ worker_connections 256; }}\n"
        f"http {{ access_log off;\n{paths}{site}}}\n"
    )
    return [program("nginx"), "-p", str(directory), "-c", str(directory / "nginx.conf")]


def caddy_command(place: Place) -> list[str]:
    """Write Caddy's configuration into a directory; return the command that serves it."""
    port = place.port
    site = _rewritten(
        "caddy/Caddyfile",
        place,
        (r"(request_header Host [a-z.]+)$", rf"\1:{port}", 1),
        (r"^(\w+\.example\.com) \{", rf"http://\1:{port} {{", 2),
    )
    if place.catch_all:
        site = _replaced(site, (r"^http://wiki\.test:", "http://:", 1))
    shutil.copy(DEPLOY / "caddy/tailchat-gate-strip.caddy", place.directory)
    lines = (
        "admin off",
        "auto_https off",
        "persist_config off",
        "servers {",
        "protocols h1 h2c",
        "}",
    )
    options = "\n".join(("{", *lines, "}\n"))
    file = place.directory / "Caddyfile"
    file.write_text(options + site)
    return [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]


def traefik_text(place: Place) -> str:
    """Return Traefik's configuration with this test's addresses in it."""
    port = place.port
    text = (DEPLOY / "traefik/dynamic.yaml").read_text()
    text = _replaced(
        text,
        (r"^      tls: \{\}\n", "", 4),
        (r"gate:4180", f"127.0.0.1:{place.gate}", 2),
        (r"wiki:3000", f"127.0.0.1:{place.tool}", 1),
        (r"(Host: wiki\.example\.com)$", rf"\1:{port}", 3),
        (r"X-Forwarded-Proto: https", "X-Forwarded-Proto: http", 1),
        (r'X-Forwarded-Port: "443"', f'X-Forwarded-Port: "{port}"', 1),
        (r"__Host-tailchat_gate$", "tailchat_gate", 1),
    ).replace("example.com", "test")
    if place.catch_all:
        text = text.replace("Host(`wiki.test`)", "PathPrefix(`/`)")
    return text


def traefik_command(place: Place) -> list[str]:
    """Write Traefik's configuration into a directory; return the command that serves it."""
    directory, port = place.directory, place.port
    text = traefik_text(place)
    (directory / "dynamic.yaml").write_text(text)
    return [
        program("traefik"),
        f"--entryPoints.websecure.address=127.0.0.1:{port}",
        f"--providers.file.filename={directory}/dynamic.yaml",
        "--providers.providersThrottleDuration=0s",
        "--global.checkNewVersion=false",
        "--global.sendAnonymousUsage=false",
        "--log.level=WARN",
    ]


def haproxy_command(place: Place) -> list[str]:
    """Write HAProxy's configuration into a directory; return the command that serves it."""
    directory, port = place.directory, place.port
    text = _rewritten(
        "haproxy/haproxy.cfg",
        place,
        (r"/etc/haproxy/tailchat-gate.lua", f"{DEPLOY}/haproxy/tailchat-gate.lua", 1),
        (r"bind :443 .*", f"bind 127.0.0.1:{port}", 1),
        (r"(set-header (?:X-Forwarded-)?Host [a-z.]+)$", rf"\1:{port}", 2),
    )
    if place.catch_all:
        text = _replaced(text, (r"default_backend unknown", "default_backend wiki", 1))
    (directory / "haproxy.cfg").write_text(text)
    return [program("haproxy"), "-db", "-f", str(directory / "haproxy.cfg")]


def envoy_command(place: Place) -> list[str]:
    """Write Envoy's configuration into a directory; return the command that serves it."""
    directory, port = place.directory, place.port
    text = _replaced(
        (DEPLOY / "envoy/envoy.yaml").read_text(),
        (r"address: 0\.0\.0\.0, port_value: 80 ", f"address: 127.0.0.1, port_value: {port} ", 1),
        # It waits a second before it closes a connection that it refuses.
        (r"^( *)stat_prefix: web$", r"\g<0>\n\1delayed_close_timeout: 0.05s", 1),
        (r"port_value: 4180", f"port_value: {place.gate}", 1),
        (r"port_value: 3000", f"port_value: {place.tool}", 1),
        (r"((?:value|literal): wiki\.example\.com) ", rf"\1:{port} ", 2),
    ).replace("example.com", "test")
    if place.catch_all:
        text = _replaced(text, (r'domains: \["wiki\.test"\]', 'domains: ["*"]', 1))
    (directory / "envoy.yaml").write_text(text)
    return [
        *(program("envoy"), "-c", str(directory / "envoy.yaml"), "--log-level", "warning"),
        *("--concurrency", "1", "--use-dynamic-base-id", "--disable-hot-restart"),
    ]


#: Marks tests that go through a proxy: it serves all of their file, and so does their event loop.
in_front: Final = pytest.mark.asyncio(loop_scope="module")

Command = Callable[[Place], list[str]]
COMMANDS: Final[Mapping[str, Command]] = MappingProxyType(
    {
        "nginx": nginx_command,
        "caddy": caddy_command,
        "traefik": traefik_command,
        "haproxy": haproxy_command,
        "envoy": envoy_command,
    }
)
#: Routes beside the tool's own: every other host is public, and so is reading /write.
ROUTES: Final[tuple[Mapping[str, Any], ...]] = (
    {"name": "wiki", "host": "wiki.test", "allow": ["signed-in", "token:ci"]},
    {"name": "closed", "host": "wiki.test", "path": "/closed", "allow": ["sub:nobody-here"]},
    {"name": "open", "host": "wiki.test", "path": "/open", "allow": ["public"]},
    {
        "name": "keeps",
        "host": "wiki.test",
        "path": "/keeps",
        "allow": ["signed-in", "token:ci"],
        "forward_authorization": True,
    },
    {
        "name": "read",
        "host": "wiki.test",
        "path": "/write",
        "methods": ["GET"],
        "allow": ["public"],
    },
    {"name": "write", "host": "wiki.test", "path": "/write"},
    {
        "name": "limited",
        "host": "wiki.test",
        "path": "/limited",
        "allow": ["public"],
        "rate_per_client": "2/day",
    },
    {"name": "any-host", "upstream": "static:204", "allow": ["public"]},
)
#: Whether the tool's block answers for every host.
SETUPS: Final = {"named": False, "catch-all": True}


@asynccontextmanager
async def edge(
    name: str,
    directory: Path,
    clock: Clock,
    *,
    routes: tuple[Mapping[str, Any], ...] = ROUTES,
    catch_all: bool = False,
    command: Command | None = None,
) -> AsyncIterator[Edge]:
    """Set the scene with a proxy in front of it, `command` or its own, until the block ends."""
    port = free_port()
    async with story(
        directory / "access.log",
        clock,
        server={"public_url": f"http://gate.test:{port}", "trusted_proxies": ["127.0.0.1"]},
        session={"idle": "2h"},
        token=[{"name": "ci", "hash": hash_of(TOKEN)}],
        route=[dict(route) for route in routes],
        callback=f"http://gate.test:{port}/oauth2/callback",
    ) as scene:
        tool = int(scene.tool.url.rpartition(":")[2])
        # nginx speaks either there.
        http2_port = free_port() if name == "nginx" else port
        place = Place(directory, port, scene.gate.port, tool, catch_all, http2_port)
        async with serving((command or COMMANDS[name])(place), directory, port):
            await _leads_to_the_gate(port)
            yield Edge(scene, port, name, http2_port)


class Fronts:
    """Proxies that several tests go through: to start one takes longer than most tests."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._started: dict[tuple[str, bool], Edge] = {}

    async def get(self, name: str, *, catch_all: bool) -> Edge:
        """Return a proxy, of which no earlier test has left anything at the tool."""
        found = self._started.get((name, catch_all))
        if found is None:
            directory = self._directory / f"{name}-{catch_all}"
            # It is there if the proxy did not start for an earlier test.
            await asyncio.to_thread(directory.mkdir, exist_ok=True)
            started = edge(name, directory, Clock(), catch_all=catch_all)
            found = self._started[name, catch_all] = await self._stack.enter_async_context(started)
        found.scene.tool.requests.clear()
        found.scene.tool.answer = OK
        return found

    def forget(self, front: Edge) -> None:
        """Let no further test go through a proxy, which serves until the end all the same."""
        self._started = {key: found for key, found in self._started.items() if found is not front}


async def _leads_to_the_gate(port: int) -> None:
    """Wait until a proxy has read its rules; some read them after they have begun to listen."""
    ping = request_bytes("/ping", host=f"gate.test:{port}", Connection="close")
    async with asyncio.timeout(_START_SECONDS):
        while True:
            if (await ask(port, ping)).status == HTTPStatus.OK:
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(command: list[str], directory: Path, port: int) -> AsyncIterator[None]:
    """Run a server until the block ends, once it listens."""
    home = {"HOME": str(directory), "XDG_DATA_HOME": str(directory), "PATH": os.environ["PATH"]}
    log = directory / "edge.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(*command, env=home, stdout=out, stderr=out)
    try:
        await until_listening(process, port, log, _START_SECONDS)
        yield
    finally:
        if process.returncode is None:
            # Traefik takes two seconds for an orderly end.
            process.kill()
        await process.wait()
