"""Rate limits over real sockets: who gets 429, on which paths, and what it says."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from edgekit import TOKEN
from gatekit import (
    SUB,
    Clock,
    RawClient,
    RawUpstream,
    Response,
    RunningGate,
    ask,
    request_bytes,
    until,
)
from reloadkit import file_gate
from storykit import story, until_callback
from visitor import NAVIGATION
from websocketkit import SWITCH, UPGRADE

from tailchat_gate.identity.machine_tokens import hash_of
from tailchat_gate.identity.oauth.responses import Profile

Start = Callable[..., Any]
BOB: Final = Profile("660000000000000000000002", "Bob", "0001", "")
#: No time passes for it: what is taken is not given back within a test.
TWICE: Final = "2/day"
PAGE: Final = {name.replace("-", "_"): value for name, value in NAVIGATION.items()}


async def get(gate: RunningGate, target: str = "/", **fields: str) -> Response:
    """Ask the gate on a connection of its own."""
    return await ask(gate.port, request_bytes(target, **fields))


async def statuses(gate: RunningGate, count: int, target: str = "/", **fields: str) -> list[int]:
    """Return the statuses of so many requests, one after another."""
    return [(await get(gate, target, **fields)).status for _ in range(count)]


def _waits(response: Response, seconds: int) -> bool:
    """Tell whether Retry-After is what a limit says, less what the test has taken so far."""
    return seconds - 1000 < int(response.value("Retry-After")) <= seconds


def _counted(gate: RunningGate, limit: str) -> int:
    return gate.generation.process_state.rates.buckets.refused[limit]


async def test_a_person_is_limited_over_all_tools(start_gate: Start, upstream: RawUpstream) -> None:
    """The third request gets 429 with Retry-After and JSON, at any tool; other people pass."""
    gate = await start_gate(
        upstream.url,
        limits={"requests_per_person": TWICE},
        route=[{"name": "wiki"}, {"name": "docs", "path": "/docs"}],
    )
    alice, bob = gate.cookie(), gate.cookie(BOB)
    passed = [
        (await get(gate, "/", Cookie=alice)).status,
        (await get(gate, "/docs", Cookie=alice)).status,
    ]
    refused = await get(gate, "/", Cookie=alice)
    other = await get(gate, "/", Cookie=bob)
    own = await statuses(gate, 3, "/oauth2/userinfo", Cookie=alice)

    assert (passed, other.status, own) == ([200, 200], 200, [200] * 3)
    assert refused.status == 429
    assert _waits(refused, 43_200)
    assert refused.json["error"] == "rate-limited"
    assert len(upstream.requests) == 3
    line = (await gate.log())[2]
    assert (line["status"], line["reason"], line["route"]) == (429, "rate-limited", "wiki")
    assert (line["sub"], line["limit"]) == (SUB, "requests_per_person")
    metrics = gate.generation.process_state.metrics.render()
    assert b'gate_rate_limited_total{limit="requests_per_person"} 1.0' in metrics
    assert b'gate_rate_limited_total{limit="logins"} 0.0' in metrics
    assert b'gate_decisions_total{reason="rate-limited",route="wiki"} 1.0' in metrics


@pytest.mark.parametrize(
    ("language", "title"), [("en", "Too many requests"), ("zh-CN", "请求过于频繁")]
)
async def test_a_browser_gets_a_page(
    start_gate: Start, upstream: RawUpstream, language: str, title: str
) -> None:
    """A page in the visitor's language, with a link to the same address."""
    gate = await start_gate(upstream.url, limits={"requests_per_person": "1/day"})
    fields = {**PAGE, "Cookie": gate.cookie(), "Accept_Language": language}
    await get(gate, "/a?b=c", **fields)
    page = await get(gate, "/a?b=c", **fields)
    frame = await get(gate, "/a?b=c", **{**fields, "Sec_Fetch_Dest": "iframe"})

    assert page.status == frame.status == 429
    assert _waits(page, 86_400)
    assert _waits(frame, 86_400)
    assert title in page.body.decode()
    assert 'href="http://gate.test/a?b=c"' in page.body.decode()


