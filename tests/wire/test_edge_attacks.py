"""What a visitor does to have a proxy in front route by one thing and the gate judge another."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from urllib.parse import urljoin

import pytest
from accounts import user_named
from edge_fields import samples
from edgekit import Edge, Fronts, in_front
from gatekit import RawClient, Received
from visitor import NAVIGATION, Visitor

from tailchat_gate.request.field_names import fold

pytestmark = in_front
HOSHINO = user_named("hoshino")
_TIMEOUT = 10.0

#: Request lines and Host lines by which a proxy may find the tool and the gate another host.
HOSTS = (
    ("/page", "other.test"),
    ("/page", "gate.test"),
    ("/page", "WIKI.TEST"),
    ("/page", "wiki.test."),
    ("/page", "WIKI.test.:{port}"),
    ("/page", "wiki.test:80"),
    ("/page", "wiki.test:99999"),
    ("/page", "wiki.test:0{port}"),
    ("/page", "wiki.test:"),
    ("/page", "user@wiki.test"),
    ("/page", "wiki.test@other.test"),
    ("/page", "other.test@wiki.test"),
    ("/page", "other.test, wiki.test"),
    ("/page", "wiki.test other.test"),
    ("/page", "wiki.test/x"),
    ("/page", "wiki.test#other.test"),
    ("/page", "wiki.test?other.test"),
    ("/page", "[::1]"),
    ("/page", "127.0.0.1"),
    ("/page", "w%69ki.test"),
    ("/page", ""),
    ("/page", "wiki.test\r\nHost: other.test"),
    ("/page", "other.test\r\nHost: wiki.test"),
    ("/page", "wiki.test\r\nHost: wiki.test"),
    ("/page", "other.test\r\n wiki.test"),
    ("/page", "other.test\r\nHost : wiki.test"),
    ("http://wiki.test/page", "other.test"),
    ("http://wiki.test:{port}/page", "other.test"),
    ("http://other.test/page", "wiki.test"),
    ("http://other.test/page", "wiki.test:{port}"),
    ("https://wiki.test/page", "other.test"),
    ("HTTP://WIKI.TEST/page", "other.test"),
    ("http://wiki.test./page", "other.test"),
    ("http://user@wiki.test/page", "other.test"),
    ("http://other.test@wiki.test/page", "other.test"),
    ("http://wiki.test@other.test/page", "wiki.test"),
    ("http://wiki.test?page", "other.test"),
    ("http://wiki.test", "other.test"),
    ("http:///page", "other.test"),
    ("http:/page", "other.test"),
    ("ftp://wiki.test/page", "other.test"),
    ("//other.test/page", "wiki.test"),
    ("//wiki.test/page", "other.test"),
    ("wiki.test:80", "other.test"),
    ("*", "wiki.test"),
)
#: Paths of which some reading is one that the asker may not have.
PATHS = (
    "/page", "/./page", "//page", "/page;/open", "/page%3f/open", "/page#/open", "/page%23/../open",
    "/open/../page", "/open/./../page", "/open//../page", "/open/..//page", "/open/%2e%2e/page",
    "/open/.%2e/page", "/open/%2E./page", "/open/..%2fpage", "/open/..%2Fpage", "/open%2f..%2fpage",
    "/open/%252e%252e/page", "/open/..;/page", "/open/..;a=b/page", "/open/..%5cpage",
    "/open\\..\\page", "/open/..\\page", "/open/../page?/open", "/page?x=/open",
    "http://wiki.test:{port}/page", "http://wiki.test:{port}/open/../page",
    "http://wiki.test:{port}//open/../page", "/oauth2/../page", "/oauth2/%2e%2e/page",
    "/oauth2/..%2fpage", "/oauth2//../page", "/oauth2/auth/../../page",
    "/oauth2/auth/%2e%2e/%2e%2e/page", "/oauth2%2f..%2fpage", "/OAUTH2/../page",
    "/oauth2/./../page", "/oauth2/..;/page", "/open/%00/../../page",
    "/open/\xef\xbc\x8f../page", "/open/%c0%ae%c0%ae/page",
)  # fmt: skip
#: Request lines and fields by which a tool may take a request for one that changes something.
METHODS = (
    ("POST /write", ""),
    ("PUT /write", ""),
    ("DELETE /write", ""),
    ("get /write", ""),
    ("post /write", ""),
    ("TRACE /open", ""),
    ("TRACE /write", ""),
    ("CONNECT /write", ""),
    ("CONNECT wiki.test:80", ""),
    ("CONNECT other.test:443", ""),
    ("PROPFIND /write", ""),
    ("GET /write?_method=DELETE", ""),
    ("GET /write", "X-HTTP-Method-Override: DELETE"),
    ("GET /write", "X-HTTP-Method: DELETE"),
    ("GET /write", "X-Method-Override: DELETE"),
    ("GET /write", "x-http-method-override: delete\r\nConnection: x-http-method-override"),
    ("GET /write", "X_HTTP_Method_Override: DELETE"),
    ("GET /write", "X.HTTP.Method.Override: DELETE"),
    ("POST /write", "X-HTTP-Method-Override: GET"),
    ("POST /write", "X-Forwarded-Method: GET"),
    ("POST /write", "X-Forwarded-Method: GET\r\nConnection: X-Forwarded-Method"),
    ("POST /write", "Connection: X-Forwarded-Method"),
    ("POST /write", "X-Original-Method: GET"),
    ("POST /write", "X_Forwarded_Method: GET"),
)
#: Fields by which a gate, a proxy or a tool may take a request for another one.
ACCOUNTS = (
    "X-Forwarded-Uri: /open",
    "X-Forwarded-Uri: /open\r\nConnection: X-Forwarded-Uri",
    "Connection: X-Forwarded-Uri",
    "Connection: X-Forwarded-Host, X-Forwarded-Proto, X-Forwarded-For, Host",
    "X_Forwarded_Uri: /open",
    "X-Forwarded-Host: other.test",
    "X-Forwarded-Host: other.test\r\nX-Forwarded-Host: wiki.test",
    "X_Forwarded_Host: other.test",
    "X-Original-URL: /open",
    "X-Original-URL: http://other.test/open",
    "X-Original-URI: /open",
    "X-Original-Host: other.test",
    "X-Rewrite-URL: /open",
    "X-Forwarded-Prefix: /open",
    "X-Forwarded-Path: /open",
    "X-Forwarded-Server: other.test",
    "X-Envoy-Original-Path: /open",
    "X-Envoy-Original-Host: other.test",
    "Forwarded: host=other.test;for=10.0.0.1",
    "X-Forwarded-For: 127.0.0.1",
    "X-Forwarded-For: 127.0.0.1\r\nConnection: X-Forwarded-For",
    "X-Real-IP: 127.0.0.1",
)
#: What the question to the gate is made of.
ASKED = ("X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Host", "X-Forwarded-For")
UPGRADES = (
    *("h2c", "H2C", "h2c, websocket", "TLS/1.0", "foo"),
    *("foo\r\nUpgrade: websocket", "websocket\r\nUpgrade: h2c"),
)
SCHEMES = (
    *("X-Forwarded-Proto: https", "X-Forwarded-Port: 1", "X-Forwarded-Scheme: https"),
    *("X-Scheme: https", "Front-End-Https: on", "Forwarded: proto=https;host=other.test"),
)


#: What a block does to paths, methods and fields is the same, whichever hosts it answers for.
in_one_block = pytest.mark.parametrize("front", ["named"], indirect=True)


async def sent(front: Edge, line: str, host: str, fields: str = "") -> list[Received]:
    """Send a request as it is written; return what reached the tool of it."""
    tool = front.scene.tool
    tool.requests.clear()
    head = f"{line} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\nConnection: close\r\n\r\n"
    head = head.replace("\r\n\r\nC", "\r\nC").replace("{port}", str(front.port))
    async with RawClient.connect(front.port) as client:
        client.send(head.encode("latin-1"))
        try:
            async with asyncio.timeout(_TIMEOUT):
                await client.response(to_head=line.startswith("HEAD"))
        except (ConnectionError, asyncio.IncompleteReadError):
            # Refused without a word.
            pass
    return list(tool.requests)


def own(front: Edge) -> str:
    """Return the tool's host as a browser sends it."""
    return f"wiki.test:{front.port}"


