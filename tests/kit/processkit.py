"""The gate as a process of its own, with its standard streams where a test wants them."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clikit import GATE, environ
from gatekit import RawClient, Response, ask, is_listening, request_bytes
from process import free_port
from reloadkit import file_text, sections

from tailchat_gate.serving.systemd import passing

#: How many seconds an end may take beyond a `shutdown_timeout` of one, on a busy machine.
END_SECONDS = 25.0
#: How many seconds a start may take on a busy machine.
START_SECONDS = 90.0
#: Python itself reads it at its start, so forking.py forks neither a gate with it nor its children.
NOT_FORKED = MappingProxyType({"PYTHONASYNCIODEBUG": "0"})


@dataclass
class GateProcess:
    """A running process of the gate."""

    process: asyncio.subprocess.Process
    port: int
    admin_port: int

    async def ping(self) -> Response:
        """Ask whether it serves."""
        return await ask(self.port, request_bytes("/ping"))

    async def metric(self, name: str, **labels: str) -> float:
        """Return a sample of the admin listener's metrics."""
        response = await ask(
            self.admin_port, request_bytes("/metrics", host="localhost", Connection="close")
        )
        wanted = "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
        start = f"{name}{wanted if labels else ''} "
        (line,) = [line for line in response.body.decode().splitlines() if line.startswith(start)]
        return float(line.removeprefix(start))

    async def callbacks(self, count: int, *, size: int = 600) -> None:
        """Request callbacks of logins that nobody began, each with a long agent and path."""
        target = "/oauth2/callback?code=x&state=" + "a" * 40
        data = request_bytes(target, User_Agent="x" * size)
        async with RawClient.connect(self.port) as client:
            for _ in range(count):
                client.send(data)
                await client.response()

    def limit(self, bytes_: int) -> None:
        """Let no file of the process grow beyond a size, as a full disk does; -1 lifts it."""
        limit = resource.RLIM_INFINITY if bytes_ < 0 else bytes_
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


async def _opened(process: asyncio.subprocess.Process, *ports: int) -> None:
    """Wait until a process listens on all ports; it opens one after the other."""
    async with asyncio.timeout(START_SECONDS):
        for port in ports:
            while not await is_listening(port):
                assert process.returncode is None, f"it ended with {process.returncode}"
                await asyncio.sleep(0.02)


@asynccontextmanager
async def gate_process(
    folder: Path,
    upstream: str = "http://127.0.0.1:9",
    *,
    stdout: int | None = asyncio.subprocess.DEVNULL,
    stderr: int | None = asyncio.subprocess.DEVNULL,
    command: Sequence[str] = GATE,
    prepare: Callable[[], None] | None = None,
    sockets: Sequence[socket.socket] = (),
    passed: Sequence[tuple[str, socket.socket]] = (),
    unix: Path | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
    **given: Any,  # noqa: ANN401 - as in reloadkit.sections
) -> AsyncIterator[GateProcess]:
    """Serve a configuration in a process until the block ends; kill it where it is still there.

    `sockets` are passed to it and listened on, as `variables` of the environment are; `passed` are
    others with their names. It listens on the Unix socket `unix`, too.
    """
    port = sockets[0].getsockname()[1] if sockets else free_port()
    admin_port = free_port()
    admin = f"127.0.0.1:{admin_port}"
    listening = {
        "public_url": f"http://127.0.0.1:{port}",
        "listen": [f"127.0.0.1:{port}", *([f"unix:{unix}"] if unix else [])],
        "admin_listen": admin,
        "shutdown_timeout": "1s",
    }
    given["server"] = {**listening, **given.get("server", {})}
    path = folder / "config.toml"
    tables = sections(upstream, **given)
    # A key that is None is one of the usual ones to be left out.
    tables["tailchat"] = {key: value for key, value in tables["tailchat"].items() if value}

    def write() -> None:
        path.write_text(file_text(tables), "utf-8")
        path.chmod(0o600)

    await asyncio.to_thread(write)
    named = [(f"127.0.0.1:{one.getsockname()[1]}", one) for one in sockets]
    started = passing(
        (*command, "serve", "-c", str(path)), [*named, *passed], {**environ(), **variables}
    )
    process = await asyncio.create_subprocess_exec(
        *started.command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=started.environ,
        pass_fds=started.descriptors,
        preexec_fn=prepare,
    )
    try:
        await _opened(process, port, *([admin_port] if admin in given["server"].values() else []))
        yield GateProcess(process, port, admin_port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Manager:
    """A service manager's socket, and its messages as dicts."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.told: list[dict[str, str]] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{path[1:]}" if path.startswith("@") else path)
        self.socket.setblocking(False)

    def hear(self) -> list[dict[str, str]]:
        """Read the messages since the last call; return all messages so far."""
        while True:
            try:
                lines = self.socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return self.told
            self.told.append({name: value for name, _, value in (x.partition("=") for x in lines)})

    def states(self) -> list[str]:
        """Return the first word of each message."""
        return [next(iter(message)) for message in self.hear()]
