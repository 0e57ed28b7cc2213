"""How tunnels end: every way that an end leaves, and every way that the gate ends it."""

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from gatekit import Clock, RawClient, RawUpstream, RunningGate, until
from tlskit import Authority
from tunnelkit import CLOSE_SECONDS, Tunnel, hurry, open_sockets, opened
from websocketkit import BINARY, CLOSE, CONTINUATION, PING, SWITCH, TEXT, close, frame
from wirekit import heard, reset

from tailchat_gate.proxy.client import closing
from tailchat_gate.proxy.exchange import tunnel
from tailchat_gate.proxy.message.websocket_frames import close_frame
from tailchat_gate.proxy.sockets import READ_BYTES
from tailchat_gate.proxy.upstream import connection as upstream_connection

pytestmark = pytest.mark.both_loops

Start = Callable[..., Any]
Act = Callable[[RawClient, bytes], Coroutine[Any, Any, None]]
TUS = {"Connection": "Upgrade", "Upgrade": "tus"}
SWITCH_TO_TUS = b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: tus\r\n\r\n"
OVER = close_frame(3000, "the session is over")
_TIMEOUT = 120.0
#: Bytes that an end takes before anybody reads them, about a frame of a flood.
_HELD = 2**16
#: Seconds between the frames of a flood.
_BREATH = 0.005


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gate wait for an answer longer than a busy machine takes to give one."""
    monkeypatch.setattr(tunnel, "OVER_SECONDS", _TIMEOUT)


# What an end does; `mask` is that of its frames.


async def _nothing(end: RawClient, mask: bytes) -> None:
    """Neither read nor write."""


async def _closes(end: RawClient, mask: bytes) -> None:
    end.send(frame(CLOSE, b"\x03\xe8", mask=mask))


async def _leaves(end: RawClient, mask: bytes) -> None:
    end.writer.close()


async def _closes_and_leaves(end: RawClient, mask: bytes) -> None:
    end.send(frame(CLOSE, b"\x03\xe8", mask=mask))
    end.writer.close()


async def _half_closes(end: RawClient, mask: bytes) -> None:
    if end.writer.can_write_eof():
        end.writer.write_eof()


async def _resets(end: RawClient, mask: bytes) -> None:
    reset(end.writer)


async def _stops_in_a_frame(end: RawClient, mask: bytes) -> None:
    end.send(frame(BINARY, b"x" * 1000, mask=mask)[:500])


async def _floods(end: RawClient, mask: bytes) -> None:
    """Send as long as somebody takes it, and never be silent for long."""
    data = frame(BINARY, b"x" * 65_000, mask=mask)
    try:
        while not end.writer.is_closing():
            end.send(data)
            await end.writer.drain()
            # The gate throws away what comes behind its end, as fast as anybody sends.
            await asyncio.sleep(_BREATH)
    except ConnectionError:
        return


async def _stalls(end: RawClient, mask: bytes) -> None:
    """Take nothing at all, not even into a buffer."""
    end.writer.transport.pause_reading()  # type: ignore[attr-defined]


ACTS: tuple[Act, ...] = (
    *(_nothing, _closes, _leaves, _closes_and_leaves, _half_closes, _resets, _stops_in_a_frame),
    *(_floods, _stalls),
)


def _hold_little(end: RawClient) -> None:
    """Have a flood meet an end that stops reading after a few frames, not after megabytes."""
    end.reader._limit = _HELD  # type: ignore[attr-defined]
    below = end.writer.get_extra_info("socket")
    below.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _HELD)
    below.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _HELD)


async def _act_all(stack: AsyncExitStack, gate: RunningGate, tool: RawUpstream) -> list[Tunnel]:
    """Open a tunnel for each pair of acts, and let both ends act."""
    tunnels = []
    tasks = await stack.enter_async_context(asyncio.TaskGroup())
    for client_act, upstream_act in itertools.product(ACTS, ACTS):
        found = await stack.enter_async_context(opened(gate, tool))
        tunnels.append(found)
        _hold_little(found.client)
        _hold_little(found.upstream)
        for act, end, mask in (
            (client_act, found.client, b"mask"),
            (upstream_act, found.upstream, b""),
        ):
            # In a task, because a flood does not end by itself.
            task = tasks.create_task(act(end, mask))
            stack.callback(task.cancel)
    return tunnels


@pytest.fixture
async def tls_upstream(tmp_path: Path) -> AsyncIterator[RawUpstream]:
    """Return an upstream that speaks https; its authority is `authority.pem`."""
    authority = await asyncio.to_thread(Authority.create, tmp_path)
    issued = await asyncio.to_thread(authority.issue, "localhost")
    context = await asyncio.to_thread(issued.server_context)
    async with RawUpstream(tls=context) as found:
        yield found


@pytest.mark.parametrize(
    ("tls", "how"),
    [
        *((False, how) for how in ("session", "age", "idle", "shutdown")),
        *((True, how) for how in ("session", "shutdown")),
    ],
)
async def test_whatever_ends_a_tunnel_no_socket_stays(
    start_gate: Start,
    upstream: RawUpstream,
    tls_upstream: RawUpstream,
    tmp_path: Path,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    tls: bool,
    how: str,
) -> None:
    """Each end's every way to leave or stay, times the gate's ways to end: both sockets close."""
    route = {"name": "tool", "websocket_max_age": "1h", "idle_timeout": "1s"}
    if how != "idle":
        route["idle_timeout"] = "0"
    if tls:
        route["tls_ca"] = str(tmp_path / "authority.pem")
    tool = tls_upstream if tls else upstream
    gate = await start_gate(tool.url, route=[route])
    async with AsyncExitStack() as stack, asyncio.timeout(_TIMEOUT):
        tunnels = await _act_all(stack, gate, tool)
        await asyncio.sleep(0)
        if how == "shutdown":
            await gate.server.stop()
        elif how != "idle":
            clock.now += 43_201 if how == "session" else 3601
        sockets = set().union(*(found.sockets for found in tunnels))
        await until(lambda: not sockets & open_sockets())
        await until(lambda: not gate.generation.forwarder.tunnels)
        assert gate.server._server is not None
        await until(lambda: not gate.server._server.connections)

    told = [one.getMessage() for one in caplog.records if one.levelname in {"WARNING", "ERROR"}]
    # What asyncio says of bytes that still come in the turn in which TLS ends.
    assert [one for one in told if not (tls and one == "SSL connection is closed")] == []


def _is_end(pair: tuple[Act, ...]) -> bool:
    """Tell whether two acts are the end of a tunnel, so that nobody has anything more to say."""
    if _resets in pair or _closes_and_leaves in pair:
        return True
    # A client that has left looks like one that only ended its side, until something is sent to it.
    return set(pair) <= {_leaves, _half_closes} or set(pair) == {_leaves, _floods}


def _is_in_doubt(pair: tuple[Act, ...]) -> bool:
    """Tell whether it is chance that one leaves with bytes unread, which is a reset."""
    return _leaves in pair and bool({_closes, _stops_in_a_frame} & set(pair))


async def test_a_tunnel_that_has_ended_leaves_no_socket(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """Where both ends have left, one was reset, or one closed and left, both sockets close."""
    pairs = list(itertools.product(ACTS, ACTS))
    async with AsyncExitStack() as stack, asyncio.timeout(_TIMEOUT):
        tunnels = dict(zip(pairs, await _act_all(stack, gate, upstream), strict=True))
        ended = set().union(*(tunnels[pair].sockets for pair in pairs if _is_end(pair)))
        await until(lambda: not ended & open_sockets())
        left = {pair for pair in pairs if not tunnels[pair].is_over()}
        assert len(gate.generation.forwarder.tunnels) == len(left)

    assert left >= {pair for pair in pairs if not _is_end(pair) and not _is_in_doubt(pair)}
    assert not any(map(_is_end, left))


# What the other end sees.


async def test_a_reset_is_passed_on_as_one(gate: RunningGate, upstream: RawUpstream) -> None:
    """A clean end would say that all has come, so what was reset is reset on the other side too."""
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        reset(found.client.writer)
        assert (await heard(found.upstream)).reset
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        reset(found.upstream.writer)
        assert (await heard(found.client)).reset


async def test_a_reset_behind_a_close_frame_destroys_nothing(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """Who has sent a close frame has said all; the frame arrives, and a clean end behind it."""
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        found.client.send(close(4001))
        reset(found.client.writer)
        assert await heard(found.upstream) == (close(4001), False)
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        found.upstream.send(close_frame(1011, "fault"))
        reset(found.upstream.writer)
        assert await heard(found.client) == (close_frame(1011, "fault"), False)


@pytest.mark.parametrize("times", range(5))
async def test_last_words_arrive_from_a_connection_that_breaks(
    gate: RunningGate, upstream: RawUpstream, times: int
) -> None:
    """A close frame is relayed even where a write finds out first that its sender is gone."""
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        found.client.send(frame(BINARY, b"too much"))
        found.upstream.send(close_frame(1009, "too big"))
        reset(found.upstream.writer)
        assert (await heard(found.client)).data == close_frame(1009, "too big")
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        found.upstream.send(frame(BINARY, b"too much", mask=b""))
        found.client.send(close(1009, "too big"))
        reset(found.client.writer)
        assert (await heard(found.upstream)).data == close(1009, "too big")


async def test_half_an_end_leaves_the_other_half(gate: RunningGate, upstream: RawUpstream) -> None:
    """An end that has stopped sending still receives, and the other end learns of it."""
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        for one, other in ((found.client, found.upstream), (found.upstream, found.client)):
            one.send(b"\x81\x01a")
            one.writer.write_eof()
            assert await other.reader.read() == b"\x81\x01a"
            if other is found.upstream:
                other.send(b"\x81\x01b")
                assert await one.reader.readexactly(3) == b"\x81\x01b"
        await until(found.is_over)


async def test_what_comes_with_the_switch_is_relayed(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """Frames behind the request and behind the 101 arrive whole and in order, however many."""
    to_client, to_upstream = (
        b"".join(b"\x81\x05%05d" % n for n in range(60_000)),
        b"\x82\x00" * 9000,
    )
    async with (
        opened(gate, upstream, switch=SWITCH + to_client, behind=to_upstream) as found,
        asyncio.timeout(_TIMEOUT),
    ):
        assert await found.client.reader.readexactly(len(to_client)) == to_client
        assert await found.upstream.reader.readexactly(len(to_upstream)) == to_upstream
        found.client.send(b"\x81\x80mask")
        assert await found.upstream.reader.readexactly(6) == b"\x81\x80mask"


# The gate's own end.


def _end(clock: Clock) -> None:
    clock.now += 43_201


#: Where a frame of 1 MB is cut: behind each part of it, counted without a mask.
_LARGE = 2**20
_CUTS = {"opcode": 1, "length": 5, "payload": 500_000, "last octet": _LARGE + 9}


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("cut", _CUTS)
@pytest.mark.parametrize("fin", [True, False])
async def test_the_close_frame_comes_behind_the_frame_under_way(
    gate: RunningGate, upstream: RawUpstream, clock: Clock, fin: bool, cut: str
) -> None:
    """Wherever a frame is cut, it passes whole, the close frame behind it, and nothing else."""
    down, up = (
        frame(BINARY, b"d" * _LARGE, fin=fin, mask=b""),
        frame(BINARY, b"u" * _LARGE, fin=fin),
    )
    place = _CUTS[cut]
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        found.upstream.send(down[:place])
        found.client.send(up[:place])
        assert await found.client.reader.readexactly(place) == down[:place]
        assert await found.upstream.reader.readexactly(place) == up[:place]
        _end(clock)
        # Long enough for a close frame to come where it must not.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(found.client.reader.readexactly(1), 0.1)
        found.upstream.send(down[place:] + frame(CONTINUATION, b"not this", mask=b""))
        found.client.send(up[place:] + frame(CONTINUATION, b"nor this") + close(3000))
        got, sent = await heard(found.client), await heard(found.upstream)

    assert got == (down[place:] + OVER, False)
    assert sent == (up[place:] + _masked_over(sent.data[-27:]), False)


def _masked_over(sent: bytes) -> bytes:
    """Return the close frame to an upstream under the mask of one that was sent."""
    return close_frame(3000, "the session is over", mask=sent[2:6])


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("behind", [b"\x01\x01a", b"\x01\x00\x00\x01a\x89\x00", b""])
async def test_the_close_frame_may_come_between_fragments(
    gate: RunningGate, upstream: RawUpstream, clock: Clock, behind: bytes
) -> None:
    """At a boundary the close frame goes out at once, inside of a message too (5.4)."""
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        found.upstream.send(behind)
        # What the gate has not read before the end is not relayed.
        assert await found.client.reader.readexactly(len(behind)) == behind
        _end(clock)
        assert await found.client.reader.readexactly(len(OVER)) == OVER
        sent = await found.upstream.reader.readexactly(27)
        assert sent == _masked_over(sent)
        found.client.send(close(3000))
        assert await heard(found.client) == (b"", False)


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("pieces", [1, 3, 100])
async def test_a_client_that_goes_on_is_not_relayed(
    gate: RunningGate, upstream: RawUpstream, clock: Clock, pieces: int
) -> None:
    """What a client sends before its answer goes nowhere; the answer ends the tunnel, at once."""
    behind = frame(TEXT, "still") + frame(BINARY, b"\x88" * 300) + frame(PING) + close(3000)
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        _end(clock)
        assert await found.client.reader.readexactly(len(OVER)) == OVER
        size = len(behind) // pieces + 1
        began = asyncio.get_running_loop().time()
        for place in range(0, len(behind), size):
            found.client.send(behind[place : place + size])
            await asyncio.sleep(0)
        assert await heard(found.client) == (b"", False)
        assert asyncio.get_running_loop().time() < began + _TIMEOUT
        sent = await heard(found.upstream)

    assert sent == (_masked_over(sent.data), False)


async def test_an_end_that_does_not_answer_is_cut_off(
    gate: RunningGate, upstream: RawUpstream, clock: Clock
) -> None:
    """Neither a client nor an upstream can keep a tunnel open by never closing."""
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        began = asyncio.get_running_loop().time()
        _end(clock)
        assert await heard(found.client) == (OVER, False)
        sent = await heard(found.upstream)
        assert sent == (_masked_over(sent.data), False)
        assert asyncio.get_running_loop().time() >= began + CLOSE_SECONDS - 0.01
        # Neither end has closed its own side by now.
        await until(found.is_over)


async def test_ends_that_never_fall_silent_get_the_close_frame(
    gate: RunningGate, upstream: RawUpstream, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The close frame is the last that either gets, and no reset destroys it."""
    # As long as a busy machine may take to read it.
    for module in (closing, upstream_connection):
        monkeypatch.setattr(module, "LINGER_SECONDS", _TIMEOUT)
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        floods = [
            asyncio.create_task(_floods(found.client, b"mask")),
            asyncio.create_task(_floods(found.upstream, b"")),
        ]
        reads = [asyncio.create_task(heard(end)) for end in (found.client, found.upstream)]
        await asyncio.sleep(0)
        _end(clock)
        got, sent = await asyncio.gather(*reads)
        for flood in floods:
            flood.cancel()
        for end in (found.client, found.upstream):
            end.writer.close()
        await until(found.is_over)

    assert (got.data[-len(OVER) :], got.reset) == (OVER, False)
    assert (sent.data[-27:], sent.reset) == (_masked_over(sent.data[-27:]), False)


