"""The image is built from the Dockerfile as it is, and containers of it are run."""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from secrets import token_urlsafe
from typing import Final

import pytest
from edgekit import program, serving
from gatekit import Clock, RawUpstream, is_listening, until
from image_sources import ROOT
from imagekit import Container, Image, built_image, container
from loadkit import Load
from process import free_port
from processkit import END_SECONDS, START_SECONDS
from storykit import CLIENT_ID, CLIENT_SECRET, HOSHINO, RegisteredGate, registered
from visitor import Visitor

pytestmark = [
    pytest.mark.image,
    # Each test may be the one that has the image built.
    pytest.mark.timeout(900),
]
CONFIG: Final = Path("/etc/tailchat-gate/config.toml")
#: A balancer that asks every 100 ms which gate is ready, as an engine for many containers does.
_HAPROXY: Final = """
defaults
    mode http
    timeout connect 20s
    timeout check 20s
    timeout client 60s
    timeout server 60s
    option redispatch
    option httpchk GET /readyz
    http-check send hdr Host localhost
    default-server check inter 100ms fall 1 rise 1
frontend web
    bind 127.0.0.1:{port}
    default_backend gates
backend gates
    server first 127.0.0.1:{first.port} port {first.admin}
    server second 127.0.0.1:{second.port} port {second.admin}
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Build the image once."""
    with built_image(tmp_path_factory.mktemp("image")) as built:
        yield built


class Ports:
    """Where a container's listeners are, on the machine's network."""

    def __init__(self) -> None:
        self.port, self.admin = free_port(), free_port()

    @property
    def variables(self) -> dict[str, str]:
        """The variables that say so."""
        return {
            "TAILCHAT_GATE_SERVER__LISTEN": f"127.0.0.1:{self.port}",
            "TAILCHAT_GATE_SERVER__ADMIN_LISTEN": f"127.0.0.1:{self.admin}",
        }


async def _ready(found: Container, *ports: int) -> None:
    """Wait until a gate listens on all ports."""
    async with asyncio.timeout(START_SECONDS):
        for port in ports:
            while not await is_listening(port):
                assert found.process.returncode is None, await found.log()
                await asyncio.sleep(0.02)


def _environ(ports: Ports, tool: str, **more: str) -> dict[str, str]:
    """Return all that a gate with one public tool needs, as variables."""
    return {
        **ports.variables,
        "TAILCHAT_GATE_SERVER__PUBLIC_URL": f"http://127.0.0.1:{ports.port}",
        "TAILCHAT_GATE_TAILCHAT__API_URL": "http://127.0.0.1:9",
        "TAILCHAT_GATE_TAILCHAT__CLIENT_ID": CLIENT_ID,
        "TAILCHAT_GATE_TAILCHAT__CLIENT_SECRET": CLIENT_SECRET,
        "TAILCHAT_GATE_SESSION__SECRET": token_urlsafe(32),
        "TAILCHAT_GATE_ROUTE": json.dumps([{"name": "a", "upstream": tool, "allow": ["public"]}]),
        **more,
    }


@asynccontextmanager
async def _serving(
    image: Image, directory: Path, ports: Ports, variables: Mapping[str, str]
) -> AsyncIterator[Container]:
    """Run a container with a public tool, which serves, until the block ends."""
    async with container(image, directory, variables) as found:
        await _ready(found, ports.port, ports.admin)
        yield found


async def test_the_image_says_how_it_is_run(image: Image) -> None:
    """What the Dockerfile tells an engine is in the image, the health check too."""
    assert image.command == ["tailchat-gate", "serve", "--config", str(CONFIG)]
    assert image.user == (10001, 10001)
    assert image.config["Healthcheck"]["Test"] == ["CMD", "tailchat-gate", "health"]
    assert image.config["StopSignal"] == "SIGTERM"
    assert "TAILCHAT_GATE_SERVER__LISTEN=0.0.0.0:4180" in image.config["Env"]


async def test_nothing_of_the_build_stays_in_the_image(image: Image) -> None:
    """Neither pip nor how it reached its index, nor what only the build needs."""
    assert not any((image.root / name).exists() for name in ("build", "etc/pip.conf"))
    assert not list((image.root / "opt/tailchat-gate").glob("lib/*/site-packages/pip"))
    assert not list(image.root.glob("etc/pip-*"))
    assert "pip.conf" not in image.text
    (state,) = image.config["Volumes"]
    assert list((image.root / state.removeprefix("/")).iterdir()) == []


async def test_every_module_is_byte_code_already(image: Image) -> None:
    """For the container's root, the gate and its dependencies are never compiled again."""
    sources = list(image.root.glob("opt/tailchat-gate/lib/*/site-packages/**/*.py"))
    bare = [path for path in sources if not list(path.parent.glob(f"__pycache__/{path.stem}.*"))]

    assert any(path.parts[-2:] == ("tailchat_gate", "__init__.py") for path in sources)
    assert bare == []


async def test_it_has_its_extras(image: Image, tmp_path: Path) -> None:
    """The loop of libuv and the client of Redis can be imported in the container."""
    python = ("/opt/tailchat-gate/bin/python", "-c", "import redis, uvloop; print('both')")
    async with container(image, tmp_path, command=python) as found:
        assert await found.process.wait() == 0
        assert await found.log() == "both\n"


