"""No Location and no link of the gate leads off its origins, whatever a visitor asks to go to."""

# ruff: noqa: RUF005 - a table of many short entries reads best as rows added up

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
from gatekit import ALICE, Clock, RawClient, RawUpstream, Response, RunningGate, login_cookie

from tailchat_gate.identity.oauth.login import open_callback
from tailchat_gate.identity.oauth.login_state import LoginState, browser_hash
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.record import SessionRecord

Start = Callable[..., Any]

LIST = (Path(__file__).parents[2] / "data" / "open-redirects.txt").read_bytes().split(b"\n")[:559]
#: The list has each way out for several hosts, which are all the same to a gate, and some for one
#: that stands for the site itself; a name before an @ is that one here, the likeliest to be let by.
NAMES = re.compile(rb"(?:www\.)?(?:localdomain\.pw|example\.com|google\.com)")
LINES = tuple(
    dict.fromkeys(
        NAMES.sub(b"evil.test", line)
        .replace(b"www.whitelisteddomain.tld", b"gate.test")
        .replace(b"evil.test@", b"gate.test@")
        for line in LIST
    )
)
PUBLIC = "http://gate.test"
TOOL = "http://tool.test"
#: Where a browser may be sent: the gate's own origins, and the one Tailchat of the settings.
OURS = frozenset((PUBLIC, TOOL))
TAILCHAT = "http://127.0.0.1:9/open/auth?"
HTML = b"Accept: text/html\r\n"
#: Requests that a browser here sends before it reads: one of them may be the last that is read.
_AT_ONCE: Final = 8
#: Further targets, in the manner of the list: what follows is each another way out.
MORE = (
    [b"//evil.test", b"///evil.test", b"/\\evil.test", b"\\\\evil.test", b"/%5cevil.test"]
    + [b"/%2fevil.test", b"/%2f%2fevil.test", b"/%252f%252fevil.test", b"/%09/evil.test"]
    + [b"/\t/evil.test", b"/\n/evil.test", b"\t//evil.test", b" //evil.test", b"/ /evil.test"]
    + [b"/.//evil.test", b"/..//evil.test", b"/x/..//evil.test", b"/x/..;//evil.test"]
    + [b"/%2e%2e//evil.test", b"/./%2fevil.test", b"/.%2f/evil.test", b"/;//evil.test"]
    + [b"http:evil.test", b"http:/evil.test", b"http:\\\\evil.test", b"http://evil.test"]
    + [b"https://gate.test", b"http://gate.test.evil.test", b"http://gate.test@evil.test"]
    + [b"http://gate.test:pw@evil.test", b"http://gate.test\\@evil.test", b"http://gate.test:80@e"]
    + [b"http://gate.test%2eevil.test", b"http://gate.test%00.evil.test", b"http://gate.test#@e"]
    + [b"http://gate.test?@evil.test", b"http://gate.test//evil.test", b"http://gate.test/\\evil"]
    + [b"http://evil.test#gate.test", b"http://evil.test?http://gate.test", b"http://[::1]/"]
    + [
        b"http://gate.tes\xc5\xa7",
        "http://gate\u3002test@evil.test".encode(),
        b"http://gate.test:1",
    ]
    + [b"http://tool.test.evil.test/", b"http://tool.test@evil.test/", b"http://tool.testevil/"]
    + [b"http://tool.test//evil.test", b"http://tool.test/%2f/evil.test", b"http://tool.test\\.e"]
    + [b"https://tool.test/", b"http://tool.test:8080/", b"//tool.test/", b"http:tool.test"]
    + [
        b"javascript:alert(1)",
        b"JaVaScRiPt:alert(1)",
        b"java\tscript:alert(1)",
        b"data:text/html,x",
    ]
    + [b"vbscript:x", b"blob:http://gate.test/x", b"file:///etc/passwd", b"about:blank", b"x:y"]
    + ["/\u2028/evil.test".encode(), "/\uff0fevil.test".encode(), "\uff0f\uff0fevil.test".encode()]
    + ["/\u00ad/evil.test".encode(), "/\u200b/evil.test".encode(), b"/\xe2\x80\xae//evil.test"]
    + [b"/\r\nLocation: http://evil.test", b"/%0d%0aLocation:%20http://evil.test", b"/\x00//evil"]
    + [b"?//evil.test", b"#//evil.test", b"", b"/", b"x", b"evil.test", b"@evil.test", b":evil"]
    + [b"/oauth2/start?rd=//evil.test", b"/oauth2/sign_out?rd=//evil.test", b"/OAUTH2/start"]
    + [b"http://tool.test/oauth2/arrive?for=x&rd=//evil.test", b"/oauth2/arrive?for=x&rd=//evil"]
    + [b"http://tool.test/oauth2/arrive?for=x&rd=http://evil.test&a=1&b=2&c=3&d=4"]
    + [b"http://tool.test/oauth2/arrive?for=%C3%A9&rd=/", b"http://tool.test/oauth2/arrive?for=&rd"]
)
ALL = tuple(dict.fromkeys((*LINES, *MORE)))


