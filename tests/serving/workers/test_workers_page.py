"""The admin page of a gate with two workers is one page: at the parent, and by a route in each."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from dashboardkit import BOB, DASH, SECTIONS, WIKI, Desk, explain_url
from gatekit import (
    ALICE,
    SUB,
    RawClient,
    RawUpstream,
    Received,
    ask,
    request_bytes,
    sealed,
    until,
)
from workerkit import Workers, workers

from tailchat_gate.config.load import load
from tailchat_gate.config.model import Settings
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.sessions.record import SessionRecord

_PEOPLE = 16
_SERVER = {"workers": 2, "admin_orders": True, "public_url": "http://gate.test"}


class Scene:
    """Two workers, whom Bob may use and order; what a tool got waits until it is let go."""

    def __init__(self, found: Workers, settings: Settings, upstream: RawUpstream) -> None:
        self.found = found
        self._settings = settings
        self.upstream = upstream
        self.listener = Desk(found.gate.admin_port, f"127.0.0.1:{found.gate.admin_port}")

    def cookie(self, host: str, person: Profile) -> str:
        """Return the Cookie value of a session that every worker accepts."""
        now = time.time()
        record = SessionRecord.begin(person, now=now, login="x", password_at=int(now))
        return sealed(self._settings, time.time, record, f"session {host}")

    @property
    def route(self) -> Desk:
        """Bob at the page's route, on a connection to one of the workers."""
        return Desk(self.found.gate.port, DASH, self.cookie(DASH, BOB))

    def page(self, person: Profile) -> bytes:
        """Return a person's request to the tool."""
        return request_bytes("/", host=WIKI, Cookie=self.cookie(WIKI, person), Connection="close")

    async def statuses(self, person: Profile) -> set[int]:
        """Return what a person gets at the tool, on many connections at once."""
        data = self.page(person)
        found = await asyncio.gather(*(ask(self.found.gate.port, data) for _ in range(_PEOPLE)))
        return {one.status for one in found}

    async def until_all(self, person: Profile, status: int) -> None:
        """Wait until a person gets a status from each worker."""
        await self.found.each_status(self.page(person), status)

    @asynccontextmanager
    async def live(self) -> AsyncIterator[None]:
        """Have both workers wait for the tool, for Bob, until the block ends."""
        cookie, before = self.cookie(WIKI, BOB), len(self.upstream.requests)
        answer, over = self.upstream.answer, asyncio.Event()

        async def wait(_: Received, __: asyncio.StreamReader, ___: asyncio.StreamWriter) -> None:
            await over.wait()

        self.upstream.answer = wait
        try:
            async with AsyncExitStack() as stack:
                for _ in range(_PEOPLE):
                    client = await stack.enter_async_context(
                        RawClient.connect(self.found.gate.port)
                    )
                    client.send(request_bytes("/wait", host=WIKI, Cookie=cookie))
                await until(lambda: len(self.upstream.requests) == before + _PEOPLE, within=60)
                yield
        finally:
            over.set()
            self.upstream.answer = answer


async def test_one_page_of_all_workers(tmp_path: Path, upstream: RawUpstream) -> None:
    """Figures are sums, live connections those of all; an order is in force in all of them.

    Events come for what another process did. A worker that hangs is a notice, and holds up neither
    pages nor orders.
    """
    async with workers(tmp_path, upstream, **{**SECTIONS, "server": _SERVER}) as found:
        settings = await asyncio.to_thread(lambda: load(found.config, {}).settings)
        scene = Scene(found, settings, upstream)
        await _figures(scene)
        await _orders(scene)
        await _events(scene)
        await _hang(scene)
        await found.end()


async def _figures(scene: Scene) -> None:
    for _ in range(2):
        assert await scene.statuses(BOB) == {200}
    assert await scene.statuses(ALICE) == {403}
    for desk in (scene.listener, scene.route):
        row = (await desk.text("/")).partition("<bdi>wiki</bdi>")[2]
        assert f"wiki: {3 * _PEOPLE} requests in ten minutes" in row
        assert "<bdi>Alice</bdi>" in (text := await desk.text("/people"))
        assert "Nobody has a request" in text
        assert "let through: signed-in" in await desk.text(
            explain_url(f"http://{WIKI}/x", f"sub:{BOB.sub}")
        )
        assert (
            "<code>2</code>"
            in (await desk.text("/configuration"))
            .partition("<code>server.workers</code>")[2]
            .partition("</tr>")[0]
        )


async def _orders(scene: Scene) -> None:
    for desk in (scene.listener, scene.route):
        async with scene.live():
            live = (await desk.text("/people")).partition('id="live"')[2]
            assert live.count("<bdi>Bob</bdi>") == _PEOPLE
            said, page = await desk.ordered("end-all", who=BOB.sub)
            assert said == "ended"
            # Those of all workers together.
            assert f"Done: <bdi>{_PEOPLE}</bdi> connections of" in page
            async with asyncio.timeout(60):
                while "Nobody has a request" not in page:
                    page = await desk.text("/people")
    assert await scene.route.order("end", id="none") == "unchanged"

    assert await scene.listener.order("lock", target=f"sub:{BOB.sub}") == "locked-forever"
    assert "sub:" + BOB.sub in (await scene.listener.text("/people")).partition('id="locks"')[2]
    await scene.until_all(BOB, 403)
    assert await scene.listener.order("unlock", target=f"sub:{BOB.sub}") == "unlocked"
    await scene.until_all(BOB, 200)
    given = {"sub": f"sub:{SUB}", "route": "wiki", "for": "8h"}
    assert await scene.route.order("grant", **given) == "granted"
    await scene.until_all(ALICE, 200)
    said, page = await scene.listener.ordered("reload", page="configuration")
    assert (said, "The file is in force." in page) == ("reloaded", True)
    assert await scene.found.gate.metric("gate_generation") == 2


async def _events(scene: Scene) -> None:
    listener, route = scene.listener, scene.route
    async with AsyncExitStack() as stack:
        streams = []
        for desk in (listener, route):
            client = await stack.enter_async_context(RawClient.connect(desk.port))
            cookie = {"Cookie": desk.cookie} if desk.cookie else {}
            client.send(request_bytes("/events", host=desk.host, **cookie))
            await client.reader.readuntil(b"retry: 5000\n\n")
            streams.append(client)
        assert await listener.order("lock", target="token:ci") == "locked-forever"
        for client in streams:
            await client.reader.readuntil(b"event: changed\ndata: 1\n\n")


async def _hang(scene: Scene) -> None:
    listener = scene.listener
    first, _ = await scene.found.pids()
    os.kill(first, signal.SIGSTOP)
    try:
        assert "worker 1: does not answer" in await listener.text("/")
        # The other one takes orders meanwhile, once it has read of the lock.
        async with asyncio.timeout(60):
            while await listener.order("unlock", target="token:ci") != "unlocked":
                pass
        assert "token:ci" not in await listener.text("/people")
    finally:
        os.kill(first, signal.SIGCONT)
    foreign = {"order": "lock", "target": "all", "csrf": "0" * 48, "page": "people"}
    assert (await listener.send(foreign)).status == 403
