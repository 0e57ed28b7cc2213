"""Another process takes over from a gate under load, and nobody notices; or the gate stays."""

import asyncio
import json
import os
import signal
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from clikit import gate_after, run
from gatekit import (
    ALICE,
    OK,
    SECRET,
    PausedAnswer,
    RawClient,
    RawUpstream,
    ask,
    request_bytes,
    until,
)
from loadkit import load_behind_proxies
from processkit import END_SECONDS, NOT_FORKED, START_SECONDS, GateProcess, gate_process
from rediskit import redis_server

from tailchat_gate.config.tables.identity import Session
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.cookie_fields import CookieNames
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sessions.session_cookie import Lifetimes, SessionCookie
from tailchat_gate.request.field_names import ORDER_HEADER

ROUTES = [{"name": "tool", "allow": ["public"]}, {"name": "private", "path": "/private"}]
#: A gate whose successor is killed, or hangs, in its start.
SPOILED = """
import os, time
from tailchat_gate.serving import upgrade
if {hangs}:
    upgrade.Successor.__init__.__kwdefaults__["limit"] = 1.0
found = upgrade.predecessor(dict(os.environ))
if found and {hangs}:
    time.sleep(3600)
if found:
    os.kill(os.getpid(), 9)
"""


#: A gate whose successor waits in its start until a pipe is closed.
HELD = """
import os
from tailchat_gate.serving import upgrade
if os.environ.get("GATE_PREDECESSOR"):
    with open({pipe!r}, "rb") as held:
        held.read()
"""


class Upgrades:
    """The gate of a test, the processes that took over from it, and the lines of all their logs."""

    def __init__(self, gate: GateProcess, errors: Path, config: Path) -> None:
        self.gate = gate
        self.config = config
        self._errors = errors
        self._pids: set[int] = set()

    def log(self, message: str) -> list[dict[str, Any]]:
        """Return the lines of the log with a message."""
        written = self._errors.read_text().splitlines()
        lines = [json.loads(line) for line in written if line.startswith("{")]
        found = [line for line in lines if line["message"] == message]
        self._pids.update(line["pid"] for line in found if "pid" in line)
        return found

    def took_over(self) -> list[dict[str, Any]]:
        """Return what the log says of processes that took over."""
        return self.log("another process serves from now on")

    async def order(self) -> tuple[int, str, str]:
        """Give the order as an admin does."""
        return await run("upgrade", "--config", str(self.config))

    def kill(self) -> None:
        """End the processes that took over and are still there."""
        self.took_over()
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def upgradable(
    folder: Path,
    upstream: str = "http://127.0.0.1:9",
    *,
    shutdown_timeout: str = "1s",
    **given: Any,  # noqa: ANN401 - as in gate_process
) -> AsyncIterator[Upgrades]:
    """Serve in a process until the block ends, and end what took over from it."""
    errors = folder / "errors"
    given.setdefault("state", {"path": str(folder)})
    server = {"shutdown_timeout": shutdown_timeout, **given.pop("server", {})}
    with await asyncio.to_thread(errors.open, "wb") as file:
        async with gate_process(
            folder, upstream, stderr=file.fileno(), route=ROUTES, server=server, **given
        ) as gate:
            found = Upgrades(gate, errors, folder / "config.toml")
            try:
                await until(lambda: bool(found.log("the gate is open")))
                yield found
            finally:
                await asyncio.to_thread(found.kill)


async def _ended(gate: GateProcess) -> int:
    async with asyncio.timeout(END_SECONDS):
        return await gate.process.wait()


