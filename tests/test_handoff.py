"""One sign-in for several tool hosts: the way from the public host to a tool's own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from gatekit import (
    ALICE,
    Clock,
    RawUpstream,
    Reply,
    RunningGate,
    ask,
    cookie_value,
    request_bytes,
)

from tailchat_gate.identity.session import SessionRecord

Start = Callable[..., Any]
WIKI = "wiki.test"
HTML = {"Accept": "text/html"}


@pytest.fixture
async def two_hosts(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate at gate.test with a wiki on an unrelated host."""
    routes = [{"name": "home", "path": "/"}, {"name": "wiki", "host": WIKI}]
    found = await start_gate(upstream.url, route=routes)
    assert isinstance(found, RunningGate)
    return found


async def _get(gate: RunningGate, url: str, cookie: str = "", **fields: str) -> Reply:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    sent = {**HTML, **({"Cookie": cookie} if cookie else {}), **fields}
    reply = await ask(gate.port, request_bytes(target, host=parts.netloc, **sent))
    if "?refused=" in reply.value("Location"):
        assert cookie_value(reply, "tailchat_gate") == ""
        page = f"{parts.scheme}://{parts.netloc}{reply.value('Location')}"
        return await _get(gate, page, cookie, **fields)
    return reply


async def _arrive(gate: RunningGate) -> tuple[str, str]:
    """Return the arrival URL on the wiki, and the login cookie of the browser that asked."""
    first = await _get(gate, f"http://{WIKI}/page?a=1&b=%2F")
    begun = await _get(gate, first.value("Location"))
    login = "tailchat_gate_login=" + cookie_value(begun, "tailchat_gate_login")
    handed = await _get(gate, begun.value("Location"), gate.cookie())
    return handed.value("Location"), login


async def test_a_sign_in_at_the_public_host_reaches_a_tools_host(
    two_hosts: RunningGate, upstream: RawUpstream
) -> None:
    """Who is signed in at public_url passes to another host without seeing a page."""
    first = await _get(two_hosts, f"http://{WIKI}/page?a=1&b=%2F")
    assert first.value("Location").startswith(f"http://{WIKI}/oauth2/start?rd=/page%3Fa%3D1")
    arrival, login = await _arrive(two_hosts)
    assert arrival.startswith(f"http://{WIKI}/oauth2/arrive?pass=")

    done = await _get(two_hosts, arrival, login)

    assert (done.status, done.value("Location")) == (303, "/page?a=1&b=%2F")
    session = "tailchat_gate=" + cookie_value(done, "tailchat_gate")
    reply = await _get(two_hosts, f"http://{WIKI}/page", session)
    assert reply.status == 200
    assert upstream.requests[-1].value("X-Tailchat-Sub") == ALICE.sub.encode()


async def test_a_session_of_one_host_is_no_good_on_another(two_hosts: RunningGate) -> None:
    """A cookie carried from one host to the other does not open there."""
    arrival, login = await _arrive(two_hosts)
    done = await _get(two_hosts, arrival, login)
    wiki = "tailchat_gate=" + cookie_value(done, "tailchat_gate")

    assert (await _get(two_hosts, f"http://{WIKI}/", two_hosts.cookie())).status == 302
    assert (await _get(two_hosts, "http://gate.test/", wiki)).status == 302
    assert (await _get(two_hosts, "http://gate.test/", two_hosts.cookie())).status == 200


async def test_a_pass_is_for_one_browser(two_hosts: RunningGate) -> None:
    """A pass in another browser, or in one that keeps no cookies, opens nothing."""
    arrival, _ = await _arrive(two_hosts)
    other = "tailchat_gate_login=" + "A" * 43

    stolen = await _get(two_hosts, arrival, other)
    bare = await _get(two_hosts, arrival)

    assert (stolen.status, cookie_value(stolen, "tailchat_gate")) == (400, "")
    assert b"login-other-browser" in stolen.body
    assert b"cookies-blocked" in bare.body


async def test_a_pass_is_for_one_host(two_hosts: RunningGate) -> None:
    """A pass for the wiki is refused anywhere else."""
    arrival, login = await _arrive(two_hosts)

    reply = await _get(two_hosts, arrival.replace(WIKI, "gate.test"), login)

    assert (reply.status, b"login-state-forged" in reply.body) == (400, True)


async def test_a_pass_is_good_for_a_minute(two_hosts: RunningGate, clock: Clock) -> None:
    """After 60 seconds a pass is refused, with a way to start again."""
    arrival, login = await _arrive(two_hosts)
    clock.now += 61

    reply = await _get(two_hosts, arrival, login)

    assert (reply.status, b"login-state-expired" in reply.body) == (400, True)
    assert b"/oauth2/start?rd=/page" in reply.body


