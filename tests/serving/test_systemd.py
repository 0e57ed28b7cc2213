"""What systemd gives the gate and hears of it: sockets, states, a watchdog, priorities of lines."""

import asyncio
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clikit import GATE, environ
from gatekit import RawClient, RawUpstream, ask, request_bytes, until
from parts import missing
from process import free_port
from processkit import END_SECONDS, GateProcess, Manager, gate_process
from reloadkit import file_text, sections

from tailchat_gate.observe.text_lines import is_journal
from tailchat_gate.serving.systemd import service_manager

PUBLIC = [{"name": "tool", "allow": ["public"]}]


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """Return a service manager, at a path or at an abstract address."""
    path = str(tmp_path / "notify")
    found = Manager(path if request.param == "path" else f"@{path}")
    yield found
    found.socket.close()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Return a socket that listens."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as found:
        yield found


async def _end(gate: GateProcess) -> None:
    gate.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(END_SECONDS):
        assert await gate.process.wait() == 0


async def test_the_manager_hears_of_start_reloads_and_stop(
    tmp_path: Path, manager: Manager
) -> None:
    """READY, RELOADING with its time and READY again, whether it was refused or not, STOPPING.

    Nothing of a watchdog, which here is another process's.
    """
    variables = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "2000", "WATCHDOG_PID": "1"}
    async with gate_process(tmp_path, variables=variables) as gate:
        await until(lambda: manager.states() == ["READY"])
        gate.process.send_signal(signal.SIGHUP)
        await until(lambda: manager.states() == ["READY", "RELOADING", "READY"])
        (tmp_path / "config.toml").write_text("[typo]\n")
        gate.process.send_signal(signal.SIGHUP)
        await until(lambda: manager.states()[3:] == ["RELOADING", "READY"])
        await _end(gate)

    assert manager.states()[5:] == ["STOPPING"]
    assert int(manager.told[1]["MONOTONIC_USEC"]) > 0
    assert [message["STATUS"] for message in manager.told if "READY" in message] == [
        "serving",
        "serving",
        "serving; the configuration in the file was refused",
    ]
    # A second for open requests, and some for the end itself.
    assert int(manager.told[-1]["EXTEND_TIMEOUT_USEC"]) > 1_000_000


@pytest.mark.parametrize("manager", ["path"], indirect=True)
async def test_a_stuck_event_loop_is_silent(manager: Manager) -> None:
    """The watchdog hears of the event loop again and again, and nothing while that is stuck."""
    service = service_manager({"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "20000"})
    service.start_watchdog()
    try:
        await until(lambda: len(manager.hear()) > 3)
        # The loop is stuck for five reports; another thread's would come all the same.
        time.sleep(0.05)  # noqa: ASYNC251 - that is the point
        heard = len(manager.told)
        assert len(manager.hear()) == heard
        await until(lambda: len(manager.hear()) > heard)
    finally:
        service.close()
    assert {next(iter(message)) for message in manager.told} == {"WATCHDOG"}


async def test_a_passed_socket_is_served(
    tmp_path: Path, upstream: RawUpstream, listening: socket.socket
) -> None:
    """Connections wait in the passed socket between two processes, and each is answered."""
    port = listening.getsockname()[1]
    data = request_bytes(host=f"127.0.0.1:{port}")
    async with gate_process(tmp_path, upstream.url, sockets=[listening], route=PUBLIC) as gate:
        assert (await ask(port, data)).body == b"ok"
        await _end(gate)
    async with RawClient.connect(port) as client:
        client.send(data)
        async with gate_process(tmp_path, upstream.url, sockets=[listening], route=PUBLIC):
            assert (await client.response()).body == b"ok"


async def test_what_is_passed_and_not_configured_is_told(
    tmp_path: Path, listening: socket.socket
) -> None:
    """A socket at another address than the configured ones is closed, with a warning."""
    errors = tmp_path / "errors"
    with (
        await asyncio.to_thread(errors.open, "wb") as file,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        shown = f"127.0.0.1:{other.getsockname()[1]}"
        async with gate_process(tmp_path, sockets=[listening, other], stderr=file.fileno()) as gate:
            assert (await gate.ping()).status == 200
            await _end(gate)

    (line,) = [
        line for line in (await asyncio.to_thread(errors.read_text)).splitlines() if shown in line
    ]
    assert "that no listener is configured for" in line


async def test_a_descriptor_that_does_not_listen(tmp_path: Path) -> None:
    """A socket of Accept=yes, which is a connection, ends the start with a plain line."""
    errors = tmp_path / "errors"
    with (
        await asyncio.to_thread(errors.open, "wb") as file,
        socket.socket() as bound,
    ):
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(AssertionError, match="it ended with 1"):
            async with gate_process(tmp_path, sockets=[bound], stderr=file.fileno()):
                pass

    assert "is not a listening stream socket" in await asyncio.to_thread(errors.read_text)


@pytest.mark.parametrize("unix", [False, True])
async def test_systemd_itself_passes_a_socket(
    tmp_path: Path, upstream: RawUpstream, *, unix: bool
) -> None:
    """Systemd's own program opens the socket and starts the gate upon the first connection."""
    activate = shutil.which("systemd-socket-activate")
    if activate is None:
        missing("systemd-socket-activate, of systemd,")
    port, path = free_port(), tmp_path / "gate.sock"
    listen = f"unix:{path}" if unix else f"127.0.0.1:{port}"
    given = {"server": {"listen": [listen], "admin_listen": ""}, "route": PUBLIC}
    config = tmp_path / "config.toml"
    config.write_text(file_text(sections(upstream.url, **given)))
    config.chmod(0o600)
    process = await asyncio.create_subprocess_exec(
        *(activate, "--listen", str(path) if unix else f"127.0.0.1:{port}"),
        *("-E", "PYTHONPATH", *GATE, "serve", "-c", str(config)),
        stderr=asyncio.subprocess.DEVNULL,
        env={**environ(), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        reader, writer = await _connected(path, port, unix=unix)
        client = RawClient(reader, writer)
        client.send(request_bytes())
        assert (await client.response()).body == b"ok"
        writer.close()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(END_SECONDS):
            assert await process.wait() == 0
        # It is systemd's, for the next start.
        assert path.exists() == unix
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _connected(
    path: Path, port: int, *, unix: bool
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(END_SECONDS):
        while True:
            try:
                if unix:
                    return await asyncio.open_unix_connection(path)
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)


async def test_lines_in_the_journal_have_a_priority(tmp_path: Path) -> None:
    """Each line begins with <N> where JOURNAL_STREAM names standard error, and nowhere else."""
    errors = tmp_path / "errors"
    with await asyncio.to_thread(errors.open, "wb") as file:
        found = os.fstat(file.fileno())
        variables = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert not is_journal(1, variables)
        async with gate_process(tmp_path, stderr=file.fileno(), variables=variables) as gate:
            # That nobody can sign in is found out in the background.
            await until(lambda: '"level": "warning"' in errors.read_text(encoding="utf-8"))
            await _end(gate)

    lines = (await asyncio.to_thread(errors.read_text)).splitlines()
    starts = {line.partition("{")[0]: line for line in lines}
    assert starts.keys() == {"<4>", "<6>"}
    assert '"level": "warning"' in starts["<4>"]