async def test_who_has_closed_gets_no_second_close_frame(
    gate: RunningGate, upstream: RawUpstream, clock: Clock
) -> None:
    """Behind a close frame nothing may come (RFC 6455 section 5.5.1); the other side gets one."""
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        found.client.send(close(4000))
        assert await found.upstream.reader.readexactly(8) == close(4000)
        _end(clock)
        assert await heard(found.client) == (OVER, False)
        assert await heard(found.upstream) == (b"", False)
    clock.now -= 43_201
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        found.upstream.send(close_frame(4000, ""))
        assert await found.client.reader.readexactly(4) == close_frame(4000, "")
        _end(clock)
        sent = await heard(found.upstream)
        assert sent == (_masked_over(sent.data), False)
        assert await heard(found.client) == (b"", False)


async def test_who_sends_no_more_gets_the_close_frame(
    gate: RunningGate, upstream: RawUpstream, clock: Clock
) -> None:
    """A half-closed end is told as the others are, and the gate's clock goes on."""
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        found.client.writer.write_eof()
        assert await found.upstream.reader.read() == b""
        _end(clock)
        assert await heard(found.client) == (OVER, False)
        await until(found.is_over)
    clock.now -= 43_201
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        found.upstream.writer.write_eof()
        assert await found.client.reader.read() == b""
        _end(clock)
        sent = await heard(found.upstream)
        assert sent == (_masked_over(sent.data), False)
        await until(found.is_over)