async def check_that_it_works(front: Edge) -> None:
    """Fail where not even a public page is served: then nothing was tested."""
    (received,) = await sent(front, "GET /open", own(front))
    assert received.line.startswith(b"GET /open HTTP/1.")
    assert received.value("Host") == own(front).encode()


@asynccontextmanager
async def session(front: Edge) -> AsyncIterator[str]:
    """Sign somebody in; yield the Cookie line of the tool's host."""
    async with Visitor() as visitor:
        page = await visitor.sign_in(
            front.url("wiki.test") + "/page", HOSHINO.email, HOSHINO.password
        )
        assert page.status == 200
        cookies = visitor.cookies(front.url("wiki.test"))
    yield "Cookie: " + "; ".join(f"{name}={value}" for name, value in cookies.items())


async def test_no_other_host_is_judged(front: Edge) -> None:
    """Under whatever host it is asked for, a closed tool stays closed to a stranger."""
    await check_that_it_works(front)
    reached = [
        (target, host)
        for target, host in HOSTS
        for method in ("GET", "POST")
        if await sent(front, f"{method} {target}", host, "Content-Length: 0")
    ]

    assert reached == []


async def test_the_tool_hears_its_own_name(front: Edge) -> None:
    """A host that a visitor chose never reaches the tool, where the request itself may pass."""
    await check_that_it_works(front)
    names = {
        value
        for target, host in HOSTS
        for received in await sent(front, f"GET {target.replace('page', 'open')}", host)
        for value in (*received.values("Host"), *received.values("X-Forwarded-Host"))
    }

    assert names <= {own(front).encode()}


