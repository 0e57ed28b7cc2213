"""A request that waits until Tailchat was asked: it is held unread, and goes on as any other."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from accounts import revoke_user, user_named
from gatekit import ALICE, RawClient, Received, request_bytes, until
from recheckkit import (
    BOB,
    HOSHINO,
    HOUR,
    INTERVAL,
    MINUTES,
    Person,
    answered,
    asked,
    counted,
    refusal,
    sign_in,
)
from storykit import Story
from websocketkit import SWITCH, TEXT, UPGRADE, frame
from wirekit import heard, reset

from tailchat_gate.demo.faults import Hang
from tailchat_gate.identity.oauth.responses import TokenSet
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.proxy.client.protocol import ClientProtocol
from tailchat_gate.serving.wiring.build import build

pytestmark = pytest.mark.both_loops

Start = Callable[..., Awaitable[Story]]


@pytest.fixture
async def scene(start_rechecks: Start) -> Story:
    """Return the usual setting: an outage keeps sessions."""
    return await start_rechecks()


def connections(scene: Story) -> set[ClientProtocol]:
    """Return the connections of clients that there are."""
    server = scene.gate.server._server
    assert server is not None
    return server.connections


# One question for all.


async def test_two_hundred_requests_are_one_question(scene: Story) -> None:
    """All who come while Tailchat thinks wait for the one answer, and are all served."""
    person = await sign_in(scene)
    hang = scene.tailchat.faults.me = Hang()
    scene.clock.now += HOUR
    requests = [asyncio.create_task(person.get(f"/{number}")) for number in range(200)]
    await hang.started.wait()
    await until(lambda: sum(one.busy for one in connections(scene)) == 200)
    assert scene.tool.requests[1:] == []
    hang.release()
    responses = await asyncio.gather(*requests)

    assert {response.status for response in responses} == {200}
    assert {one.line for one in scene.tool.requests[1:]} == {
        b"GET /%d HTTP/1.1" % number for number in range(200)
    }
    assert asked(scene) == 2


async def test_two_hundred_requests_go_on_beside_the_question(scene: Story) -> None:
    """Within the second interval nobody waits, and the question is still one alone."""
    person = await sign_in(scene)
    hang = scene.tailchat.faults.me = Hang()
    scene.clock.now += INTERVAL
    responses = await asyncio.gather(*(person.get() for _ in range(200)))
    await hang.started.wait()

    assert {response.status for response in responses} == {200}
    assert asked(scene) == 2
    hang.release()
    await answered(scene.gate)
    assert counted(scene, "ok") == 1


async def test_few_questions_at_once(scene: Story) -> None:
    """However many people are due, Tailchat gets eight questions at a time, until all are asked."""
    hang = scene.tailchat.faults.me = Hang()
    people = [
        SessionRecord.begin(
            ALICE._replace(sub=f"{number:024x}"),
            now=scene.clock(),
            login="x",
            tokens=TokenSet(f"token-{number}"),
        )
        for number in range(30)
    ]
    hoshino = user_named("hoshino")
    accounts = {record.sub: replace(hoshino, sub=record.sub) for record in people}
    scene.tailchat.store.users.update(accounts)
    scene.clock.now += INTERVAL
    host = scene.url.removeprefix("http://")
    for record in people:
        assert (await Person(scene, scene.gate.seal(record), host).get()).status == 200
    await until(lambda: asked(scene) == 8)
    for _ in range(20):
        await asyncio.sleep(0)
    assert asked(scene) == 8
    hang.release()
    await answered(scene.gate)

    assert asked(scene) == 30
    assert counted(scene, "revoked") == 30


# A request that is held.


async def test_a_body_behind_a_held_head_arrives_whole(scene: Story) -> None:
    """What is sent while a request waits reaches the tool byte for byte, and in its order."""
    person = await sign_in(scene)
    hang = scene.tailchat.faults.me = Hang()
    scene.clock.now += HOUR
    body = bytes(range(256)) * 1000
    async with RawClient.connect(scene.gate.port) as client:
        fields = {"Cookie": person.cookie, "Content-Length": str(len(body))}
        client.send(request_bytes("/up", method="POST", host=person.host, **fields) + body[:1000])
        await hang.started.wait()
        client.send(body[1000:] + request_bytes("/next", host=person.host, Cookie=person.cookie))
        hang.release()
        first, second = await client.response(), await client.response()

    assert (first.status, second.status) == (200, 200)
    up, after = scene.tool.requests[-2:]
    assert (up.line, up.body) == (b"POST /up HTTP/1.1", body)
    assert after.line == b"GET /next HTTP/1.1"


async def test_requests_behind_a_held_one_keep_their_order(scene: Story) -> None:
    """A client that pipelines gets its answers in the order of its requests."""
    person = await sign_in(scene)
    hang = scene.tailchat.faults.me = Hang()
    scene.clock.now += HOUR
    targets = ["/a", "/oauth2/userinfo", "/b"]
    async with RawClient.connect(scene.gate.port) as client:
        for target in targets:
            client.send(request_bytes(target, host=person.host, Cookie=person.cookie))
        await hang.started.wait()
        hang.release()
        responses = [await client.response() for _ in targets]

    assert [response.status for response in responses] == [200, 200, 200]
    assert responses[1].json["sub"] == HOSHINO.sub
    assert [one.line for one in scene.tool.requests[-2:]] == [
        b"GET /a HTTP/1.1",
        b"GET /b HTTP/1.1",
    ]


async def test_a_websocket_that_was_held_opens_with_its_first_frames(scene: Story) -> None:
    """Frames behind an upgrade that waits reach the tool, once the session is confirmed."""
    person = await sign_in(scene)
    hang = scene.tailchat.faults.me = Hang()
    scene.tool.answer = _echo
    scene.clock.now += HOUR
    text = frame(TEXT, b"early", mask=b"mask")
    async with RawClient.connect(scene.gate.port) as client:
        client.send(request_bytes("/ws", host=person.host, Cookie=person.cookie, **UPGRADE) + text)
        await hang.started.wait()
        before = len(scene.tool.requests)
        scene.tailchat.faults.me = None
        hang.release()
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        assert await client.reader.readexactly(len(text)) == text

    assert len(scene.tool.requests) == before + 1


async def _echo(_: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(SWITCH)
    while data := await reader.read(2**16):
        writer.write(data)
    raise ConnectionError


async def test_a_held_request_that_is_refused_ends_as_any(scene: Story) -> None:
    """A POST that waited and is refused loses its body, with its connection."""
    person = await sign_in(scene)
    revoke_user(scene.tailchat.store, HOSHINO.sub)
    hang = scene.tailchat.faults.me = Hang()
    scene.clock.now += 40 * MINUTES
    async with RawClient.connect(scene.gate.port) as client:
        fields = {"Cookie": person.cookie, "Content-Length": "5"}
        client.send(request_bytes("/up", method="POST", host=person.host, **fields) + b"hello")
        await hang.started.wait()
        hang.release()
        response = await client.response()
        assert await client.reader.read() == b""

    assert refusal(response) == (401, "session-revoked")
    assert response.value("Connection") == "close"


@pytest.mark.parametrize("body", ["", "hello", "hell"], ids=["none", "whole", "cut off"])
async def test_a_half_closed_client_is_held_as_others_are(scene: Story, body: str) -> None:
    """It gets its response once Tailchat has answered, unless its request is not whole."""
    person = await sign_in(scene)
    hang = scene.tailchat.faults.me = Hang()
    scene.clock.now += HOUR
    length = {"Content_Length": "5"} if body else {}
    method = "POST" if body else "GET"
    before = len(scene.tool.requests)
    async with RawClient.connect(scene.gate.port) as client:
        data = request_bytes(
            "/half", method=method, host=person.host, Cookie=person.cookie, **length
        )
        client.send(data + body.encode())
        client.writer.write_eof()
        await hang.started.wait()
        hang.release()
        found = await heard(client)

    assert found.statuses == ([] if body == "hell" else [200])
    assert not found.reset
    await until(lambda: not connections(scene))
    if body != "hell":
        assert scene.tool.requests[before].body == body.encode()


async def test_a_client_that_leaves_while_it_is_held(scene: Story) -> None:
    """Nothing of its request reaches the tool; the question goes on for the others."""
    person = await sign_in(scene)
    hang = scene.tailchat.faults.me = Hang()
    scene.clock.now += HOUR
    async with RawClient.connect(scene.gate.port) as client:
        client.send(request_bytes("/gone", host=person.host, Cookie=person.cookie))
        await hang.started.wait()
        reset(client.writer)
    await until(lambda: not any(one.busy for one in connections(scene)))
    hang.release()
    await answered(scene.gate)

    last = (await scene.gate.log())[-1]
    assert (last["status"], last["reason"], last["path"]) == (499, "client-gone", "/gone")
    assert last["sub"] == HOSHINO.sub
    assert b"/gone" not in scene.tool.requests[-1].line
    assert counted(scene, "ok") == 1


async def test_a_held_request_is_judged_by_the_configuration_in_force(scene: Story) -> None:
    """What goes on after a reload goes by its rules, and whom it trusts to name the client."""
    person = await sign_in(scene)
    hang = scene.tailchat.faults.me = Hang()
    scene.clock.now += HOUR
    before = scene.gate.generation
    assert before.settings.server.trusted_proxies
    server = before.settings.server.model_copy(update={"trusted_proxies": ()})
    (route,) = before.settings.route
    closed = route.model_copy(update={"path": "/closed", "allow": (f"sub:{BOB.sub}",)})
    settings = before.settings.model_copy(update={"route": (route, closed), "server": server})
    after = await asyncio.to_thread(build, settings, before.process_state)
    responses = []
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(RawClient.connect(scene.gate.port)) for _ in "12"
        ]
        for client, target in zip(clients, ("/open", "/closed"), strict=True):
            fields = {"Cookie": person.cookie, "X-Forwarded-For": "192.0.2.7"}
            client.send(request_bytes(target, host=person.host, **fields))
        await until(lambda: sum(one.busy for one in connections(scene)) == 2)
        await scene.gate.server.swap(after)
        hang.release()
        responses = [await client.response() for client in clients]

    assert [response.status for response in responses] == [200, 403]
    assert scene.tool.requests[-1].value("X-Forwarded-For") == b"127.0.0.1"
    lines = (await scene.gate.log())[-2:]
    assert {(line["path"], line["client"]) for line in lines} == {
        *(("/open", "127.0.0.1"), ("/closed", "127.0.0.1"))
    }
    await until(lambda: scene.gate.server.generations.retired == 0)


async def test_a_gate_that_stops_holds_nobody(scene: Story) -> None:
    """A stop while a request waits for Tailchat ends within the time it has."""
    person = await sign_in(scene)
    hang = scene.tailchat.faults.me = Hang()
    scene.clock.now += HOUR
    async with RawClient.connect(scene.gate.port) as client:
        client.send(request_bytes("/", host=person.host, Cookie=person.cookie))
        await hang.started.wait()
        scene.gate.server.hurry()
        await scene.gate.server.stop()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.response()
    hang.release()


async def test_a_request_that_ends_with_its_session_is_answered_at_once(scene: Story) -> None:
    """A second session beside it that Tailchat has to be asked about keeps it from nothing."""
    begun = asyncio.Event()

    async def never(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    bob = await sign_in(scene, BOB)
    scene.clock.now += 3 * INTERVAL
    person = await sign_in(scene)
    record = person.record
    scene.tool.answer = never
    person.cookie = f"{person.cookie}; {bob.cookie}"
    asking = asyncio.create_task(person.get())
    await begun.wait()
    locks = scene.gate.generation.process_state.locks
    await locks.end_session(record, lifetime=HOUR)

    assert refusal(await asking) == (401, "session-ended")
    assert asked(scene) == 2
