"""One sign-in for several tool hosts: the way from the public host to a tool's own."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from gatekit import (
    ALICE,
    SECRET,
    SUB,
    Clock,
    RawUpstream,
    Response,
    RunningGate,
    ask,
    cookie_value,
    login_cookie,
    request_bytes,
)
from recheckkit import unasked

from tailchat_gate.identity.host_sessions import CAPACITY, HostSessions
from tailchat_gate.identity.oauth.login import safe_return_to
from tailchat_gate.identity.revocation.state import Lock, RevocationState
from tailchat_gate.identity.sessions.cookie_fields import CookieNames
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sessions.session_cookie import Lifetimes
from tailchat_gate.identity.sites import Sites

Start = Callable[..., Any]
NAMES = CookieNames.for_origin("http://gate.test")
WIKI = "wiki.test"
HTML = {"Accept": "text/html"}


@pytest.fixture
async def two_hosts(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate at gate.test with a wiki on an unrelated host."""
    routes = [{"name": "home", "path": "/"}, {"name": "wiki", "host": WIKI}]
    found = await start_gate(upstream.url, route=routes)
    assert isinstance(found, RunningGate)
    return found


async def _get(gate: RunningGate, url: str, cookie: str = "", **fields: str) -> Response:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    sent = {**HTML, **({"Cookie": cookie} if cookie else {}), **fields}
    response = await ask(gate.port, request_bytes(target, host=parts.netloc, **sent))
    if "?refused=" in response.value("Location"):
        assert cookie_value(response, "tailchat_gate") == ""
        page = f"{parts.scheme}://{parts.netloc}{response.value('Location')}"
        return await _get(gate, page, cookie, **fields)
    return response


async def _arrive(gate: RunningGate, host: str = WIKI, *, more: str = "") -> tuple[str, str]:
    """Return the arrival URL on a host, and the login cookie of the browser that asked.

    `more` are cookies that it has on the public host besides the session.
    """
    first = await _get(gate, f"http://{host}/page?a=1&b=%2F")
    begun = await _get(gate, first.value("Location"))
    login = login_cookie(begun)
    handed = await _get(gate, begun.value("Location"), gate.cookie() + more)
    return handed.value("Location"), login