@in_one_block
async def test_no_other_path_is_judged(front: Edge) -> None:
    """No spelling of a path brings a stranger past the rule of what the tool serves for it."""
    await check_that_it_works(front)
    reached = [
        (path, received[0].line)
        for path in PATHS
        if (received := await sent(front, f"GET {path}", own(front)))
        and received[0].line != b"GET /open HTTP/1.1"
    ]

    assert reached == []


@in_one_block
async def test_nor_for_somebody_who_is_signed_in(front: Edge) -> None:
    """Who may have other pages of the tool does not reach the one that is closed to them."""
    async with session(front) as cookie:
        assert await sent(front, "GET /page", own(front), cookie)
        reached = [
            (path, received[0].line)
            for path in (path.replace("page", "closed") for path in PATHS)
            if (received := await sent(front, f"GET {path}", own(front), cookie))
            and received[0].line != b"GET /open HTTP/1.1"
        ]

    assert reached == []


@in_one_block
async def test_no_other_method_is_judged(front: Edge) -> None:
    """What a stranger may only read is not changed by a method in the line, a field or a query."""
    await check_that_it_works(front)
    assert await sent(front, "GET /write", own(front))
    reached = [
        (line, fields, received[0].head)
        for line, fields in METHODS
        if (received := await sent(front, line, own(front), f"{fields}\r\nContent-Length: 0"))
        and not harmless(received[0])
    ]

    assert reached == []


def harmless(received: Received) -> bool:
    """Tell whether what reached the tool is a plain GET in every reading."""
    names = {fold(name) for name, _ in received.fields}
    claims = {b"x-http-method", b"x-http-method-override", b"x-method-override"}
    return received.line.startswith(b"GET /write HTTP/1.") and not names & claims


@in_one_block
async def test_a_path_in_a_field_is_judged(front: Edge) -> None:
    """What a request names beside its target is asked about too, by the field it stands in."""
    closed = "/closed/x"
    async with session(front) as cookie:
        fields = f"{cookie}\r\nContent-Length: 0\r\n"
        for line, name, start in (
            ("COPY /page", "Destination", front.url("wiki.test")),
            ("PUT /page", "X-Amz-Copy-Source", ""),
        ):
            assert await sent(front, line, own(front), f"{fields}{name}: {start}/page/x")
            assert not await sent(front, line, own(front), f"{fields}{name}: {start}{closed}")


async def test_no_other_account_of_a_request_counts(front: Edge) -> None:
    """Fields that name another request than the one made open nothing to a stranger."""
    await check_that_it_works(front)
    reached = [
        (target, account)
        for account in ACCOUNTS
        for target in ("/page", "/closed")
        if await sent(front, f"GET {target}", own(front), account)
    ]

    assert reached == []


@in_one_block
async def test_only_to_a_websocket_is_switched(front: Edge) -> None:
    """Behind a switch to another protocol a visitor would speak with the tool past every rule."""
    for upgrade in UPGRADES:
        fields = (
            f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMA"
        )
        for received in await sent(front, "GET /open", own(front), fields):
            switches = received.values("Upgrade")
            assert switches == [] or (switches == [b"websocket"] and "websocket" in upgrade)
            assert switches or b"upgrade" not in b"".join(received.values("Connection")).lower()


