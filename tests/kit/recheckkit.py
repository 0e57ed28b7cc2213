"""A setting in which Tailchat is asked again about sessions, and a person in it."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from accounts import user_named
from gatekit import Clock, Response, RunningGate, ask, cookie_value, request_bytes
from storykit import Story, served, story
from visitor import Visitor

from tailchat_gate.demo.store import App
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.demo.users import User
from tailchat_gate.identity.oauth.client import TailchatClient
from tailchat_gate.identity.recheck import RecheckTerms
from tailchat_gate.identity.rechecker import Rechecker
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.cookie_fields import CookieNames
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sessions.session_cookie import Lifetimes, SessionCookie
from tailchat_gate.identity.sessions.stored import SessionVault, StoredSessions
from tailchat_gate.identity.sign_ins import SignIns
from tailchat_gate.identity.token_refresh import RefreshTokens
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.log import FaultLog
from tailchat_gate.people.rechecks import PeopleRechecks, TicketRechecks
from tailchat_gate.state.memory import MemoryStore
from tailchat_gate.state.store import Store

OFFLINE = "openid profile offline_access"
MINUTES = 60
INTERVAL = 15 * MINUTES
HOUR = 3600
DAY = 24 * HOUR
HOSHINO = user_named("hoshino")
BOB = user_named("bob")
HTML = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}


@asynccontextmanager
async def rechecked(
    log_file: Path,
    clock: Clock,
    *,
    outage: str = "keep",
    scope: str = OFFLINE,
    **sections: Any,  # noqa: ANN401 - as in storykit.story
) -> AsyncIterator[Story]:
    """Set the scene with rechecks every 15 minutes, in sessions of 13 days.

    Every client on this machine may ask as a proxy in front.
    """
    session = {"recheck": "15m", "recheck_outage": outage, "lifetime": "13d"}
    sections["session"] = {**session, **sections.pop("session", {})}
    sections["server"] = {"trusted_proxies": ["127.0.0.1"], **sections.pop("server", {})}
    sections["tailchat"] = {"scope": scope, **sections.pop("tailchat", {})}
    async with story(log_file, clock, **sections) as found:
        yield found


def refresh_tokens(
    client: TailchatClient, clock: Clock, store: Store | None = None
) -> RefreshTokens:
    """Return what refreshes tokens, as one process of those that share a store."""
    store = store or MemoryStore(clock)
    keys = KeyRing([b"a secret of the tests, of 32 bytes"], "refresh")
    vault = SessionVault(StoredSessions(store, clock), keys, DAY)
    return RefreshTokens(client, store, keys=keys, vault=vault, clock=clock)


def _client(port: int, clock: Clock) -> TailchatClient:
    return TailchatClient(
        api_url=f"http://127.0.0.1:{port}",
        client_id="tc_1",
        client_secret="secret",
        redirect_uri="http://gate.test/oauth2/callback",
        clock=clock,
    )


@asynccontextmanager
async def stand_in_and_client(
    clock: Clock,
) -> AsyncIterator[tuple[StandInTailchat, TailchatClient]]:
    """Serve a Tailchat, and yield it with what asks it."""
    tailchat = StandInTailchat(apps=[App("tc_1", "secret", ())], clock=clock)
    async with served(tailchat.app()) as port:
        client = _client(port, clock)
        try:
            yield tailchat, client
        finally:
            await client.close()


def unasked() -> Rechecker:
    """Return a rechecker that never asks."""
    client = _client(9, Clock())
    return Rechecker(
        RecheckTerms(math.inf, "keep"),
        client,
        sign_ins=SignIns(),
        tokens=refresh_tokens(client, Clock()),
        end=lambda _: None,
        timeout=1.0,
        clock=Clock(),
        observe=lambda _: None,
        audit=Audit(Clock()),
        faults=FaultLog(Clock()),
    )


def rechecker_of(gate: RunningGate) -> Rechecker:
    """Return what asks Tailchat again in a gate."""
    looks = gate.generation.gate.authorizer.sessions.rechecker
    assert isinstance(looks, TicketRechecks)
    assert isinstance(looks.inner, PeopleRechecks)
    return looks.inner.rechecker


async def answered(gate: RunningGate) -> None:
    """Wait for every question to Tailchat that is under way."""
    rechecker = rechecker_of(gate)
    while rechecker._tasks:
        await asyncio.wait(rechecker._tasks)
        await asyncio.sleep(0)


def record_in(gate: RunningGate, cookie: str, host: str = "") -> SessionRecord:
    """Return what is sealed in a session cookie of a tool's host, "" for the public one."""
    settings = gate.generation.settings
    purpose = f"session {host}" if host else "session"
    keys = KeyRing([s.get_secret_value().encode() for s in settings.session.secrets], purpose)
    names = CookieNames.for_origin(settings.server.public_url)
    found = SessionCookie(keys, names, Lifetimes(1.0, 0.0), gate.clock).open(
        cookie.partition("tailchat_gate=")[2]
    )
    assert found is not None
    return found


