"""A fault inside the gate in what begins, ends or checks a connection costs that one alone."""

import asyncio
import select
from collections.abc import Callable
from typing import Any, cast

import pytest
from gatekit import RawClient, RawUpstream, RunningGate, request_bytes, until
from tunnelkit import hurry, opened
from websocketkit import BINARY, SWITCH, UPGRADE, frame
from wirekit import heard

from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.proxy.exchange.tunnel import Tunnel
from tailchat_gate.proxy.sockets import check_each
from tailchat_gate.proxy.upstream.interfaces import ResponseTimeouts

pytestmark = pytest.mark.both_loops


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.fixture
async def told() -> list[str]:
    """Return the faults that the event loop hears of, which then are no warnings of the test."""
    found: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: found.append(repr(context.get("exception")))
    )
    return found


def _fail(*_: object, **__: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("part", "step"), [(Metrics, "route"), (Tunnel, "start"), (Tunnel, "_take_shortcuts")]
)
async def test_a_tunnel_that_cannot_begin_leaves_nothing(
    gate: RunningGate,
    upstream: RawUpstream,
    monkeypatch: pytest.MonkeyPatch,
    told: list[str],
    part: type,
    step: str,
) -> None:
    """Both of its connections are closed, and its slot is free."""
    upstream.answer = SWITCH
    pools = gate.generation.process_state.upstream_pools
    monkeypatch.setattr(part, step, _fail)
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
        await heard(client)
        await until(lambda: upstream.open_connections == 0)

    assert [(pool.entered, pool.open, pool.states["active"]) for pool in pools.pools] == [(0, 0, 0)]
    assert not pools.tunnels
    assert not gate.generation.gate.forwarder.tunnels
    assert any("ZeroDivisionError" in fault for fault in told)


async def test_last_words_that_cannot_be_handed_on_hide_no_end(
    gate: RunningGate, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client's connection is no longer counted, and its tunnel has ended."""
    server = gate.server._server
    assert server is not None
    async with opened(gate, upstream) as found:
        (tunnel,) = gate.generation.process_state.upstream_pools.tunnels
        client = tunnel._client
        transport = client.transport
        assert transport is not None
        transport.pause_reading()
        # Only this test tells the connection of its end.
        transport.set_protocol(asyncio.Protocol())
        monkeypatch.setattr(Tunnel, "from_client", _fail)
        found.client.send(frame(BINARY, b"last", mask=b"mask"))
        await until(lambda: _unread(transport))
        with pytest.raises(ZeroDivisionError):
            cast("Any", client).connection_lost(ConnectionResetError())

        assert client not in server.connections
        assert not gate.generation.process_state.upstream_pools.tunnels
        transport.abort()


def _unread(transport: asyncio.Transport) -> bool:
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


class _Checked:
    """Something with time limits; a faulty one cannot be checked."""

    def __init__(self, *, faulty: bool) -> None:
        self.faulty = faulty
        self.active_request = None
        self.checks = self.ends = 0

    def check(self, *_: object) -> None:
        """Count a check."""
        if self.faulty:
            raise ZeroDivisionError
        self.checks += 1

    sweep = check

    def abort(self) -> None:
        """Count an end; that of a faulty one fails as well."""
        self.ends += 1
        if self.faulty:
            raise ZeroDivisionError


async def test_a_fault_in_one_check_skips_no_other(
    told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The faulty ones are ended, the others are checked, and each fault is in the log."""
    checked = [_Checked(faulty=number % 2 == 0) for number in range(4)]
    check_each(checked, _Checked.check, _Checked.abort)
    await asyncio.sleep(0)

    assert [(one.checks, one.ends) for one in checked] == [(0, 1), (1, 0)] * 2
    assert [record.message for record in caplog.records] == [
        "a check of time limits failed inside the gate"
    ] * 2
    assert told == ["ZeroDivisionError()"] * 2


Place = Callable[[RunningGate], set[Any]]


def _clients(gate: RunningGate) -> set[Any]:
    assert gate.server._server is not None
    return cast("set[Any]", gate.server._server.connections)


def _tunnels(gate: RunningGate) -> set[Any]:
    return cast("set[Any]", gate.generation.process_state.upstream_pools.tunnels)


@pytest.mark.parametrize("place", [_clients, _tunnels])
async def test_what_cannot_be_checked_is_ended(
    gate: RunningGate, told: list[str], place: Place
) -> None:
    """A client's connection or a tunnel without time limits does not stay."""
    faulty = _Checked(faulty=True)
    place(gate).add(faulty)
    await until(lambda: faulty.ends > 0)
    place(gate).discard(faulty)


async def test_an_overdue_exchange_whose_end_fails_is_cut_off(
    gate: RunningGate,
    upstream: RawUpstream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its client does not wait for the rest of the response, and its slot is free."""
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"
    (pool,) = gate.generation.process_state.upstream_pools.pools
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes(Cookie=gate.cookie()))
        await client.reader.readuntil(b"ab")
        monkeypatch.setattr(Metrics, "request", _fail)
        (connection,) = pool._busy
        connection._timeouts = ResponseTimeouts(0.0, 0.001)
        # A look of before may have set the time by the old limit.
        connection.moved = True
        assert (await heard(client)).data == b""

    assert (pool.entered, pool.states["active"]) == (0, 0)
    assert [record.message for record in caplog.records] == [
        "a check of time limits failed inside the gate"
    ]