@in_one_block
async def test_what_stands_behind_a_body_is_no_field(front: Edge) -> None:
    """Trailers under the gate's names do not reach the tool; the body does."""
    trailers = "".join(f"{name}: forged\r\n" for name in samples())
    head = f"POST /open HTTP/1.1\r\nHost: {own(front)}\r\nTransfer-Encoding: chunked\r\n"
    async with RawClient.connect(front.port) as client:
        client.send(f"{head}\r\n3\r\nabc\r\n0\r\n{trailers}\r\n".encode())
        assert (await client.response()).status in {200, 400}

    for received in front.scene.tool.requests:
        assert (received.body, received.trailers) == (b"abc", [])


@in_one_block
async def test_each_request_of_a_connection_is_judged(front: Edge) -> None:
    """What follows a public request at once is asked about as well."""
    lines = ("GET /open", "GET /page", "GET /open", "GET /closed")
    requests = "".join(f"{line} HTTP/1.1\r\nHost: {own(front)}\r\n\r\n" for line in lines)
    async with RawClient.connect(front.port) as client:
        client.send(requests.encode())
        statuses = [(await client.response()).status for _ in lines]

    assert statuses == [200, 401, 200, 401]
    assert {received.line for received in front.scene.tool.requests} == {b"GET /open HTTP/1.1"}


async def test_the_scheme_and_the_port_are_those_of_the_connection(front: Edge) -> None:
    """A visitor's word of them reaches neither the tool nor the way to the sign-in."""
    async with Visitor() as visitor:
        for field in SCHEMES:
            (received,) = await sent(front, "GET /open", own(front), field)
            assert received.values("X-Forwarded-Proto") == [b"http"]
            assert received.values("X-Forwarded-Port") in ([], [str(front.port).encode()])

            name, _, value = field.partition(": ")
            headers = {**NAVIGATION, name: value}
            page = await visitor.open(
                front.url("wiki.test") + "/page", headers=headers, follow=False
            )
            place = page.headers.get("Location") or page.headers["Refresh"].partition("url=")[2]
            start = urljoin(front.url("wiki.test"), place)
            assert start.startswith(front.url("wiki.test") + "/oauth2/start?")


@in_one_block
async def test_a_page_of_another_tool_sends_nothing_in_its_visitors_name(front: Edge) -> None:
    """What the gate judges by beside host, path and method is asked with, too."""
    async with session(front) as cookie:
        for field in ("Sec-Fetch-Site: same-site", "Origin: http://other.test"):
            line = f"{cookie}\r\nContent-Length: 0\r\n"
            assert await sent(front, "POST /page", own(front), line + "Sec-Fetch-Mode: cors")
            assert await sent(front, "POST /page", own(front), line + field) == []


def spellings(names: Iterable[str]) -> list[str]:
    """Return names in the spellings that CGI, WSGI and PHP take for the same."""
    return [
        spelt
        for name in names
        for spelt in (
            *(name, name.lower(), name.replace("-", "_"), name.replace("-", "_", 1)),
            *(name.replace("-", "."), "~".join(name.rsplit("-", 1))),
        )
    ]


@in_one_block
async def test_nothing_of_a_visitors_making_is_taken_for_the_edge(front: Edge) -> None:
    """No field for a person, an address or a path arrives as sent, in any spelling."""
    arrived = []
    async with session(front) as cookie:
        for number, name in enumerate(dict.fromkeys(spellings(samples()))):
            line = f"GET {('/open', '/page')[number % 2]}"
            received = await sent(front, line, own(front), f"{cookie}\r\n{name}: forged")
            arrived += [name for each in received if b"forged" in each.head]

    assert arrived == []


@in_one_block
async def test_connection_takes_nothing_from_the_tool(front: Edge) -> None:
    """A visitor who names the gate's fields in Connection does not take them from the tool."""
    async with session(front) as cookie:
        (plain,) = await sent(front, "GET /page", own(front), cookie)
        ours = [name.decode() for name, _ in plain.fields if name.lower().startswith(b"x-")]
        robbed: list[str] = []
        for names in (ours, *([name] for name in (*ours, *ASKED, "Host", "Cookie"))):
            listed = f"{cookie}\r\nConnection: {', '.join(names)}"
            for received in await sent(front, "GET /page", own(front), listed):
                robbed += [name for name in ours if received.values(name) != plain.values(name)]

    assert robbed == []
    assert "X-Tailchat-Sub".lower() in {name.lower() for name in ours}


async def test_without_the_gate_nobody_passes(front: Edge, fronts: Fronts) -> None:
    """Where the gate cannot be asked, the tool gets nothing, public pages too."""
    fronts.forget(front)
    await check_that_it_works(front)
    await front.scene.gate.server.stop()

    assert await sent(front, "GET /open", own(front)) == []