async def test_who_goes_to_and_fro_shuts_nobody_out(
    two_hosts: RunningGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many passes one visitor has used up, the next one is taken."""
    monkeypatch.setattr(two_hosts.generation.process_state.used_handoffs, "_capacity", 3)
    for _ in range(5):
        arrival, login = await _arrive(two_hosts)
        assert (await _get(two_hosts, arrival, login)).status == 303


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
    response = await _get(two_hosts, f"http://{WIKI}/page", session)
    assert response.status == 200
    assert upstream.requests[-1].value("X-Tailchat-Sub") == ALICE.sub.encode()


async def test_a_language_chosen_at_the_front_door_comes_along(two_hosts: RunningGate) -> None:
    """It is sealed in the pass, counts at the tool's host from then on, and only if chosen."""
    arrival, login = await _arrive(two_hosts, more="; tailchat_gate_language=de")
    assert "language" not in arrival
    done = await _get(two_hosts, arrival, login)
    assert done.status == 303
    assert "tailchat_gate_language=de; HttpOnly; Max-Age=31536000; Path=/; SameSite=Lax" in (
        done.head.decode("latin-1")
    )
    page = await _get(two_hosts, f"http://{WIKI}/oauth2/nothing", "tailchat_gate_language=de")
    assert page.value("Content-Language") == "de"

    arrival, login = await _arrive(two_hosts)
    assert b"language" not in (await _get(two_hosts, arrival, login)).head


async def test_a_session_of_one_host_is_no_good_on_another(two_hosts: RunningGate) -> None:
    """A cookie carried from one host to the other does not open there."""
    arrival, login = await _arrive(two_hosts)
    done = await _get(two_hosts, arrival, login)
    wiki = "tailchat_gate=" + cookie_value(done, "tailchat_gate")

    assert (await _get(two_hosts, f"http://{WIKI}/", two_hosts.cookie())).status == 302
    assert (await _get(two_hosts, "http://gate.test/", wiki)).status == 302
    assert (await _get(two_hosts, "http://gate.test/", two_hosts.cookie())).status == 200


async def test_a_pass_is_for_one_browser(two_hosts: RunningGate) -> None:
    """A pass in another browser, or in one that keeps no cookies, opens nothing.

    Where the browser keeps cookies it is sent for one of its own, once.
    """
    arrival, _ = await _arrive(two_hosts)
    other = "tailchat_gate_login_abcdef=" + "A" * 43

    stolen = await _get(two_hosts, arrival, other)
    begun = await _get(two_hosts, f"http://{WIKI}{stolen.value('Location')}")
    handed = await _get(two_hosts, begun.value("Location"), two_hosts.cookie())
    again = await _get(two_hosts, handed.value("Location"), other)
    bare = await _get(two_hosts, arrival)

    assert (stolen.status, cookie_value(stolen, "tailchat_gate")) == (303, "")
    assert stolen.value("Location") == "/oauth2/start?rd=/page%3Fa%3D1%26b%3D%252F&again=1"
    assert (again.status, cookie_value(again, "tailchat_gate")) == (400, "")
    assert b"login-other-browser" in again.body
    assert b"cookies-blocked" in bare.body


async def test_a_pass_is_for_one_host(two_hosts: RunningGate) -> None:
    """A pass for the wiki is refused anywhere else."""
    arrival, login = await _arrive(two_hosts)

    response = await _get(two_hosts, arrival.replace(WIKI, "gate.test"), login)

    assert (response.status, b"login-state-forged" in response.body) == (400, True)


async def test_a_pass_is_good_for_a_minute(two_hosts: RunningGate, clock: Clock) -> None:
    """After 60 seconds a pass is refused, with a way to start again."""
    arrival, login = await _arrive(two_hosts)
    clock.now += 61

    response = await _get(two_hosts, arrival, login)

    assert (response.status, b"login-state-expired" in response.body) == (400, True)
    assert b"/oauth2/start?rd=/page" in response.body


async def test_a_forged_pass_is_refused(two_hosts: RunningGate) -> None:
    """What this gate did not seal opens nothing."""
    for value in ("", "x", "A" * 200):
        response = await _get(
            two_hosts,
            f"http://{WIKI}/oauth2/arrive?pass={value}",
            "tailchat_gate_login_abcdef=" + "A" * 43,
        )
        assert response.status == 400
        assert cookie_value(response, "tailchat_gate") == ""


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

    response = await _get(gate, "http://other.test/x")

    assert response.value("Location") == "http://gate.test/oauth2/start?rd=/x"


def _deletes_session(response: Response) -> bool:
    return any(
        line.startswith('tailchat_gate=""; ') and "Max-Age=0" in line
        for line in response.values("Set-Cookie")
    )


async def _session(gate: RunningGate, host: str) -> str:
    """Return the Cookie value of a session on a host, got by a sign-in that is carried over."""
    arrival, login = await _arrive(gate, host)
    done = await _get(gate, arrival, login)
    assert (done.status, done.value("Location")) == (303, "/page?a=1&b=%2F")
    return "tailchat_gate=" + cookie_value(done, "tailchat_gate")


async def _sign_out_at(gate: RunningGate, host: str) -> Response:
    arrival, login = await _arrive(gate, host)
    done = await _get(gate, arrival, login)
    request = request_bytes(
        "/oauth2/sign_out",
        method="POST",
        host=host,
        Cookie="tailchat_gate=" + cookie_value(done, "tailchat_gate"),
        Sec_Fetch_Site="same-origin",
        Content_Length="0",
    )
    return await ask(gate.port, request)


async def test_signing_out_on_a_tools_host_ends_the_public_session_too(
    two_hosts: RunningGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One click ends both: the tool's host passes on to the public one, which asks nothing."""
    monkeypatch.setattr("gatekit.SessionRecord.begin", _with_one_sid(SessionRecord.begin))
    out = await _sign_out_at(two_hosts, WIKI)
    assert _deletes_session(out)
    assert out.value("Location").startswith("http://gate.test/oauth2/sign_out?pass=")

    done = await _get(two_hosts, out.value("Location"), two_hosts.cookie())

    assert (done.status, done.value("Location").partition("?done=")[0]) == (303, "/oauth2/sign_out")
    assert _deletes_session(done)


async def test_a_sign_out_pass_ends_no_other_session(
    two_hosts: RunningGate, start_gate: Start, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass of another session, an old one and a forged one only show the confirming page.

    The old one is shown to a gate that knows nothing of the session it ended.
    """
    out = await _sign_out_at(two_hosts, WIKI)
    others = await _get(two_hosts, out.value("Location"), two_hosts.cookie())
    forged = await _get(two_hosts, "http://gate.test/oauth2/sign_out?pass=x", two_hosts.cookie())
    monkeypatch.setattr("gatekit.SessionRecord.begin", _with_one_sid(SessionRecord.begin))
    old = (await _sign_out_at(two_hosts, WIKI)).value("Location")
    clock.now += 61
    another = await start_gate(route=[{"name": "home"}, {"name": "wiki", "host": WIKI}])
    late = await _get(another, old, another.cookie())

    for response in (others, forged, late):
        assert (response.status, _deletes_session(response)) == (200, False)
        assert b"csrf" in response.body


def _with_one_sid(begin: Callable[..., SessionRecord]) -> Callable[..., SessionRecord]:
    """Make sessions that are one and the same, as a browser has it."""

    def make(*arguments: Any, **named: Any) -> SessionRecord:  # noqa: ANN401 - as begin
        return begin(*arguments, **named)._replace(sid="one")

    return make


async def test_the_public_root_without_a_tool_leads_to_the_launcher(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """Where no route is at "/", a page navigation there leads to the person's tools."""
    gate = await start_gate(upstream.url, route=[{"name": "wiki", "host": WIKI}])

    page = await _get(gate, "http://gate.test/")

    assert page.value("Location") == "http://gate.test/oauth2/"


async def test_a_program_at_the_public_root_learns_where_to_sign_in(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """The first call of somebody new gets what one to a tool gets; a form and a session do not."""
    gate = await start_gate(upstream.url, route=[{"name": "wiki", "host": WIKI}])

    call = await ask(gate.port, request_bytes("/"))
    sent = await ask(gate.port, request_bytes("/", method="POST", Content_Length="0"))
    elsewhere = await ask(gate.port, request_bytes("/", host="nowhere.test"))
    signed_in = await ask(gate.port, request_bytes("/", Cookie=gate.cookie()))
    await gate.generation.process_state.locks.order(Lock(f"sub:{SUB}", int(gate.clock()), None, ""))
    locked = await ask(gate.port, request_bytes("/", Cookie=gate.cookie()))

    assert (call.status, call.json["error"]) == (401, "not-signed-in")
    assert call.json["sign_in"] == "http://gate.test/oauth2/sign_in"
    for response in (sent, elsewhere, signed_in):
        assert (response.status, response.json["error"]) == (404, "no-route")
    assert (locked.status, locked.json["error"]) == (403, "locked")


async def test_who_am_i_leads_to_a_tool_only_where_there_is_one(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """On a host without a tool at "/" the button would lead back to the same page."""
    gate = await start_gate(upstream.url, route=[{"name": "wiki", "host": WIKI}])

    here = await _get(gate, "http://gate.test/oauth2/userinfo", cookie=gate.cookie())
    there = await _get(gate, f"http://{WIKI}/oauth2/userinfo", cookie=gate.cookie_for(WIKI))

    assert b"Sign out everywhere" in here.body
    assert b"Go to the tool" not in here.body
    assert b"Go to the tool" in there.body


# Hosts below a wildcard.


@pytest.fixture
async def lab(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate at gate.lab.test with tools on every other name below lab.test."""
    found = await start_gate(
        upstream.url,
        server={"public_url": "http://gate.lab.test"},
        route=[
            {"name": "lab", "host": "*.lab.test"},
            {"name": "wiki", "host": WIKI},
            {"name": "b", "host": "b.lab.test"},
        ],
    )
    assert isinstance(found, RunningGate)
    return found


@pytest.mark.parametrize("host", ["a.lab.test", "x.y.lab.test", "b.lab.test", "x.gate.lab.test"])
async def test_a_sign_in_reaches_every_host_below_a_wildcard(
    lab: RunningGate, upstream: RawUpstream, host: str
) -> None:
    """A name below a wildcard is a host of its own: a sign-in is carried over and holds there."""
    session = await _session(lab, host)

    assert (await _get(lab, f"http://{host}/page", session)).status == 200
    assert (await _get(lab, f"http://{host.upper()}.:80/page", session)).status == 200
    assert [request.value("X-Tailchat-Sub") for request in upstream.requests] == (
        [ALICE.sub.encode()] * 2
    )


async def test_a_session_of_one_host_below_a_wildcard_is_no_good_on_another(
    lab: RunningGate, upstream: RawUpstream
) -> None:
    """Neither a sibling, nor a name below or above, nor the public host takes a host's session."""
    sessions = {host: await _session(lab, host) for host in ("a.lab.test", "b.lab.test", WIKI)}
    sessions["gate.lab.test"] = lab.cookie()
    for of, session in sessions.items():
        for host in (*sessions, "c.lab.test", "x.a.lab.test", "lab.test"):
            response = await _get(lab, f"http://{host}/page", session)
            if host == "lab.test":
                assert response.status == 404
            elif host != of:
                assert response.status == 302, (of, host)
            else:
                assert response.status == 200, of

    assert len(upstream.requests) == len(sessions)


async def test_a_pass_is_for_one_host_below_a_wildcard(lab: RunningGate) -> None:
    """A pass for one name below a wildcard opens nothing on another."""
    arrival, login = await _arrive(lab, "a.lab.test")

    for host in ("c.lab.test", "x.a.lab.test", "b.lab.test", "gate.lab.test"):
        response = await _get(lab, arrival.replace("a.lab.test", host), login)
        assert (response.status, cookie_value(response, "tailchat_gate")) == (400, "")
        assert b"login-state-forged" in response.body


async def test_the_public_host_stays_so_below_a_wildcard(
    lab: RunningGate, upstream: RawUpstream
) -> None:
    """A wildcard that covers public_url's host gives it routes, and no sessions of another kind."""
    asked = await _get(lab, "http://gate.lab.test/page")
    begun = await _get(lab, f"http://gate.lab.test{urlsplit(asked.value('Location')).path}")
    response = await _get(lab, "http://gate.lab.test/page", lab.cookie())

    assert asked.value("Location") == "http://gate.lab.test/oauth2/start?rd=/page"
    assert begun.value("Location").startswith("http://127.0.0.1:9/open/auth?")
    assert response.status == 200
    assert len(upstream.requests) == 1


async def test_signing_out_below_a_wildcard_goes_on_to_the_public_host(lab: RunningGate) -> None:
    """The session of the host ends, and so does the one that would sign in again."""
    out = await _sign_out_at(lab, "a.lab.test")

    assert _deletes_session(out)
    assert out.value("Location").startswith("http://gate.lab.test/oauth2/sign_out?pass=")


@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("a.lab.test", True),
        ("x.y.lab.test", True),
        ("A.Lab.TEST", True),
        ("wiki.test", True),
        ("gate.lab.test", True),
        ("lab.test", False),
        ("badlab.test", False),
        ("a.badlab.test", False),
        (".lab.test", False),
        ("a..lab.test", False),
        ("a.lab.test.", False),
        ("a.lab.test:81", False),
        ("a.lab.test.evil.test", False),
        ("evil.test\\.lab.test", False),
        ("evil.test/.lab.test", False),
        ("evil.test#.lab.test", False),
        ("evil.test?.lab.test", False),
        ("a.lab.test@evil.test", False),
        ("evil.test:80.lab.test", False),
        ("evil.test%2f.lab.test", False),
        ("[::1].lab.test", False),
        ("é.lab.test", False),
        ("x.wiki.test", False),
    ],
)
async def test_a_login_returns_to_covered_hosts_alone(
    lab: RunningGate, host: str, covered: bool
) -> None:
    """A sign-in is handed over to a host that a route covers, by whole labels, and to no other."""
    arrival = quote(f"http://{host}/oauth2/arrive?for={'A' * 43}&rd=/x", safe="")
    url = f"http://gate.lab.test/oauth2/start?rd={arrival}"
    location = (await _get(lab, url, lab.cookie())).value("Location")
    secure = (await _get(lab, url.replace("http%3A", "https%3A"), lab.cookie())).value("Location")

    tool = covered and host != "gate.lab.test"
    assert location.startswith(f"http://{host.lower()}/oauth2/arrive?pass=") == tool
    assert tool or location.startswith("http://127.0.0.1:9/open/auth?")
    assert secure.startswith("http://127.0.0.1:9/open/auth?")
    sites = Sites("http://gate.lab.test", ["*.lab.test", "wiki.test", "b.lab.test"])
    back = safe_return_to(
        f"http://{host}/x?y", public_origin="http://wiki.test", allowed_origins=sites
    )
    assert back == (
        "/" if not covered else "/x?y" if host == WIKI else f"http://{host.lower()}/x?y"
    )


@pytest.mark.parametrize(
    ("public_url", "host", "origin", "tool"),
    [
        ("https://gate.test", "a.lab.test", "https://a.lab.test", True),
        ("https://gate.test:8443", "a.lab.test", "https://a.lab.test:8443", True),
        ("https://gate.test:8443", "lab.test", "https://gate.test:8443", False),
        ("http://[::1]:80", "[::1]", "http://[::1]:80", False),
        ("http://[::1]", "[::1]", "http://[::1]", False),
        ("http://[::1]", "[::2]", "http://[::2]", True),
    ],
)
def test_origins_of_hosts(public_url: str, host: str, origin: str, tool: bool) -> None:
    """A tool's host is served under the scheme and port of public_url, any other under that."""
    sites = Sites(public_url, ["*.lab.test", "[::1]", "[::2]"])

    assert (sites.origin(host), sites.is_tool(host)) == (origin, tool)
    assert (origin in sites) == (tool or "[" in host)
    assert f"{origin}0" not in sites
    assert "" not in sites


@pytest.mark.parametrize("name", ["\xe9", "a b", "a\tb", "<x>", "a:80", "u@a", "A", "a\u017f", ""])
def test_what_is_no_host_is_no_origin(name: str) -> None:
    """A wildcard covers hosts alone: an Origin field may hold any text before its name."""
    assert f"https://{name}.lab.test" not in Sites("https://gate.test", ["*.lab.test"])


def test_sessions_of_any_number_of_hosts_are_bounded() -> None:
    """Of the hosts below a wildcard those asked for last are at hand; the others' sessions stay."""
    sites = Sites("http://gate.test", ["*.lab.test", "b.lab.test"])
    sessions = HostSessions(
        [SECRET.encode()],
        sites,
        names=NAMES,
        lifetimes=Lifetimes(3600, 0),
        clock=Clock(),
        revocation=RevocationState(Clock()),
        rechecker=unasked(),
    )
    record = SessionRecord.begin(ALICE, now=Clock()(), login="")
    first, exact = sessions.at("first.lab.test"), sessions.at("b.lab.test")
    sealed = sessions.at("a.lab.test")._cookie.set(record).partition(";")[0].encode()

    for number in range(CAPACITY + 50):
        sessions.at(f"x{number}.lab.test")
        assert sessions.at("first.lab.test") is first
    assert len(sessions._below) <= CAPACITY
    assert sessions._below.get("a.lab.test") is None
    assert sessions.at("a.lab.test").load_record([sealed]) == record
    assert sessions.at("b.lab.test") is exact
    for host in ("gate.test", "lab.test", "badlab.test", "a..lab.test", "", "other.test"):
        assert sessions.at(host) is sessions.at("gate.test")