async def test_an_upgrade_under_load(tmp_path: Path, upstream: RawUpstream) -> None:
    """Through HAProxy and nginx no request fails while processes take over one from another.

    A Unix socket keeps its file. All of them are started as an admin's are.
    """
    unix = tmp_path / "gate.sock"
    given: dict[str, Any] = {"unix": unix, "variables": NOT_FORKED}
    async with (
        upgradable(tmp_path, upstream.url, shutdown_timeout="20s", **given) as found,
        load_behind_proxies(tmp_path, found.gate.port) as load,
    ):
        inode = unix.stat().st_ino
        await load.more()
        code, out, err = await found.order()
        assert (code, err) == (0, "")
        assert await _ended(found.gate) == 0
        (first,) = found.took_over()
        assert out == f"process {first['pid']} serves, version {first['version']}\n"
        await load.more()
        os.kill(first["pid"], signal.SIGUSR2)
        await until(lambda: len(found.took_over()) == 2, within=START_SECONDS)
        await load.more()
        await load.end()
        assert (await found.gate.ping()).status == 200
        reader, writer = await asyncio.open_unix_connection(unix)
        client = RawClient(reader, writer)
        client.send(request_bytes())
        assert (await client.response()).body == b"ok"
        writer.close()
        assert unix.stat().st_ino == inode

    assert load.answers.keys() == {"200"}