@dataclass
class Browser:
    """A client that sends one request after another, and connects again if the gate has closed."""

    port: int
    asked: int = 0
    failures: list[str] = field(default_factory=list)
    _client: RawClient | None = None

    async def get(
        self, target: bytes, fields: bytes = HTML, *, host: str = "gate.test"
    ) -> Response:
        """Return the answer to a GET of raw bytes as a target."""
        return (await self.get_each([target], fields, host=host))[0]

    async def get_each(
        self, targets: Sequence[bytes], fields: bytes = HTML, *, host: str = "gate.test"
    ) -> list[Response]:
        """Return the answers to GETs, of which several are sent at once."""
        self.asked += len(targets)
        found: list[Response] = []
        rest = b" HTTP/1.1\r\nHost: " + host.encode() + b"\r\n" + fields + b"\r\n"
        while waiting := targets[len(found) : len(found) + _AT_ONCE]:
            if self._client is None:
                self._client = RawClient(*await asyncio.open_connection("127.0.0.1", self.port))
            self._client.send(b"".join(b"GET " + target + rest for target in waiting))
            for _ in waiting:
                found.append(await self._client.response())
                if found[-1].value("Connection") == "close":
                    self.close()
                    break
        # A refused step of a login is told at an address without its code.
        told = [at for at, one in enumerate(found) if "?refused=" in one.value("Location")]
        pages = [found[at].value("Location").encode() for at in told]
        assert all(page.startswith(b"/oauth2/") for page in pages)
        if told:
            for at, page in zip(told, await self.get_each(pages, fields, host=host), strict=True):
                found[at] = page
        return found

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            self._client.writer.close()
            self._client = None

    def check(self, url: str, base: str, why: object) -> None:
        """Note a URL that would lead a browser away from `base`'s origins."""
        if not _stays(url, base):
            self.failures.append(f"{why!r}: {url!r}")


def _as_browsers_read(url: str, base: str) -> str:
    """Return the origin a URL leads to from `base`, "" for none (URL Standard, basic parser)."""
    text = re.sub(r"[\t\r\n]", "", url.strip("".join(map(chr, range(0x21))))).replace("\\", "/")
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", text)
    if scheme is None:
        if not text.startswith("//"):
            return base
        rest = text
    elif scheme[1].lower() in {"http", "https"}:
        rest = text[scheme.end() :]
    else:
        return ""
    authority = re.split(r"[/?#]", rest.lstrip("/"), maxsplit=1)[0].rpartition("@")[2].lower()
    name = scheme[1].lower() if scheme else base.partition(":")[0]
    return f"{name}://{authority}"


@cache
def _stays(url: str, base: str) -> bool:
    """Tell whether a URL stays on our origins: as it stands, and once decoded by a sloppy server.

    Nothing in it may be a control or white space either: it ends up in a header and in a page.
    """
    if re.search(r"[^!-~]", url):
        return False
    if url.startswith(TAILCHAT):
        return True
    path = re.split(r"[?#]", url, maxsplit=1)[0]
    decoded = (unquote(path), unquote(unquote(path)))
    return all(_as_browsers_read(reading, base) in OURS for reading in (url, *decoded))