async def test_a_forged_pass_is_refused(two_hosts: RunningGate) -> None:
    """What this gate did not seal opens nothing."""
    for value in ("", "x", "A" * 200):
        reply = await _get(
            two_hosts,
            f"http://{WIKI}/oauth2/arrive?pass={value}",
            "tailchat_gate_login=" + "A" * 43,
        )
        assert reply.status == 400
        assert cookie_value(reply, "tailchat_gate") == ""


async def test_without_a_session_the_public_host_asks_tailchat(two_hosts: RunningGate) -> None:
    """Who is signed in nowhere goes to Tailchat, and the way back is kept in the sealed state."""
    first = await _get(two_hosts, f"http://{WIKI}/page")
    begun = await _get(two_hosts, first.value("Location"))

    asked = await _get(two_hosts, begun.value("Location"))

    assert asked.value("Location").startswith("http://127.0.0.1:9/open/auth?")
    query = parse_qs(urlsplit(asked.value("Location")).query)
    assert query["redirect_uri"] == ["http://gate.test/oauth2/callback"]
    assert WIKI not in asked.value("Location")


async def test_an_unknown_host_signs_in_at_the_public_one(start_gate: Start) -> None:
    """A name that no route has is sent to public_url; its sessions are the public host's."""
    gate = await start_gate(route=[{"name": "home"}])

    reply = await _get(gate, "http://other.test/x")

    assert reply.value("Location") == "http://gate.test/oauth2/start?rd=/x"


def _deletes_session(reply: Reply) -> bool:
    return any(
        line.startswith('tailchat_gate=""; ') and "Max-Age=0" in line
        for line in reply.values("Set-Cookie")
    )


async def _sign_out_at_the_wiki(gate: RunningGate) -> Reply:
    arrival, login = await _arrive(gate)
    done = await _get(gate, arrival, login)
    request = request_bytes(
        "/oauth2/sign_out",
        method="POST",
        host=WIKI,
        Cookie="tailchat_gate=" + cookie_value(done, "tailchat_gate"),
        Sec_Fetch_Site="same-origin",
        Content_Length="0",
    )
    return await ask(gate.port, request)


async def test_signing_out_on_a_tools_host_ends_the_public_session_too(
    two_hosts: RunningGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One click ends both: the tool's host passes on to the public one, which asks no more."""
    monkeypatch.setattr("gatekit.SessionRecord.begin", _with_one_sid(SessionRecord.begin))
    out = await _sign_out_at_the_wiki(two_hosts)
    assert _deletes_session(out)
    assert out.value("Location").startswith("http://gate.test/oauth2/sign_out?pass=")

    done = await _get(two_hosts, out.value("Location"), two_hosts.cookie())

    assert (done.status, done.value("Location")) == (303, "/oauth2/sign_out")
    assert _deletes_session(done)


async def test_a_sign_out_pass_ends_no_other_session(
    two_hosts: RunningGate, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass of another session, an old one and a forged one only show the confirming page."""
    out = await _sign_out_at_the_wiki(two_hosts)
    others = await _get(two_hosts, out.value("Location"), two_hosts.cookie())
    forged = await _get(two_hosts, "http://gate.test/oauth2/sign_out?pass=x", two_hosts.cookie())
    monkeypatch.setattr("gatekit.SessionRecord.begin", _with_one_sid(SessionRecord.begin))
    old = (await _sign_out_at_the_wiki(two_hosts)).value("Location")
    clock.now += 61
    late = await _get(two_hosts, old, two_hosts.cookie())

    for reply in (others, forged, late):
        assert (reply.status, _deletes_session(reply)) == (200, False)
        assert b"csrf" in reply.body


def _with_one_sid(begin: Callable[..., SessionRecord]) -> Callable[..., SessionRecord]:
    """Make sessions that are one and the same, as a browser has it."""

    def make(*arguments: Any, **named: Any) -> SessionRecord:  # noqa: ANN401 - as begin
        return replace(begin(*arguments, **named), sid="one")

    return make


async def test_the_public_root_without_a_tool_tells_who_is_signed_in(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """Where no route is at "/", a page navigation there leads to the who-am-I page."""
    gate = await start_gate(upstream.url, route=[{"name": "wiki", "host": WIKI}])

    page = await _get(gate, "http://gate.test/")
    call = await ask(gate.port, request_bytes("/"))

    assert page.value("Location") == "http://gate.test/oauth2/userinfo"
    assert (call.status, call.json["error"]) == (404, "no-route")
