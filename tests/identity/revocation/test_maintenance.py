"""A lock on all is maintenance: everybody is told in one way, before any sign-in."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accounts import user_named
from gatekit import ALICE, START, SUB, Clock, RawUpstream, RunningGate, ask, request_bytes
from gatekit import until as when
from storekit import StoredEntries
from storykit import story
from tunnelkit import opened
from visitor import NAVIGATION

from tailchat_gate.identity.machine_tokens import hash_of, make_token
from tailchat_gate.identity.revocation.state import Lock, Unlock

NOW = int(START)
LOCK = Lock("all", NOW, NOW + 900, "New disks, back at ten <b>sharp</b>")
PAGE = {name.replace("-", "_"): value for name, value in NAVIGATION.items()}
TOKEN = make_token(bytes(32))
HOSHINO = user_named("hoshino")

Start = Callable[..., Any]


@pytest.fixture
async def gate(start_gate: Start, upstream: RawUpstream, tmp_path: Path) -> RunningGate:
    """Return a gate before a tool, a public one and one that machines use."""
    found = await start_gate(
        upstream.url,
        server={"trusted_proxies": ["127.0.0.1"]},
        route=[
            {"name": "tool", "allow": ["signed-in", "token:backup"]},
            {"name": "open", "path": "/open", "allow": ["public"]},
        ],
        token=[{"name": "backup", "hash": hash_of(TOKEN)}],
        state={"path": str(tmp_path)},
    )
    assert isinstance(found, RunningGate)
    return found


async def put(gate: RunningGate, *entries: Lock | Unlock) -> None:
    """Write to the gate's file as another process, and wait until the gate has heard."""
    revocation = gate.generation.process_state.revocation
    before = revocation.version
    stored = StoredEntries(Path(gate.generation.settings.state.path), gate.clock)
    await asyncio.to_thread(stored.append, entries)
    await when(lambda: revocation.version >= before + len(entries))


WHO = {
    "nobody": {},
    "a person": {"Cookie": "session"},
    "a machine": {"Authorization": f"Bearer {TOKEN}"},
}
HOW: dict[str, tuple[str, dict[str, str]]] = {
    "navigation": ("/x", PAGE),
    "fetch": ("/x", {"Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"}),
    "frame": ("/x", {**PAGE, "Sec_Fetch_Dest": "iframe"}),
    "upgrade": ("/ws", {"Connection": "Upgrade", "Upgrade": "websocket"}),
    "question": ("/oauth2/auth", {"X_Forwarded_Uri": "/x", "X_Forwarded_Method": "GET"}),
    "launcher": ("/oauth2/", PAGE),
    "who-am-i": ("/oauth2/userinfo", PAGE),
}


def _fields(gate: RunningGate, who: str, fields: dict[str, str]) -> dict[str, str]:
    own = {"Cookie": gate.cookie()} if who == "a person" else WHO[who]
    return {**fields, **own}


@pytest.mark.parametrize("who", WHO)
async def test_everybody_is_told_the_same_by_every_way_in(
    gate: RunningGate, upstream: RawUpstream, who: str
) -> None:
    """503 with Retry-After, the words of the lock as text, nothing about anybody, no redirect."""
    await put(gate, LOCK)
    for how, (target, fields) in HOW.items():
        if (who, how) == ("a machine", "launcher"):
            continue  # It is for people alone: 404 at any time.
        response = await ask(gate.port, request_bytes(target, **_fields(gate, who, fields)))

        told = response.body.decode()
        assert (how, response.status, response.value("Retry-After")) == (how, 503, "900")
        assert "maintenance" in told or how == "frame"
        assert "back at ten" in told or how == "frame"
        assert not told.startswith("<") or "<b>" not in told
        for fact in (SUB, ALICE.nickname, "backup", "sign_out"):
            assert fact not in told
        assert (response.value("Set-Cookie"), response.value("Location")) == ("", "")
        assert (await gate.log())[-1]["reason"] == "maintenance"
    assert upstream.requests == []


@pytest.mark.parametrize("page", ["start?rd=/x", "sign_in?rd=/x", "frame?rd=/x", "approvals"])
async def test_nobody_is_sent_into_a_sign_in(gate: RunningGate, page: str) -> None:
    """The pages that lead to Tailchat say so instead, and lead back to themselves."""
    await put(gate, LOCK)
    response = await ask(gate.port, request_bytes(f"/oauth2/{page}", **PAGE))

    assert (response.status, response.value("Retry-After")) == (503, "900")
    assert f'href="http://gate.test/oauth2/{page}"' in response.body.decode()
    assert response.value("Set-Cookie") == ""


async def test_a_form_leads_to_the_first_page_of_the_tool(gate: RunningGate) -> None:
    """What takes a form need not be a page, and nothing was passed on."""
    await put(gate, LOCK)
    form = {**PAGE, "Content_Length": "0", "Sec_Fetch_Site": "same-origin"}
    response = await ask(gate.port, request_bytes("/x/save", method="POST", **form))

    assert response.status == 503
    assert 'class="button" href="http://gate.test/"' in response.body.decode()


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_the_page_says_when_it_ends(gate: RunningGate, language: str) -> None:
    """A known end is on the page; without one nothing is made up."""
    await put(gate, LOCK)
    said = await ask(gate.port, request_bytes("/x", **PAGE, Accept_Language=language))
    await put(gate, Lock("all", NOW))
    open_end = await ask(gate.port, request_bytes("/x", **PAGE, Accept_Language=language))

    assert b"2027-01-15 08:15:00 UTC" in said.body
    assert b"<time data-local" not in open_end.body
    assert open_end.value("Retry-After") == "300"


