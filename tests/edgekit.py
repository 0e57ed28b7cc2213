"""nginx and Caddy in front of the gate, with the configurations of deploy/, for real."""

import asyncio
import os
import re
import shutil
import sysconfig
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from gatekit import Clock
from parts import missing
from process import free_port
from storykit import Story, story

from tailchat_gate.identity.tokens import hash_of, make_token

DEPLOY: Final = Path(__file__).parent.parent / "deploy"
_START_SECONDS: Final = 20.0
#: A machine's token, good for the route "wiki".
TOKEN: Final = make_token(bytes(32))
#: What the files in deploy/ have in place of this machine's ports.
_GATE, _TOOL = "127.0.0.1:4180", "127.0.0.1:3000"


@dataclass
class Edge:
    """A proxy in front: `url(host)` is where a browser finds a host."""

    scene: Story
    port: int

    def url(self, host: str) -> str:
        """Return the origin of a host."""
        return f"http://{host}:{self.port}"


def program(name: str) -> str:
    """Return the path of a server program; skip the test, or fail it in CI, without it."""
    places = (sysconfig.get_path("scripts"), os.environ.get("PATH", ""), "/usr/sbin")
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        missing(name)
    return found


def _rewritten(text: str, ports: dict[str, int]) -> str:
    """Put this test's addresses in place of the example's; each must stand in the file."""
    for address, port in ports.items():
        assert address in text, address
        text = text.replace(address, f"127.0.0.1:{port}")
    return text.replace("example.com", "test")


def nginx_command(directory: Path, port: int, gate: int, tool: int) -> list[str]:
    """Write nginx's configuration into a directory; return the command that serves it."""
    site = _rewritten((DEPLOY / "nginx/wiki.conf").read_text(), {_GATE: gate, _TOOL: tool})
    site, count = re.subn(r"listen 80;", f"listen 127.0.0.1:{port};", site)
    assert count == 2
    headers = DEPLOY / "nginx/tailchat-gate-headers.conf"
    shutil.copy(headers, directory / headers.name)
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


def caddy_command(directory: Path, port: int, gate: int, tool: int) -> list[str]:
    """Write Caddy's configuration into a directory; return the command that serves it."""
    site = _rewritten((DEPLOY / "caddy/Caddyfile").read_text(), {_GATE: gate, _TOOL: tool})
    site, count = re.subn(r"(?m)^(\w+\.test) \{", rf"http://\1:{port} {{", site)
    assert count == 2
    options = "{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n}\n"
    (directory / "Caddyfile").write_text(options + site)
    return [program("caddy"), "run", "--adapter", "caddyfile", "--config", f"{directory}/Caddyfile"]


Command = Callable[[Path, int, int, int], list[str]]


@asynccontextmanager
async def edge(command: Command, directory: Path, clock: Clock) -> AsyncIterator[Edge]:
    """Set the scene with a proxy in front of it until the block ends."""
    port = free_port()
    routes = [
        {"name": "wiki", "host": "wiki.test", "allow": ["signed-in", "token:ci"]},
        {"name": "closed", "host": "wiki.test", "path": "/closed", "allow": ["sub:nobody-here"]},
        {"name": "open", "host": "wiki.test", "path": "/open", "allow": ["public"]},
    ]
    async with story(
        directory / "access.log",
        clock,
        server={"public_url": f"http://gate.test:{port}", "trusted_proxies": ["127.0.0.1"]},
        session={"idle": "2h"},
        token=[{"name": "ci", "hash": hash_of(TOKEN)}],
        route=routes,
        callback=f"http://gate.test:{port}/oauth2/callback",
    ) as scene:
        tool = int(scene.tool.url.rpartition(":")[2])
        found = command(directory, port, scene.gate.port, tool)
        async with serving(found, directory, port):
            yield Edge(scene, port)


@asynccontextmanager
async def serving(command: list[str], directory: Path, port: int) -> AsyncIterator[None]:
    """Run a server until the block ends, once it listens."""
    home = {"HOME": str(directory), "XDG_DATA_HOME": str(directory), "PATH": os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec(
        *command, env=home, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(_START_SECONDS):
            while not await _listens(port):
                if process.returncode is not None:
                    assert process.stdout is not None
                    pytest.fail((await process.stdout.read()).decode(errors="replace"))
                await asyncio.sleep(0.05)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