async def test_a_machine_is_limited_by_its_token(start_gate: Start, upstream: RawUpstream) -> None:
    """The limit of tokens is not that of people, and each token has its own."""
    gate = await start_gate(
        upstream.url,
        limits={"requests_per_token": TWICE},
        token=[{"name": "ci", "hash": hash_of(TOKEN)}],
        route=[{"name": "wiki", "allow": ["signed-in", "token:ci"]}],
    )
    machine = await statuses(gate, 3, Authorization=f"Bearer {TOKEN}")
    person = await statuses(gate, 3, Cookie=gate.cookie())

    assert (machine, person) == ([200, 200, 429], [200] * 3)
    assert _counted(gate, "requests_per_token") == 1


async def test_a_tool_is_limited_for_all_and_for_each_client(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """`rate` counts the tool's requests, `rate_per_client` each client's; refusals do not count."""
    gate = await start_gate(
        upstream.url,
        server={"trusted_proxies": ["127.0.0.1"]},
        route=[
            {"name": "all", "path": "/all", "allow": ["public"], "rate": "3/day"},
            {"name": "each", "path": "/each", "allow": ["public"], "rate_per_client": TWICE},
            {"name": "bobs", "path": "/bobs", "allow": [f"sub:{BOB.sub}"], "rate": TWICE},
        ],
    )
    alice, bob = gate.cookie(), gate.cookie(BOB)
    of_all = [
        *await statuses(gate, 2, "/all", X_Forwarded_For="192.0.2.1"),
        *await statuses(gate, 2, "/all", X_Forwarded_For="192.0.2.2"),
    ]
    of_one = await statuses(gate, 3, "/each", X_Forwarded_For="2001:db8::1")
    same = await statuses(gate, 1, "/each", X_Forwarded_For="2001:db8::2")
    other = await statuses(gate, 3, "/each", X_Forwarded_For="192.0.2.2")
    # Signed in, from the same addresses.
    person = await statuses(gate, 3, "/each", X_Forwarded_For="192.0.2.2", Cookie=alice)
    denied = await statuses(gate, 3, "/bobs", Cookie=alice)
    allowed = await statuses(gate, 3, "/bobs", Cookie=bob)

    assert of_all == [200, 200, 200, 429]
    assert (of_one, same) == ([200, 200, 429], [429])
    assert other == person == allowed == [200, 200, 429]
    assert denied == [403] * 3


async def test_a_websocket_counts_once(start_gate: Start, upstream: RawUpstream) -> None:
    """Opening one is a request; one that is open stays so when the limit is reached."""
    upstream.answer = SWITCH
    gate = await start_gate(upstream.url, limits={"requests_per_person": "1/day"})
    opening = request_bytes("/", Cookie=gate.cookie(), Origin="http://gate.test", **UPGRADE)
    async with RawClient.connect(gate.port) as first:
        first.send(opening)
        assert b" 101 " in await first.head()
        refused = await ask(gate.port, opening)
        first.send(b"\x81\x81abcd\x00")
        await until(lambda: gate.generation.process_state.rates.buckets.refused.total() == 1)

        assert (refused.status, refused.json["error"]) == (429, "rate-limited")
        assert len(gate.generation.process_state.upstream_pools.tunnels) == 1


@pytest.mark.parametrize(
    ("fields", "target", "status"),
    [
        ({"X_Forwarded_Uri": "/page", "X_Forwarded_Host": "gate.test"}, "", 429),
        ({}, "/page", 429),
        ({"X_Original_Url": "http://gate.test/page"}, "", 403),
        (
            {
                "X_Forwarded_Uri": "/page",
                "X_Forwarded_Host": "gate.test",
                "X_Tailchat_Unstripped": "refuse",
            },
            "",
            403,
        ),
    ],
    ids=["traefik", "envoy", "ingress-nginx", "nginx"],
)
async def test_a_proxys_question_counts_as_the_request(
    start_gate: Start,
    upstream: RawUpstream,
    fields: dict[str, str],
    target: str,
    status: int,
) -> None:
    """One limit for requests and questions; nginx hears 403, as it has no use for a 429."""
    gate = await start_gate(
        upstream.url,
        server={"trusted_proxies": ["127.0.0.1"]},
        limits={"requests_per_person": TWICE},
    )
    cookie = gate.cookie()
    before = await statuses(gate, 1, "/page", Cookie=cookie)
    asked = [await get(gate, f"/oauth2/auth{target}", Cookie=cookie, **fields) for _ in range(2)]
    after = await statuses(gate, 1, "/page", Cookie=cookie)

    assert (before, after) == ([200], [429])
    assert [response.status for response in asked] == [200 if target else 202, status]
    assert asked[1].json["error"] == "rate-limited"
    assert _waits(asked[1], 43_200)


async def test_a_network_begins_so_many_sign_ins(start_gate: Start, upstream: RawUpstream) -> None:
    """Behind a trusted proxy the visitor's network counts, in IPv6 the whole site's /48."""
    gate = await start_gate(
        upstream.url, server={"trusted_proxies": ["127.0.0.1"]}, limits={"logins": TWICE}
    )
    start = "/oauth2/start?rd=/"
    office = await statuses(gate, 3, start, X_Forwarded_For="192.0.2.1", **PAGE)
    home = await statuses(gate, 1, start, X_Forwarded_For="192.0.2.2", **PAGE)
    site = [
        (await get(gate, start, X_Forwarded_For=f"2001:db8:1:{n}::1", **PAGE)).status
        for n in range(3)
    ]
    page = await get(gate, start, X_Forwarded_For="192.0.2.1", **PAGE, Accept_Language="zh")
    call = await get(gate, start, X_Forwarded_For="192.0.2.1")

    # There is no Tailchat here: what is not limited ends in its own way.
    assert office[2] == site[2] == 429
    assert 429 not in (*office[:2], *home, *site[:2])
    assert "你的网络登录过于频繁" in page.body.decode()
    assert _waits(page, 43_200)
    assert _waits(call, 43_200)
    assert call.json["error"] == "login-rate-limited"
    assert {line.get("limit") for line in await gate.log() if line["status"] == 429} == {"logins"}
    assert _counted(gate, "logins") == 4


async def test_a_callback_over_the_limit_asks_nothing_of_tailchat(
    tmp_path: Path, clock: Clock
) -> None:
    """Its code is not used, and its page is at another address, which no limit is for."""
    async with story(tmp_path / "log", clock, limits={"logins": "1/day"}) as scene:
        async with scene.visitor() as visitor:
            # A callback of nobody's takes the place that the network has.
            stray = await visitor.open(f"{scene.url}/oauth2/callback?code=x&state=y")
            url = await until_callback(visitor, scene)
            page = await visitor.open(url)
            again = await visitor.open(page.url)
        asked = scene.tailchat.seen["token"].count

    assert stray.status == 400
    assert (page.status, again.status, asked) == (429, 429, 0)
    assert "refused=" in page.url
    assert "code=" not in page.url
    assert 80_000 < int(page.headers["Retry-After"]) <= 86_400
    assert "Too many sign-ins from your network" in page.text


async def test_an_office_signs_in_at_once(start_gate: Start, upstream: RawUpstream) -> None:
    """By default 400 people of one address, each with three tabs, are not limited."""
    gate = await start_gate(upstream.url)
    start = request_bytes("/oauth2/start?rd=/")

    async def tab() -> int:
        async with RawClient.connect(gate.port) as client:
            found = set()
            for _ in range(100):
                client.send(start)
                found.add((await client.response()).status)
        assert len(found) == 1
        return found.pop()

    assert set(await asyncio.gather(*(tab() for _ in range(12)))) == {302}
    assert _counted(gate, "logins") == 0
    # Requests have no limit by default, and then nothing is asked.
    assert gate.generation.gate.authorizer.rates is None


async def test_a_reload_gives_nothing_back(tmp_path: Path, upstream: RawUpstream) -> None:
    """Who has reached a limit waits on through a reload; another rate begins from nothing."""
    async with file_gate(tmp_path, upstream.url, limits={"requests_per_person": "1/day"}) as file:
        gate = file.gate
        cookie = gate.cookie()
        before = await statuses(gate, 2, Cookie=cookie)
        await file.change(limits={"requests_per_person": "1/day"}, pages={"contact": "admin"})
        same = await statuses(gate, 1, Cookie=cookie)
        await file.change(limits={"requests_per_person": "3/day"})
        other = await statuses(gate, 4, Cookie=cookie)

    assert (before, same, other) == ([200, 429], [429], [200, 200, 200, 429])