async def test_what_is_under_way_completes_with_the_old_process(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    """A request that began before is answered by its process, which is neither ready nor asked.

    Nobody is signed out. systemd hears from it which process is the service, and nothing of a stop.
    """
    paused = PausedAnswer()
    variables = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    async with (
        _manager(tmp_path / "notify") as told,
        upgradable(tmp_path, upstream.url, shutdown_timeout="1h", variables=variables) as found,
        RawClient.connect(found.gate.port) as client,
    ):
        private = request_bytes("/private", Cookie=_session(found.gate.port))
        assert (await ask(found.gate.port, request_bytes("/private"))).status == 401
        assert (await ask(found.gate.port, private)).status == 200
        upstream.answer = paused
        client.send(request_bytes())
        await paused.arrived.wait()
        code, _, _ = await found.order()
        assert code == 0
        ready = request_bytes("/readyz", host="localhost", Connection="close")
        for _ in range(5):
            assert (await ask(found.gate.admin_port, ready)).status == 200
        paused.go_on.set()

        response = await client.response()
        assert (response.body, response.value("Connection")) == (b"ok", "close")
        assert await _ended(found.gate) == 0
        (line,) = found.took_over()
        assert told() == ["READY=1", f"MAINPID={line['pid']}"]
        assert (await ask(found.gate.port, private)).status == 200


def _session(port: int) -> str:
    """Return a Cookie value of a session that the gate on a port accepts."""
    usual = Session.model_fields["cookie_name"].default
    names = CookieNames.for_origin(f"http://127.0.0.1:{port}", usual)
    keys = KeyRing([SECRET.encode()], "session")
    cookie = SessionCookie(keys, names, Lifetimes(3600, 0), time.time)
    return cookie.set(SessionRecord.begin(ALICE, now=time.time(), login="x")).partition(";")[0]


async def test_lines_of_both_processes_stay_whole(tmp_path: Path, upstream: RawUpstream) -> None:
    """Both write lines longer than a pipe takes at once into one that is read slowly."""
    paused = PausedAnswer()
    reader, writer = os.pipe()
    try:
        async with (
            upgradable(tmp_path, upstream.url, stdout=writer, shutdown_timeout="20s") as found,
            RawClient.connect(found.gate.port) as client,
        ):
            os.close(writer)
            await _ask_at_length(found.gate.port)
            upstream.answer = paused
            client.send(request_bytes("/held"))
            await paused.arrived.wait()
            assert (await found.order())[0] == 0
            upstream.answer = OK
            await _ask_at_length(found.gate.port)
            await asyncio.to_thread(_read_whole_lines, reader, 2 * _LONG_LINES)
            paused.go_on.set()
            assert (await client.response()).status == 200
            assert await _ended(found.gate) == 0
    finally:
        os.close(reader)


#: Twice what a pipe takes, of some 7 KiB each.
_LONG_LINES = 20


async def _ask_at_length(port: int) -> None:
    data = request_bytes("/" + "x" * 4000, User_Agent="\xe9" * 1000, Connection="close")
    found = await asyncio.gather(*(ask(port, data) for _ in range(_LONG_LINES)))
    assert {response.status for response in found} == {200}


def _read_whole_lines(reader: int, count: int) -> None:
    rest = b""
    while count > 0:
        data = os.read(reader, 1000)
        assert data
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            count -= bool(json.loads(line)) and len(line) > 4096  # PIPE_BUF (pipe(7))


@asynccontextmanager
async def _manager(path: Path) -> AsyncIterator[Callable[[], list[str]]]:
    """Listen as a service manager; yields what reads the first line of each message."""

    def told() -> list[str]:
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(manager.recv(4096).decode().partition("\n")[0])
        return found

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        yield told


def _no_config(config: Path) -> None:
    config.write_text("[typo]\n")


def _no_socket(config: Path) -> None:
    text = config.read_text()
    config.write_text(text.replace('["127.0.0.1:', '["192.0.2.1:80", "127.0.0.1:'))


@pytest.mark.parametrize(
    ("spoil", "reason"), [(_no_config, "typo"), (_no_socket, "cannot listen on 192.0.2.1:80")]
)
async def test_a_process_that_cannot_start(
    tmp_path: Path, upstream: RawUpstream, spoil: Callable[[Path], None], reason: str
) -> None:
    """The old process serves on, and its log and the command say why the new one could not."""
    async with upgradable(tmp_path, upstream.url) as found:
        admin = f"127.0.0.1:{found.gate.admin_port}"
        await asyncio.to_thread(spoil, found.config)
        code, _, err = await run("upgrade", "--config", str(found.config), "--admin", admin)
        assert code == 1
        assert reason in err
        (line,) = found.log("no other process took over; this one continues to serve")
        assert reason in line["problem"]
        assert (await found.gate.ping()).status == 200
        assert found.gate.process.returncode is None


@pytest.mark.parametrize(("hangs", "reason"), [(True, "within 1 seconds"), (False, "with -9")])
async def test_a_process_that_hangs_or_dies(tmp_path: Path, *, hangs: bool, reason: str) -> None:
    """A new process that does not serve in time is killed, and the old one serves on."""
    command = gate_after(SPOILED.format(hangs=hangs))
    async with upgradable(tmp_path, command=command) as found:
        found.gate.process.send_signal(signal.SIGUSR2)
        message = "no other process took over; this one continues to serve"
        await until(lambda: bool(found.log(message)))
        assert reason in found.log(message)[0]["problem"]
        assert (await found.gate.ping()).status == 200


@pytest.mark.parametrize("by_manager", [False, True])
async def test_who_may_connect_after_an_upgrade(tmp_path: Path, *, by_manager: bool) -> None:
    """A gate's own Unix socket follows the new process's file and its reloads, a manager's not."""
    path = tmp_path / "gate.sock"
    with socket.socket(socket.AF_UNIX) as opened:
        if by_manager:
            opened.bind(str(path))
            opened.listen()
            await asyncio.to_thread(path.chmod, 0o606)
        passed = [("tailchat-gate.socket", opened)] if by_manager else []
        server = {"unix_mode": "0660"}
        async with upgradable(tmp_path, unix=path, passed=passed, server=server) as found:
            modes = [_mode(path)]
            await asyncio.to_thread(_replace, found.config, '"0660"', '"0620"')
            found.gate.process.send_signal(signal.SIGUSR2)
            await until(lambda: bool(found.took_over()))
            modes.append(_mode(path))
            await asyncio.to_thread(_replace, found.config, '"0620"', '"0600"')
            code, _, err = await run("reload", "--config", str(found.config))
            assert (code, err) == (0, "")
            modes.append(_mode(path))

    assert modes == ([0o606] * 3 if by_manager else [0o660, 0o620, 0o600])


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _replace(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def _held(tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """Return a pipe, and the command of a process that waits until it was opened and closed."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    return pipe, gate_after(HELD.format(pipe=str(pipe)))


async def test_orders_that_wait_for_an_upgrade(tmp_path: Path) -> None:
    """A second order to upgrade gets the outcome of the first; a reload is refused.

    Nothing is started without sockets, and a process that is over opens no listener.
    """
    pipe, command = _held(tmp_path)
    async with (
        upgradable(tmp_path, command=command) as found,
        RawClient.connect(found.gate.admin_port) as first,
        RawClient.connect(found.gate.admin_port) as second,
        RawClient.connect(found.gate.admin_port) as reload,
        RawClient.connect(found.gate.admin_port) as last,
    ):
        for client in (first, second, reload, last):
            await _admin(client, request_bytes("/healthz", host="localhost"))
        first.send(_order("upgrade"))
        release = await _opened_by_reader(pipe)
        try:
            for client, order in ((second, "upgrade"), (reload, "reload")):
                client.send(_order(order))
                # What arrived before these is being answered.
                for _ in range(3):
                    await _admin(last, request_bytes("/healthz", host="localhost"))
        finally:
            os.close(release)
        outcomes = [json.loads((await client.response()).body) for client in (first, second)]
        refused = json.loads((await reload.response()).body)
        assert await _ended(found.gate) == 0
        (line,) = found.took_over()
        failed = found.log("no other process took over; this one continues to serve")

    assert [outcome["pid"] for outcome in outcomes] == [line["pid"]] * 2
    assert failed == []
    (problem,) = refused["problems"]
    assert problem["found"] == f"replaced by process {line['pid']}"


async def test_a_stop_while_another_process_starts(tmp_path: Path) -> None:
    """The process that was to take over ends, and no order begins another one."""
    pipe, command = _held(tmp_path)
    async with (
        upgradable(tmp_path, command=command) as found,
        RawClient.connect(found.gate.admin_port) as first,
        RawClient.connect(found.gate.admin_port) as second,
    ):
        first.send(_order("upgrade"))
        release = await _opened_by_reader(pipe)
        try:
            second.send(_order("upgrade"))
            found.gate.process.send_signal(signal.SIGTERM)
            outcomes = [json.loads((await one.response()).body) for one in (first, second)]
            assert await _ended(found.gate) == 0
            # Nobody has it open for reading any more.
            with pytest.raises(BrokenPipeError):
                os.write(release, b"x")
        finally:
            os.close(release)
        assert found.took_over() == []

    assert [outcome["stops"] for outcome in outcomes] == [True, False]
    assert all(outcome["problem"] for outcome in outcomes)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("", "", "set state.path or state.url, and restart"),
        ("state", "", "restart the gate instead"),
        ("state", "other", "restart the gate instead"),
    ],
)
async def test_no_upgrade_forgets_a_lock(
    tmp_path: Path, before: str, after: str, reason: str
) -> None:
    """A gate whose locks the new process would not have continues, and says what to do.

    So it is by the command and by the signal.
    """
    message = "no other process took over; this one continues to serve"
    paths = {"": "", **{name: str(tmp_path / name) for name in ("state", "other")}}
    for path in filter(None, paths.values()):
        await asyncio.to_thread(Path(path).mkdir)
    async with upgradable(tmp_path, state={"path": paths[before]}) as found:
        spoilt = f'"path" = "{paths[before]}"', f'"path" = "{paths[after]}"'
        await asyncio.to_thread(_replace, found.config, *spoilt)
        code, _, err = await found.order()
        found.gate.process.send_signal(signal.SIGUSR2)
        await until(lambda: len(found.log(message)) == 2)
        assert (await found.gate.ping()).status == 200
        assert found.took_over() == []

    assert code == 1
    assert reason in err
    assert all(reason in line["problem"] for line in found.log(message))


def _order(name: str) -> bytes:
    return request_bytes(f"/{name}", method="POST", host="localhost", **{ORDER_HEADER: name})


async def _admin(client: RawClient, request: bytes) -> None:
    client.send(request)
    assert (await client.response()).status == 200


async def _opened_by_reader(pipe: Path) -> int:
    """Open a named pipe for writing once somebody reads it."""
    opened: list[int] = []

    def is_read() -> bool:
        with suppress(OSError):
            opened.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(opened)

    await until(is_read)
    return opened[0]


async def test_no_upgrade_while_the_store_has_a_fault(tmp_path: Path) -> None:
    """What this process could not write, the new one would not know."""
    ready = request_bytes("/readyz", host="localhost", Connection="close")
    async with redis_server() as server:
        state = {"path": "", "url": server.place.url}
        async with upgradable(tmp_path, state=state) as found:
            await server.stop()
            async with asyncio.timeout(END_SECONDS):
                while b"state store" not in (await ask(found.gate.admin_port, ready)).body:
                    pass
            code, _, err = await found.order()
            assert (await found.gate.ping()).status == 200
            assert found.took_over() == []

    assert code == 1
    assert "repair the store, or restart the gate" in err