async def test_the_container_has_no_rights(
    image: Image, tmp_path: Path, upstream: RawUpstream
) -> None:
    """Its process is no root and can become none, and it writes to its state alone."""
    ports = Ports()
    async with _serving(image, tmp_path, ports, _environ(ports, upstream.url)) as found:
        pid = await found.first_process()
        status = (Path("/proc") / str(pid) / "status").read_text()
        assert "\nUid:\t10001\t10001\t10001\t10001\n" in status
        assert "\nGid:\t10001\t10001\t10001\t10001\n" in status
        assert set(re.findall(r"^Cap\w+:\t(\w+)$", status, re.MULTILINE)) == {"0" * 16}
        assert "\nNoNewPrivs:\t1\n" in status
        script = "for name in / /tmp /etc /opt/tailchat-gate; do touch $name/a && echo wrote; done"
        code, told = await found.execute("sh", "-c", script)
        assert code != 0
        assert told.count("Read-only file system") == 4
        code, told = await found.execute("ls", *image.config["Volumes"])
        assert (code, "state.sqlite" in told.split()) == (0, True)


async def test_the_health_check_tells_who_serves(
    image: Image, tmp_path: Path, upstream: RawUpstream
) -> None:
    """The image's own command says healthy in a container that serves, and not before."""
    check = image.config["Healthcheck"]["Test"][1:]
    (tmp_path / "none").mkdir()
    (tmp_path / "one").mkdir()
    ports = Ports()
    variables = _environ(ports, upstream.url)
    async with container(image, tmp_path / "none", variables, command=check) as found:
        assert await found.process.wait() == 1
    async with _serving(image, tmp_path / "one", ports, variables) as found:
        code, told = await found.execute(*check)
        assert (code, told) == (0, "ok\n")


def _documented_secrets(directory: Path) -> Path:
    """Make the files of secrets as docs/deployment-docker.md says, for its user and no other."""
    text = (ROOT / "docs" / "deployment-docker.md").read_text()
    (folder_mode,) = re.findall(r"install -d -m (\d+) deploy/compose/secrets", text)
    (mode,) = re.findall(r"chmod (\d+) deploy/compose/secrets/\*", text)
    folder = directory / "secrets"
    folder.mkdir()
    folder.chmod(int(folder_mode, 8))
    for name, secret in (
        ("tailchat_client_secret", CLIENT_SECRET),
        ("session_secret", token_urlsafe(32)),
    ):
        (folder / name).write_text(secret)
        os.chown(folder / name, 1000, 1000)
        (folder / name).chmod(int(mode, 8))
    return folder


def _files(at: RegisteredGate, tool: str, directory: Path) -> dict[str, Path]:
    """Return what compose.yaml mounts, its configuration with this Tailchat and this tool."""
    secrets = _documented_secrets(directory)
    text = (ROOT / "deploy/compose/config.toml").read_text()
    for old, new in (
        ("http://localhost:4180", at.url),
        ("https://tailchat.example.com", at.api_url),
        ("tc_...", CLIENT_ID),
        ("http://whoami:8080", tool),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    config = directory / "config.toml"
    config.write_text(text)
    mounted = {f"/run/secrets/{path.name}": path for path in secrets.iterdir()}
    return {str(CONFIG): config, **mounted}


async def test_a_person_signs_in(image: Image, tmp_path: Path, upstream: RawUpstream) -> None:
    """With the files of compose.yaml, at a Tailchat; no warning is about the documented rights."""
    ports = Ports()
    async with AsyncExitStack() as stack:
        at = await stack.enter_async_context(registered("127.0.0.1", Clock(time.time())))
        ports.port = at.port
        files = await asyncio.to_thread(_files, at, upstream.url, tmp_path)
        found = await stack.enter_async_context(
            container(image, tmp_path, ports.variables, files=files)
        )
        await _ready(found, at.port)
        visitor = await stack.enter_async_context(Visitor())
        page = await visitor.sign_in(f"{at.url}/page", HOSHINO.email, HOSHINO.password)
        log = await found.log()

    assert (page.status, page.url) == (200, f"{at.url}/page")
    assert upstream.requests[-1].value("X-Tailchat-Sub") == HOSHINO.sub.encode()
    assert "the gate is open" in log
    assert "can read" not in log


async def test_no_request_is_lost_when_containers_are_replaced(
    image: Image, tmp_path: Path
) -> None:
    """Behind HAProxy, SIGTERM ends one of two containers under load, then the other.

    None of them has a file: the environment is enough.
    """
    both, web, load = (Ports(), Ports()), free_port(), Load()
    more = {
        "TAILCHAT_GATE_SERVER__DRAIN_DELAY": "3s",
        "TAILCHAT_GATE_SESSION__SECRET": token_urlsafe(32),
    }
    config = tmp_path / "haproxy.cfg"
    config.write_text(_HAPROXY.format(port=web, first=both[0], second=both[1]))
    async with AsyncExitStack() as stack:
        # Each has a tool of its own, which tells that the balancer sends it requests.
        tools = [await stack.enter_async_context(RawUpstream()) for _ in both]

        async def start(number: int, name: str) -> Container:
            (tmp_path / name).mkdir()
            variables = _environ(both[number], tools[number].url, **more)
            return await stack.enter_async_context(
                _serving(image, tmp_path / name, both[number], variables)
            )

        running = [await start(number, f"old{number}") for number in (0, 1)]
        await stack.enter_async_context(
            serving([program("haproxy"), "-db", "-f", str(config)], tmp_path, web)
        )
        load.clients = [asyncio.create_task(load.send(web)) for _ in range(8)]
        stack.push_async_callback(load.end)
        for number, old in enumerate(running):
            await until(lambda: all(tool.requests for tool in tools))
            old.stop()
            async with asyncio.timeout(END_SECONDS):
                assert await old.process.wait() == 0, await old.log()
            tools[number].requests.clear()
            await load.more()
            await start(number, f"new{number}")
        await until(lambda: all(tool.requests for tool in tools))
        await load.end()

    assert load.answers.keys() == {"200"}
