"""What is under way is asked about like a request, and ends with a session that is revoked."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from accounts import revoke_user
from gatekit import RawClient, Received, request_bytes, until
from recheckkit import BOB, HOSHINO, HOUR, INTERVAL, Person, asked, counted, recheck, sign_in
from storykit import Story
from usual_faults import BROKEN
from websocketkit import SWITCH, UPGRADE

from tailchat_gate.proxy.exchange.tunnel import SESSION_OVER, UNAUTHORIZED
from tailchat_gate.proxy.message.websocket_frames import close_frame

Start = Callable[..., Awaitable[Story]]
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
#: Longer than the gate takes to look twice at what is under way.
QUIET_SECONDS = 1.5


async def tool(
    request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Switch, begin a stream that never ends, or answer at once."""
    if request.value("Upgrade"):
        writer.write(SWITCH)
    elif request.line.startswith(b"GET /stream "):
        writer.write(STREAM)
    else:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return
    await reader.read()


async def opened(stack: AsyncExitStack, person: Person, target: str = "/") -> RawClient:
    """Open a WebSocket, or the stream at /stream."""
    client = await stack.enter_async_context(RawClient.connect(person.scene.gate.port))
    fields = {} if target == "/stream" else UPGRADE
    client.send(request_bytes(target, host=person.host, Cookie=person.cookie, **fields))
    await client.head()
    return client


async def is_open(client: RawClient) -> bool:
    """Tell whether nothing comes for a while."""
    try:
        async with asyncio.timeout(QUIET_SECONDS):
            await client.reader.read(1)
    except TimeoutError:
        return True
    return False


def live_ended(scene: Story, why: str) -> int:
    """Return how much was ended because of a session, for a reason."""
    return scene.gate.generation.process_state.metrics._live_ended[why]


@pytest.fixture
async def scene(start_rechecks: Start) -> Story:
    """Return a setting with a tool that keeps connections open."""
    found = await start_rechecks()
    found.tool.answer = tool
    return found


async def test_a_websocket_alone_is_use_of_its_session(scene: Story) -> None:
    """With nothing but an open WebSocket Tailchat is asked when that is due, once each time."""
    person = await sign_in(scene)
    async with AsyncExitStack() as stack:
        client = await opened(stack, person)
        for times in (1, 2):
            scene.clock.now += INTERVAL
            await until(lambda times=times: counted(scene, "ok") == times)  # type: ignore[misc] # bound at once
            assert await is_open(client)
        assert asked(scene) == 3


async def test_what_is_under_way_ends_with_a_revoked_session(scene: Story) -> None:
    """Without a request of the person a WebSocket is closed with 3000, and a stream is cut off."""
    person, other = await sign_in(scene), await sign_in(scene, BOB)
    async with AsyncExitStack() as stack:
        socket, stream = await opened(stack, person), await opened(stack, person, "/stream")
        others = await opened(stack, other)
        revoke_user(scene.tailchat.store, HOSHINO.sub)
        scene.clock.now += INTERVAL

        expected = close_frame(UNAUTHORIZED, SESSION_OVER)
        async with asyncio.timeout(15):
            assert await socket.reader.readexactly(len(expected)) == expected
            with pytest.raises(ConnectionResetError):
                await stream.reader.read()
        assert await is_open(others)
        await until(lambda: live_ended(scene, "session-revoked") == 2)


async def test_a_rename_during_a_websocket_reaches_the_next_request(scene: Story) -> None:
    """What was learned beside a WebSocket is told to the tool, and sealed in the cookie."""
    person = await sign_in(scene)
    async with AsyncExitStack() as stack:
        await opened(stack, person)
        scene.tailchat.store.rename(HOSHINO.sub, "Renamed")
        scene.clock.now += INTERVAL
        await until(lambda: counted(scene, "ok") == 1)
        await person.get()

    assert scene.tool.requests[-1].value("X-Tailchat-Nickname") == b"Renamed"
    assert person.record.nickname == "Renamed"


@pytest.mark.parametrize("outage", ["sign-in", "fail"])
async def test_an_outage_ends_what_it_does_not_keep(start_rechecks: Start, outage: str) -> None:
    """Where an outage does not keep sessions it does not keep their WebSockets either."""
    scene = await start_rechecks(outage=outage)
    scene.tool.answer = tool
    person = await sign_in(scene)
    async with AsyncExitStack() as stack:
        client = await opened(stack, person)
        scene.tailchat.faults.me = BROKEN
        scene.clock.now += INTERVAL
        await until(lambda: counted(scene, "outage") == 1)
        assert await is_open(client)
        scene.clock.now += INTERVAL
        expected = close_frame(UNAUTHORIZED, SESSION_OVER)
        async with asyncio.timeout(15):
            assert await client.reader.readexactly(len(expected)) == expected
        await until(lambda: live_ended(scene, "recheck-failed") == 1)


async def test_an_outage_keeps_what_it_keeps(scene: Story) -> None:
    """Where sessions go on in an outage, their WebSockets do."""
    person = await sign_in(scene)
    async with AsyncExitStack() as stack:
        client = await opened(stack, person)
        scene.tailchat.faults.me = BROKEN
        scene.clock.now += HOUR
        await until(lambda: counted(scene, "outage") == 1)
        assert await is_open(client)


async def test_a_route_may_let_it_outlive_the_session(start_rechecks: Start) -> None:
    """With outlive a WebSocket goes on, and nobody is asked about it."""
    scene = await start_rechecks(route=[{"name": "tool", "outlive": True}])
    scene.tool.answer = tool
    person = await sign_in(scene)
    async with AsyncExitStack() as stack:
        client = await opened(stack, person)
        revoke_user(scene.tailchat.store, HOSHINO.sub)
        await recheck(person)

        assert counted(scene, "revoked") == 1
        assert await is_open(client)