@pytest.fixture
async def gate(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate with a tool on any host and one on a host of its own."""
    found = await start_gate(
        upstream.url,
        # Thousands of steps of sign-ins come from one address here.
        limits={"logins": ""},
        route=[{"name": "any"}, {"name": "tool", "host": "tool.test"}],
    )
    assert isinstance(found, RunningGate)
    return found


@pytest.fixture
async def browser(gate: RunningGate) -> AsyncIterator[Browser]:
    """Return a browser at the gate; at the end nothing it was sent to may lead away."""
    found = Browser(gate.port)
    yield found
    found.close()
    assert found.failures == []
    assert found.asked > 100


def _state(gate: RunningGate, start: Response) -> tuple[LoginState, str, str]:
    """Return the login that an answer of /oauth2/start began, its state and login cookie."""
    sealed = parse_qs(urlsplit(start.value("Location")).query)["state"][0]
    secret = gate.generation.settings.session.secrets[0].get_secret_value().encode()
    cookie = login_cookie(start).partition("=")[2]
    pending = open_callback(
        [("state", sealed)], [cookie], keyring=KeyRing([secret], "state"), now=gate.clock()
    )
    return pending.state, sealed, cookie


#: What a URL may be the value of. A look at the first letter comes first: spaces are everywhere.
_ATTRIBUTES: Final = re.compile(
    r"\s(?=[hsafdpcb])(?:href|src|action|formaction|data|poster|ping|cite|srcset|background|content)"
    r"\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s>]+)",
    re.IGNORECASE,
)


@cache
def _links(page: bytes) -> list[str]:
    """Return every URL in a page: of links, forms, sources, and of a refresh."""
    # The icon is the pages' own picture, a data URL that nobody is sent to.
    text = re.sub(r'<link rel="icon" href="data:image/svg[^"<>]*">', "", page.decode("utf-8"))
    found = _ATTRIBUTES.findall(text)
    urls = [unescape(url.strip("\"'")) for url in found]
    return [url for url in urls if not re.fullmatch(r"[a-z0-9=,.\- ]*", url)]


async def _login_returns(gate: RunningGate, browser: Browser, start: Response, why: object) -> str:
    """Finish a begun login in the browser; check and return where it lands."""
    state, sealed, cookie = _state(gate, start)
    record = SessionRecord.begin(ALICE, now=gate.clock(), login=state.short_id)
    cookies = f"Cookie: {gate.seal(record)}; tailchat_gate_login_abcdef={cookie}\r\n".encode()
    target = f"/oauth2/callback?code=c&state={sealed}&iss=x".encode()
    done = await browser.get(target, HTML + cookies)
    assert (why, done.status) == (why, 303)
    browser.check(done.value("Location"), PUBLIC, why)
    browser.check(state.return_to, PUBLIC, why)
    return state.return_to


def test_the_check_itself_sees_what_leads_away() -> None:
    """The reading that these tests go by knows a way out from a way in."""
    leaving = ["//evil", "/\\evil", "\\\\evil", "http:evil", "http:/evil", "https://gate.test/"]
    leaving += [
        "javascript:x",
        "/\t/evil",
        "/%2fevil",
        "/%5cevil",
        "/%252fevil",
        "http://gate.test@e",
    ]
    leaving += ["http://gate.test:1/", "/x\r\n", "data:x", "http://gate.test.e/", "/\u2028/e"]
    staying = ["/", "/x//y", "/x?//evil", "http://gate.test/x", "http://tool.test", "x", "/a%2fb"]

    assert [url for url in leaving if _stays(url, PUBLIC)] == []
    assert [url for url in staying if not _stays(url, PUBLIC)] == []
    assert (len(LIST), len(ALL)) == (559, 394)
    page = b'<a href="//x/y"><form action=\'/z\'><meta http-equiv=refresh content="0;url=//q">'
    assert _links(page) == ["//x/y", "/z", "0;url=//q"]


async def test_as_a_request_target(gate: RunningGate, browser: Browser) -> None:
    """A signed-out page request is sent to the sign-in here, and comes back to here."""
    redirects = 0
    for line in ALL:
        for target in {line, b"/" + line.lstrip(b"/")}:
            response = await browser.get(target)
            assert response.status in {200, 302, 303, 400, 404, 405}, target
            if response.status == 200:
                assert target.startswith(b"/oauth2/") or target in {b"x", b""}, target
            location = response.value("Location")
            if location.startswith(PUBLIC):
                redirects += 1
                browser.check(location, PUBLIC, target)
                start = await browser.get(location.removeprefix(PUBLIC).encode())
                browser.check(start.value("Location"), PUBLIC, target)
                await _login_returns(gate, browser, start, target)
            elif location:
                browser.check(location, PUBLIC, target)
    assert redirects > 50


@pytest.mark.parametrize("host", ["gate.test", "tool.test"])
async def test_as_an_escaped_return_target(gate: RunningGate, browser: Browser, host: str) -> None:
    """An `rd`, escaped as a browser escapes it, leads nowhere but to our origins."""
    for line in ALL:
        escaped = quote(line, safe="").encode()
        start = await browser.get(b"/oauth2/start?rd=" + escaped, host=host)
        assert start.status == 302, line
        location = start.value("Location")
        browser.check(location, PUBLIC, line)
        if host == "gate.test":
            await _login_returns(gate, browser, start, line)
        else:
            arrival = parse_qs(urlsplit(location).query)["rd"][0]
            browser.check(parse_qs(urlsplit(arrival).query)["rd"][0], TOOL, line)


async def test_as_a_raw_return_target(gate: RunningGate, browser: Browser) -> None:
    """An `rd` with raw bytes is a 400 or is judged as any other."""
    for line in ALL:
        start = await browser.get(b"/oauth2/start?rd=" + line)
        assert start.status in {302, 400}, line
        if start.status == 302:
            browser.check(start.value("Location"), PUBLIC, line)
            await _login_returns(gate, browser, start, line)


@pytest.mark.parametrize("host", ["gate.test", "tool.test"])
async def test_on_the_sign_in_page(gate: RunningGate, browser: Browser, host: str) -> None:
    """No link of the sign-in page leads away, and what it hands on to the login is safe."""
    base = PUBLIC if host == "gate.test" else TOOL
    for rds in ([quote(line, safe="").encode() for line in ALL], ALL):
        pages = await browser.get_each([b"/oauth2/sign_in?rd=" + rd for rd in rds], host=host)
        for line, page in zip(ALL, pages, strict=True):
            assert page.status in {200, 400}, line
            assert page.value("Location") == ""
            for link in _links(page.body):
                browser.check(link, base, line)
                handed = parse_qs(urlsplit(link).query).get("rd", ["/"])[0]
                browser.check(handed, base, line)


@pytest.mark.parametrize("signed_in", [False, True])
async def test_as_a_target_after_the_sign_out(
    gate: RunningGate, browser: Browser, signed_in: bool
) -> None:
    """Signing out goes to the gate's own page, whatever names another."""
    cookie = f"Cookie: {gate.cookie()}\r\n".encode() if signed_in else b""
    targets = [
        b"/oauth2/sign_out?rd=" + escaped + b"&post_logout_redirect_uri=" + escaped
        for escaped in (quote(line, safe="").encode() for line in ALL)
    ]
    for line, page in zip(ALL, await browser.get_each(targets, HTML + cookie), strict=True):
        assert page.status == 200
        for link in _links(page.body):
            browser.check(link, PUBLIC, line)
    if signed_in:
        async with RawClient.connect(gate.port) as client:
            client.send(b"POST /oauth2/sign_out?rd=//evil.test HTTP/1.1\r\nHost: gate.test\r\n")
            client.send(cookie + b"Sec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n\r\n")
            done = await client.response()
        assert (done.status, done.value("Location")) == (303, "/oauth2/sign_out")


@pytest.mark.parametrize(
    "query",
    [
        "error=access_denied&error_description={line}",
        "state={line}&code=c&iss={line}",
        "rd={line}&return_to={line}",
    ],
)
async def test_in_the_links_of_refusals(gate: RunningGate, browser: Browser, query: str) -> None:
    """The pages of a refused callback link only to here, whatever their parameters say."""
    queries = [query.format(line=quote(line, safe="")) for line in ALL]
    pages = await browser.get_each([f"/oauth2/callback?{one}".encode() for one in queries])
    for line, page in zip(ALL, pages, strict=True):
        assert page.status in {400, 403}
        assert page.value("Location") == ""
        for link in _links(page.body):
            browser.check(link, PUBLIC, line)


async def _arrive(
    gate: RunningGate, browser: Browser, mark: str, rd: str
) -> tuple[Response, Response]:
    """Ask the public host for a pass to the tool's, and use it there; return both answers."""
    cookie = f"Cookie: {gate.cookie()}\r\n".encode()
    arrival = f"{TOOL}/oauth2/arrive?for={quote(mark, safe='')}&rd={quote(rd, safe='')}"
    target = f"/oauth2/start?rd={quote(arrival, safe='')}".encode()
    passed = await browser.get(target, HTML + cookie)
    location = passed.value("Location")
    browser.check(location, PUBLIC, (mark, rd))
    if not location.startswith(TOOL):
        return passed, passed
    login = f"Cookie: tailchat_gate_login_abcdef={LOGIN_COOKIE}\r\n".encode()
    target = location.removeprefix(TOOL).encode()
    return passed, await browser.get(target, HTML + login, host="tool.test")


LOGIN_COOKIE = "A" * 43


async def test_by_way_of_a_tools_own_host(gate: RunningGate, browser: Browser) -> None:
    """A pass goes to a tool's host alone, and from there on to no other place."""
    arrived = 0
    for line in ALL:
        rd = line.decode("latin-1")
        passed, seen = await _arrive(gate, browser, browser_hash(LOGIN_COOKIE), rd)
        assert (line, passed.status // 100) == (line, 3)
        assert (line, seen.status) in {(line, 302), (line, 303)}
        arrived += seen is not passed
        browser.check(seen.value("Location"), TOOL, line)
    assert arrived > 300


@pytest.mark.parametrize(
    "mark",
    [
        "x",
        "x" * 43,
        "\u00e9",
        "\u212a" * 43,
        "\x7f",
        "%00",
        "x y",
        "x&for=y",
        "x" * 900,
        "\U0001f600",
    ],
)
async def test_a_pass_for_another_browser_is_a_refusal(gate: RunningGate, mark: str) -> None:
    """Whatever stands for the browser, a pass for another one is a 400 and opens no session."""
    browser = Browser(gate.port)
    try:
        passed, seen = await _arrive(gate, browser, mark, "/x")
    finally:
        browser.close()

    assert passed.status in {302, 303}
    if seen is not passed:
        # It begins once more, by itself.
        assert (seen.status, seen.value("Location")) == (303, "/oauth2/start?rd=/x&again=1")
    assert seen.value("Set-Cookie").partition("=")[0].startswith(("", "tailchat_gate_login_"))


async def test_a_pass_for_another_browser_leads_who_is_signed_in_to_here(
    gate: RunningGate, browser: Browser
) -> None:
    """A pass that came to another browser leads one with a session nowhere else either."""
    session = f"Cookie: {gate.cookie()}\r\n".encode()
    there = f"Cookie: {gate.cookie_for('tool.test')}\r\n".encode()
    strays = 0
    for line in ALL:
        arrival = f"{TOOL}/oauth2/arrive?for=x&rd={quote(line.decode('latin-1'), safe='')}"
        target = f"/oauth2/start?rd={quote(arrival, safe='')}".encode()
        location = (await browser.get(target, HTML + session)).value("Location")
        if location.startswith(TOOL):
            target = location.removeprefix(TOOL).encode()
            seen = await browser.get(target, HTML + there, host="tool.test")
            assert (line, seen.status) == (line, 303)
            browser.check(seen.value("Location"), TOOL, line)
            strays += 1
    assert strays > 300


CLAIMS = (
    b"Host: evil.test\r\n",
    b"Host: gate.test:81\r\nX-Forwarded-Host: evil.test\r\n",
    b"Host: gate.test\r\nX-Forwarded-Host: evil.test\r\nX-Forwarded-Proto: https\r\n",
    b"Host: gate.test\r\nForwarded: host=evil.test;proto=https\r\n",
    b"Host: gate.test\r\nX-Forwarded-Prefix: //evil.test\r\nX-Script-Name: //evil.test\r\n",
    b"Host: gate.test\r\nX-Original-URL: //evil.test\r\nX-Rewrite-URL: //evil.test\r\n",
    b"Host: gate.test\r\nReferer: http://evil.test/\r\nOrigin: http://evil.test\r\n",
    b"Host: gate.test\r\nX-Auth-Request-Redirect: http://evil.test/\r\n",
)


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("trusted", [[], ["127.0.0.1"]], ids=["direct", "behind a proxy"])
async def test_where_to_go_is_configuration(
    start_gate: Start, upstream: RawUpstream, clock: Clock, claim: bytes, trusted: list[str]
) -> None:
    """Neither Host nor any other field moves the sign-in, the redirect_uri or a link (RFC 9700)."""
    gate = await start_gate(upstream.url, server={"trusted_proxies": trusted})
    async with RawClient.connect(gate.port) as client:
        responses = []
        for path in (b"/x", b"/oauth2/start?rd=/x", b"/oauth2/sign_in?rd=/x", b"/oauth2/sign_out"):
            client.send(b"GET " + path + b" HTTP/1.1\r\n" + claim + HTML + b"\r\n")
            responses.append(await client.response())

    to_sign_in, to_tailchat, *pages = responses
    assert to_sign_in.value("Location") == "http://gate.test/oauth2/start?rd=/x"
    asked = parse_qs(urlsplit(to_tailchat.value("Location")).query)
    assert asked["redirect_uri"] == ["http://gate.test/oauth2/callback"]
    assert to_tailchat.value("Location").startswith(TAILCHAT)
    assert all(b"evil.test" not in response.head + response.body for response in responses)
    assert all(_stays(link, PUBLIC) for page in pages for link in _links(page.body))