def kept_cookie(response: Response) -> str:
    """Return the session cookie that an answer sets, as it is sent back; "" where it sets none."""
    value = cookie_value(response, "tailchat_gate")
    return f"tailchat_gate={value}" if value else ""


@dataclass
class Person:
    """Somebody signed in on one host, with the session cookie that the gate set last."""

    scene: Story
    cookie: str
    host: str
    renewals: list[str] = field(default_factory=list)

    async def get(self, target: str = "/", *, method: str = "GET", **fields: str) -> Response:
        """Ask the gate for something and keep the session cookie that comes back."""
        sent = request_bytes(
            target,
            method=method,
            host=self.host,
            Cookie=self.cookie,
            **{name: value for name, value in fields.items() if value},
        )
        response = await ask(self.scene.gate.port, sent, to_head=method == "HEAD")
        self.keep(response)
        return response

    async def asked_for(self, target: str = "/", **fields: str) -> Response:
        """Have a proxy in front ask whether the person may have something."""
        method = fields.pop("method", "GET")
        return await self.get(
            "/oauth2/auth",
            X_Forwarded_Method=method,
            X_Forwarded_Host=self.host,
            X_Forwarded_Uri=target,
            **fields,
        )

    async def page(self, target: str = "/") -> Response:
        """Open a page."""
        return await self.get(target, Accept=HTML["Accept"], Sec_Fetch_Mode="navigate")

    def keep(self, response: Response) -> None:
        """Keep the session cookie that an answer sets."""
        cookie = kept_cookie(response)
        if cookie:
            self.cookie = cookie
            self.renewals += response.values("Set-Cookie")

    @property
    def record(self) -> SessionRecord:
        """What the cookie holds."""
        public = self.host == urlsplit(self.scene.url).netloc
        return record_in(
            self.scene.gate, self.cookie, "" if public else self.host.partition(":")[0]
        )


def at_tool(scene: Story, visitor: Visitor, host: str = "") -> Person:
    """Return who a browser is on a tool's host, "" for the public one."""
    url = scene.url.replace("127.0.0.1", host) if host else scene.url
    value = visitor.cookies(url)["tailchat_gate"]
    return Person(scene, f"tailchat_gate={value}", urlsplit(url).netloc)


async def sign_in(scene: Story, user: User = HOSHINO) -> Person:
    """Sign a user in at the public host."""
    async with scene.visitor() as visitor:
        page = await visitor.sign_in(f"{scene.url}/", user.email, user.password)
        assert (page.status, page.url) == (200, f"{scene.url}/")
        return at_tool(scene, visitor)


async def sign_in_at(scene: Story, host: str) -> tuple[Person, Person]:
    """Sign in at a tool's host; return the person on the public host, and on that one."""
    url = scene.url.replace("127.0.0.1", host)
    async with scene.visitor() as visitor:
        page = await visitor.sign_in(f"{url}/", HOSHINO.email, HOSHINO.password)
        assert (page.status, page.url) == (200, f"{url}/")
        return at_tool(scene, visitor), at_tool(scene, visitor, host)


def nickname(scene: Story) -> str:
    """Return the nickname that the tool was told last."""
    return (scene.tool.requests[-1].value("X-Tailchat-Nickname") or b"").decode()


def asked(scene: Story) -> int:
    """Return how often Tailchat was asked for a profile, logins included."""
    return scene.tailchat.seen["me"].count


def refusal(response: Response) -> tuple[int, str]:
    """Return status and reason of a refusal for a program."""
    return response.status, response.json["error"]


def counted(scene: Story, outcome: str) -> int:
    """Return how many rechecks ended so."""
    return scene.gate.generation.process_state.metrics._rechecks[outcome]


async def recheck(person: Person) -> None:
    """Let a recheck become due, send a request that starts it, and wait for its answer."""
    person.scene.clock.now += INTERVAL
    await person.get()
    await answered(person.scene.gate)