async def test_another_protocol_is_reset(
    start_gate: Start, upstream: RawUpstream, clock: Clock
) -> None:
    """Where the gate cannot say that it ends a tunnel, a clean end would say that all has come."""
    gate = await start_gate(upstream.url, route=[{"name": "tool", "upgrades": ["tus"]}])
    async with (
        opened(gate, upstream, fields=TUS, switch=SWITCH_TO_TUS) as found,
        asyncio.timeout(_TIMEOUT),
    ):
        found.client.send(b"\x88\x00")
        found.upstream.send(b"\x88\x00")
        assert await found.client.reader.readexactly(2) == b"\x88\x00"
        assert await found.upstream.reader.readexactly(2) == b"\x88\x00"
        _end(clock)
        assert await heard(found.client) == (b"", True)
        assert await heard(found.upstream) == (b"", True)


async def test_tls_is_ended_as_any_tunnel(
    start_gate: Start, tls_upstream: RawUpstream, tmp_path: Path, clock: Clock
) -> None:
    """The gate's close frame reaches a tool by https, and an end of TCP alone is a reset."""
    keys = {"tls_ca": str(tmp_path / "authority.pem")}
    gate = await start_gate(tls_upstream.url, route=[{"name": "tool", **keys}])
    async with opened(gate, tls_upstream) as found, asyncio.timeout(_TIMEOUT):
        found.client.send(frame(TEXT, "up"))
        found.upstream.send(frame(TEXT, "down", mask=b""))
        assert await found.client.reader.readexactly(6) == frame(TEXT, "down", mask=b"")
        assert await found.upstream.reader.readexactly(8) == frame(TEXT, "up")
        _end(clock)
        assert await found.client.reader.readexactly(len(OVER)) == OVER
        found.client.send(close(3000))
        assert await heard(found.client) == (b"", False)
        sent = await heard(found.upstream)
        assert sent == (_masked_over(sent.data), False)
        await until(found.is_over)
    clock.now -= 43_201
    async with opened(gate, tls_upstream) as found, asyncio.timeout(_TIMEOUT):
        below = found.upstream.writer.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(below)) as end:
            end.shutdown(socket.SHUT_WR)
        assert await heard(found.client) == (b"", True)
        await until(found.is_over)