@pytest.mark.parametrize(
    ("lock", "later", "seconds"),
    [
        (Lock("all", NOW, NOW + 900), 899.5, "1"),
        (Lock("all", NOW, NOW + 86_400), 0, "3600"),
        (Lock("all", NOW), 0, "300"),
    ],
)
async def test_retry_after_follows_the_end(
    gate: RunningGate, clock: Clock, lock: Lock, later: float, seconds: str
) -> None:
    """It is the time that is left, an hour at most, because a lock may be lifted earlier."""
    await put(gate, lock)
    clock.now += later

    assert (await ask(gate.port, request_bytes("/x"))).value("Retry-After") == seconds


async def test_proxies_that_take_503_for_a_fault_hear_403(gate: RunningGate) -> None:
    """Nginx makes a 500 of it, and Envoy may be set to let pass what it takes for a fault."""
    await put(gate, LOCK)
    nginx = {"X_Original_Uri": "/x", "X_Original_Method": "GET"}
    asked = await ask(gate.port, request_bytes("/oauth2/auth", **nginx))
    envoy = await ask(gate.port, request_bytes("/oauth2/auth/x", Cookie=gate.cookie()))

    for response in (asked, envoy):
        assert (response.status, response.json["error"]) == (403, "maintenance")
        assert response.value("Retry-After") == "900"


async def test_what_is_public_stays_open(gate: RunningGate, upstream: RawUpstream) -> None:
    """A public tool is for people without a sign-in, as nobody; a machine names itself."""
    await put(gate, LOCK)
    person = await ask(gate.port, request_bytes("/open", Cookie=gate.cookie()))
    machine = await ask(gate.port, request_bytes("/open", Authorization=f"Bearer {TOKEN}"))

    assert (person.status, machine.status) == (200, 503)
    assert upstream.requests[-1].value("X-Tailchat-Sub") is None


async def test_a_lock_of_ones_own_is_still_told(gate: RunningGate) -> None:
    """To wait for the end of the maintenance does not help who is locked out."""
    await put(gate, LOCK, Lock(f"sub:{SUB}", NOW), Lock("token:backup", NOW))
    for who in ("a person", "a machine"):
        response = await ask(gate.port, request_bytes("/x", **_fields(gate, who, {})))
        assert (response.status, response.json["error"]) == (403, "locked")


async def test_nobody_is_among_the_refusals(gate: RunningGate) -> None:
    """It is about nobody: an admin need not change anything for those who came meanwhile."""
    await put(gate, LOCK)
    await ask(gate.port, request_bytes("/x", Cookie=gate.cookie()))

    assert (await gate.log())[-1]["sub"] == SUB
    assert not gate.generation.process_state.audit.refusals


async def test_signing_out_works_and_the_rest_comes_back(gate: RunningGate) -> None:
    """Who wants to leave may; the sessions of the others are good again after it."""
    await put(gate, LOCK)
    confirm = await ask(gate.port, request_bytes("/oauth2/sign_out", Cookie=gate.cookie()))
    await put(gate, Unlock("all", NOW))
    after = await ask(gate.port, request_bytes("/x", Cookie=gate.cookie()))

    assert b'name="csrf"' in confirm.body
    assert after.status == 200


async def test_a_websocket_ends_and_hears_to_come_again(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """It is closed with 1013, try again later, and the reason's word."""
    async with opened(gate, upstream) as tunnel:
        await put(gate, LOCK)
        frame = await tunnel.client.reader.readexactly(15)

    assert frame == b"\x88\x0d\x03\xf5maintenance"
    metrics = gate.generation.process_state.metrics
    await when(lambda: b'gate_live_ended_total{why="maintenance"} 1.0' in metrics.render())


async def test_a_login_that_was_under_way_ends_on_that_page(tmp_path: Path, clock: Clock) -> None:
    """At an address without the code, without a session, and with the way back to the tool."""
    async with (
        story(tmp_path / "log", clock, state={"path": str(tmp_path)}) as scene,
        scene.visitor() as visitor,
    ):
        page = await visitor.open(f"{scene.url}/d")
        await put(scene.gate, LOCK)
        page = await visitor.submit(page, "/login", email=HOSHINO.email, password=HOSHINO.password)
        page = await visitor.submit(page, "/confirm")

        assert (page.status, page.headers["Retry-After"]) == (503, "900")
        assert "503 maintenance" in page.text
        assert HOSHINO.sub not in page.text
        assert "code=" not in str(page.url)
        assert "tailchat_gate" not in visitor.cookies(scene.url)
        metrics = scene.gate.generation.process_state.metrics.render()
        assert b'gate_logins_total{result="maintenance"} 1.0' in metrics
        await put(scene.gate, Unlock("all", NOW))
        (retry,) = [link for link in page.links if "/oauth2/start" in link]
        await visitor.open(retry)

        assert scene.tool.requests[-1].line == b"GET /d HTTP/1.1"