# Pressure.


def _held(gate: RunningGate) -> int:
    """Return how many bytes a gate holds for the two ends of its one tunnel."""
    (found,) = gate.generation.process_state.upstream_pools.tunnels
    ends = [end.transport for end in (found._client, found._upstream)]
    return sum(end.get_write_buffer_size() for end in ends if end is not None)


def _unsent(end: RawClient) -> int:
    return end.writer.transport.get_write_buffer_size()


@pytest.mark.parametrize("slow", ["client", "upstream"])
@pytest.mark.parametrize("how", ["session", "resets", "half-closes"])
async def test_a_slow_reader_costs_a_bounded_buffer(
    gate: RunningGate, upstream: RawUpstream, clock: Clock, slow: str, how: str
) -> None:
    """What one end does not take stays with the other, whose end then frees all of it."""
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        reader, sender = found.client, found.upstream
        if slow == "upstream":
            reader, sender = sender, reader
        await _stalls(reader, b"")
        data = frame(BINARY, b"x" * 65_000, mask=b"" if slow == "client" else b"mask")
        most = sent = 0
        stalled = False
        while not stalled:
            sender.send(data)
            sent += len(data)
            try:
                await asyncio.wait_for(sender.writer.drain(), 0.3)
            except TimeoutError:
                # A gate that had no turn meanwhile is no stall.
                stalled = _held(gate) > 0
            most = max(most, _held(gate))
        assert sent < 48 * 2**20
        assert 0 < most <= READ_BYTES

        if how == "session":
            _end(clock)
            await until(found.is_over)
            return
        if how == "resets":
            reset(sender.writer)
        else:
            sender.writer.write_eof()
        reader.writer.transport.resume_reading()  # type: ignore[attr-defined]
        got = 0
        with suppress(ConnectionError):
            while more := await reader.reader.read(2**20):
                got += len(more)
        if how == "half-closes":
            assert got == sent
            reader.writer.close()
        await until(found.is_over)


@pytest.mark.parametrize("stalled", [False, True])
async def test_a_gate_that_has_stopped_has_no_socket_open(
    start_gate: Start, upstream: RawUpstream, clock: Clock, stalled: bool
) -> None:
    """What is still to be seen off when the gate stops is cut off with it."""
    gate = await start_gate(upstream.url)
    async with opened(gate, upstream) as found, asyncio.timeout(_TIMEOUT):
        if stalled:
            await _stalls(found.upstream, b"")
            flood = asyncio.create_task(_floods(found.client, b"mask"))
            await until(lambda: _held(gate) > 0 and _unsent(found.client) > 0)
            flood.cancel()
        found.client.send(close(4000))
        found.client.writer.close()
        await until(lambda: found.client.writer.transport.get_write_buffer_size() == 0 or stalled)
        await gate.server.stop()
        await until(found.is_over)
