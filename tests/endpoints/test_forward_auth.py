"""Forward-auth: a proxy in front asks, by the same routes and rules as a request itself."""

from collections.abc import Callable
from typing import Any

import pytest
from gatekit import SUB, Clock, RawClient, RawUpstream, Response, RunningGate, ask, request_bytes

Start = Callable[..., Any]
PAGE = "text/html"
ROUTES = [
    {"name": "wiki", "host": "wiki.test", "allow": [f"sub:{SUB}"]},
    {"name": "open", "host": "wiki.test", "path": "/open", "allow": ["public"]},
    {"name": "closed", "host": "closed.test", "allow": ["sub:somebody-else"]},
    {"name": "socket", "host": "socket.test", "origins": ["https://app.test"]},
]


@pytest.fixture
async def edge(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """A gate that trusts the proxy on loopback."""
    gate: RunningGate = await start_gate(
        upstream.url, server={"trusted_proxies": ["127.0.0.1"]}, route=ROUTES
    )
    return gate


async def question(
    gate: RunningGate,
    uri: str = "/page?q=1",
    *,
    host: str = "wiki.test",
    signed_in: bool = False,
    **fields: str,
) -> Response:
    """Ask as Traefik and Caddy do, for `uri` on `host`."""
    if signed_in:
        fields["Cookie"] = gate.cookie_for(host)
    return await ask(
        gate.port,
        request_bytes(
            "/oauth2/auth",
            host="gate.test",
            **{
                "X_Forwarded_Method": "GET",
                "X_Forwarded_Host": host,
                "X_Forwarded_Uri": uri,
                **fields,
            },
        ),
    )


async def test_who_may_is_told_to_the_proxy(edge: RunningGate, upstream: RawUpstream) -> None:
    """202 with the identity headers; the tool hears nothing of the question."""
    response = await question(edge, signed_in=True)

    assert (response.status, response.body) == (202, b"")
    assert response.value("X-Tailchat-Sub") == SUB
    assert response.value("X-Tailchat-Nickname") == "Alice"
    assert response.value("Cache-Control") == "no-store"
    assert upstream.requests == []
    line = (await edge.log())[-1]
    assert (line["route"], line["reason"], line["sub"]) == ("wiki", "signed-in", SUB)
    assert (line["path"], line["asked"]) == ("/oauth2/auth", "GET wiki.test/page")


async def test_a_page_gets_the_way_to_the_sign_in(edge: RunningGate) -> None:
    """401 with a page that goes on by itself, and the address in a field; never a redirect."""
    response = await question(edge, "/a?b=%2F", Accept=PAGE)

    url = "http://wiki.test/oauth2/start?rd=/a%3Fb%3D%252F"
    assert response.status == 401
    assert response.value("X-Tailchat-Sign-In") == url
    assert response.value("Refresh") == f"0; url={url}"
    assert response.value("Location") == ""
    assert f'href="{url}"'.encode() in response.body


async def test_a_call_gets_json(edge: RunningGate) -> None:
    """A program that is not signed in gets a 401 without any redirect or cookie."""
    response = await question(edge, Accept="application/json")

    assert (response.status, response.json["error"]) == (401, "not-signed-in")
    assert response.values("Refresh") == response.values("Set-Cookie") == []
    assert response.values("X-Tailchat-Sign-In") == []


async def test_a_post_is_not_led_to_the_sign_in(edge: RunningGate) -> None:
    """The original method counts: a form of who is not signed in is no page navigation."""
    response = await question(edge, X_Forwarded_Method="POST", Accept=PAGE)

    assert (response.status, response.values("Refresh")) == (401, [])


@pytest.mark.parametrize(
    ("host", "uri", "reason"),
    [
        ("closed.test", "/", "denied"),
        ("nowhere.test", "/", "no-route"),
        ("wiki.test", "/a\\b", "bad-request"),
        ("wiki.test", "/%00", "bad-request"),
        ("wiki.test, closed.test", "/", "bad-request"),
    ],
)
async def test_every_other_refusal_is_a_403(
    edge: RunningGate, host: str, uri: str, reason: str
) -> None:
    """Nginx takes any other status for a fault: the reason tells more."""
    response = await question(edge, uri, host=host, signed_in=True)

    assert (response.status, response.json["error"]) == (403, reason)


async def test_the_denied_page_names_person_and_tool(edge: RunningGate) -> None:
    """A proxy that hands the answer on shows the page that the gate itself would show."""
    response = await question(edge, host="closed.test", signed_in=True, Accept=PAGE)

    assert (response.status, b"closed" in response.body) == (403, True)
    assert SUB.encode() in response.body


async def test_a_session_of_another_host_is_none(edge: RunningGate) -> None:
    """The session is that of the host which was asked for, not of the gate's own."""
    response = await question(edge, Cookie=edge.cookie_for("socket.test"))

    assert response.status == 401


@pytest.mark.parametrize(
    "uri",
    ["/open/../page", "/open/%2e%2e/page", "/open%2f..%2fpage", "/OPEN/../page", "//open/../page"],
)
async def test_a_path_is_judged_by_every_reading(edge: RunningGate, uri: str) -> None:
    """No spelling of a path gets past a stricter rule by way of a proxy."""
    assert (await question(edge, "/open/x")).status == 202
    assert (await question(edge, uri)).status == 401
    assert (await question(edge, uri, signed_in=True)).status == 202


async def test_public_is_let_through_without_identity(edge: RunningGate) -> None:
    """A public route takes nobody, and tells nothing of them."""
    response = await question(edge, "/open")

    assert response.status == 202
    assert not any(name.startswith("X-Tailchat") for name in response.head.decode().split("\r\n"))


async def test_nobody_but_a_trusted_proxy_is_believed(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """What a stranger says of an original request counts for nothing (CVE-2026-40575)."""
    gate = await start_gate(upstream.url, route=ROUTES)

    response = await question(gate, "/open")
    assert (response.status, response.json["error"]) == (403, "proxy-not-trusted")
    assert (await question(gate, signed_in=True)).status == 403


async def test_a_proxy_that_names_no_request_is_refused(edge: RunningGate) -> None:
    """Without the original request no rule can be applied, so nobody passes."""
    response = await ask(
        edge.port,
        request_bytes("/oauth2/auth", host="wiki.test", Cookie=edge.cookie_for("wiki.test")),
    )

    assert (response.status, response.json["error"]) == (403, "original-missing")


async def test_two_accounts_of_a_request_are_refused(edge: RunningGate) -> None:
    """A visitor cannot add the other dialect's fields to have another path judged."""
    response = await question(edge, X_Original_URL="http://wiki.test/open")

    assert (response.status, response.json["error"]) == (403, "bad-request")


async def test_the_path_behind_the_question(edge: RunningGate) -> None:
    """Envoy sends the request itself, and lets it pass on a 200 alone."""
    cookie = edge.cookie_for("wiki.test")
    for method, path, fields, status in (
        ("GET", "/page", {"Cookie": cookie}, 200),
        ("POST", "/page", {"Cookie": cookie, "Content-Length": "0"}, 200),
        ("GET", "/page", {}, 401),
        ("GET", "/open", {}, 200),
        ("GET", "/open", {"X-Forwarded-Uri": "/page"}, 200),
        ("GET", "/page", {"X-Forwarded-Uri": "/open"}, 401),
    ):
        response = await ask(
            edge.port,
            request_bytes(f"/oauth2/auth{path}", method=method, host="wiki.test", **fields),
        )
        assert (method, path, response.status) == (method, path, status)


@pytest.mark.parametrize(
    ("host", "named", "status"),
    [
        ("open.test", "wiki.test", 403),
        ("open.test:80", "wiki.test", 403),
        ("wiki.test", "wiki.test:8443", 200),
        ("WIKI.test.", "wiki.test", 200),
        ("wiki.test", "", 200),
    ],
)
async def test_a_proxy_that_writes_its_tools_name_is_held_to_it(
    edge: RunningGate, host: str, named: str, status: int
) -> None:
    """Where the request itself is the question, its Host has to be the one that Envoy writes."""
    fields = {"X_Forwarded_Host": named} if named else {}
    response = await ask(edge.port, request_bytes("/oauth2/auth/open", host=host, **fields))

    assert response.status == status


@pytest.mark.parametrize(
    ("host", "named", "status"),
    [
        # One of the two is the visitor's: nginx routes an absolute-form target by its authority.
        ("closed.test", "wiki.test", 403),
        ("CLOSED.test.:80", "wiki.test", 403),
        ("wiki.test", "other.test", 403),
        # The gate's own address, by whatever name a proxy has for it.
        ("gate.test", "wiki.test", 202),
        ("gate:4180", "wiki.test", 202),
        ("wiki.test:80", "WIKI.test", 202),
    ],
)
async def test_a_question_sent_to_one_tool_about_another_is_refused(
    edge: RunningGate, host: str, named: str, status: int
) -> None:
    """A Host of one tool and an original request for another: nothing tells which is routed by."""
    response = await ask(
        edge.port,
        request_bytes("/oauth2/auth", host=host, X_Forwarded_Host=named, X_Forwarded_Uri="/open"),
    )

    assert response.status == status


@pytest.mark.parametrize(("host", "status"), [("wiki.test", 202), ("open.test", 403)])
async def test_a_name_that_is_written_beside_the_visitors_holds(
    edge: RunningGate, host: str, status: int
) -> None:
    """Nginx's ingress controller puts the visitor's Host into X-Original-URL."""
    response = await question(
        edge, "/open", X_Original_URL=f"http://{host}/open", X_Original_Method="GET"
    )

    assert response.status == status


async def test_a_trace_is_not_let_to_a_tool(edge: RunningGate) -> None:
    """What the gate does not pass on, it does not let a proxy pass on, unless the route says so."""
    response = await question(edge, "/open", X_Forwarded_Method="TRACE")

    assert (response.status, response.json["error"]) == (403, "method-refused")


@pytest.mark.parametrize(
    ("upgrade", "status"), [("h2c", 403), ("websocket, h2c", 403), ("websocket", 202)]
)
async def test_a_switch_that_the_gate_would_not_make_is_refused(
    edge: RunningGate, upgrade: str, status: int
) -> None:
    """Behind a switch to another protocol than the route's, a visitor would meet no rule."""
    response = await question(edge, "/open", Connection="Upgrade", Upgrade=upgrade)

    assert response.status == status


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("Script-Name: /open", 403),
        ("X-WEBAUTH-USER: root", 403),
        ("X-Tailchat-Sub: 660000000000000000000002", 403),
        ("X_Own: a", 403),
        ("X-Request-Id: a", 403),
        ("X-Forwarded-For: 10.0.0.1", 202),
        ("Accept-Language: de", 202),
    ],
)
async def test_a_question_with_a_claim_is_refused_where_the_tool_would_get_it(
    edge: RunningGate, field: str, status: int
) -> None:
    """A proxy that passes on what its question has can leave to the gate what it cannot drop."""
    head = request_bytes(
        "/oauth2/auth", X_Forwarded_Host="wiki.test", X_Forwarded_Uri="/open",
        X_Tailchat_Unstripped="refuse",
    )  # fmt: skip
    response = await ask(edge.port, head[:-2] + f"{field}\r\n\r\n".encode())

    assert response.status == status
    if status == 403:
        assert field.partition(":")[0] in response.json["problem"]


async def test_a_renewed_session_rides_along(
    start_gate: Start, upstream: RawUpstream, clock: Clock
) -> None:
    """The Set-Cookie that renews a session is in the answer, for the proxy to hand on."""
    gate = await start_gate(
        upstream.url,
        server={"trusted_proxies": ["127.0.0.1"]},
        session={"idle": "1h"},
        route=ROUTES,
    )
    cookie = gate.cookie_for("wiki.test")
    clock.now += 1800

    response = await question(gate, Cookie=cookie)
    assert response.value("Set-Cookie").startswith("tailchat_gate=")


async def test_a_websocket_of_a_foreign_page_is_refused(edge: RunningGate) -> None:
    """The Origin check holds for a proxy's question too, though Upgrade ends at the proxy."""
    for origin, status in (
        ("http://socket.test", 202),
        ("https://app.test", 202),
        ("https://evil.test", 403),
    ):
        response = await question(
            edge, host="socket.test", signed_in=True, Sec_WebSocket_Key="x", Origin=origin
        )
        assert (origin, response.status) == (origin, status)


async def test_a_websocket_over_http2_of_a_foreign_page_is_refused(edge: RunningGate) -> None:
    """A WebSocket that a proxy gets as an extended CONNECT has no key, and is checked as well."""
    for origin, status in (("http://socket.test", 202), ("https://evil.test", 403)):
        response = await question(
            edge, host="socket.test", signed_in=True, X_Forwarded_Method="CONNECT", Origin=origin
        )
        assert (origin, response.status) == (origin, status)


async def test_questions_keep_their_connection(edge: RunningGate) -> None:
    """A proxy asks one question after another on one connection, whatever the answers."""
    cookie = edge.cookie_for("wiki.test")
    asked = {"host": "gate.test", "X_Forwarded_Host": "wiki.test", "X_Forwarded_Uri": "/"}
    async with RawClient.connect(edge.port) as client:
        for fields, status in (({"Cookie": cookie}, 202), ({}, 401), ({"Cookie": cookie}, 202)):
            client.send(request_bytes("/oauth2/auth", **asked, **fields))
            assert (await client.response()).status == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_the_question_is_read_only(edge: RunningGate, method: str) -> None:
    """The question itself takes GET and HEAD."""
    response = await ask(
        edge.port,
        request_bytes("/oauth2/auth", method=method, X_Forwarded_Uri="/open", Content_Length="0"),
    )

    assert (response.status, response.value("Allow")) == (405, "GET, HEAD")


RULES = [
    {"name": "read", "host": "*.api.test", "methods": ["GET"]},
    {"name": "write", "host": "*.api.test", "allow": ["group:ops"]},
    {
        "name": "feed",
        "host": "*.api.test",
        "path": "/feed",
        "methods": ["GET"],
        "allow": ["public"],
    },
    {"name": "site", "host": "site.test", "allow": ["public"], "deny": [f"sub:{SUB}"]},
    {"name": "shut", "host": "shut.test", "deny": ["group:former"]},
]


@pytest.mark.parametrize(
    ("host", "uri", "method", "fields", "status", "reason"),
    [
        ("a.api.test", "/x", "GET", {}, 202, "signed-in"),
        ("A.API.test.:443", "/x", "HEAD", {}, 202, "signed-in"),
        ("a.api.test", "/x", "POST", {}, 403, "denied"),
        ("a.api.test", "/x", "get", {}, 403, "denied"),
        # A proxy that does not tell the method asks for what every method may.
        ("a.api.test", "/x", "", {}, 403, "denied"),
        ("a.api.test", "/feed", "", {}, 403, "method-refused"),
        ("a.api.test", "/feed", "POST", {}, 403, "method-refused"),
        ("a.api.test", "/feed", "GET", {}, 202, "signed-in"),
        ("a.api.test", "/x", "GET", {"X_HTTP_Method_Override": "PUT"}, 403, "denied"),
        ("a.api.test", "/x?_method=PUT", "GET", {}, 403, "denied"),
        ("api.test", "/x", "GET", {}, 403, "no-route"),
        ("site.test", "/", "GET", {}, 202, "public"),
        ("shut.test", "/", "GET", {}, 403, "deny-listed"),
    ],
)
async def test_hosts_methods_and_lists_count_for_a_proxy_too(
    start_gate: Start,
    host: str,
    uri: str,
    method: str,
    fields: dict[str, str],
    status: int,
    reason: str,
) -> None:
    """What a proxy asks about is judged by its host, method and the lists of its route."""
    gate: RunningGate = await start_gate(
        server={"trusted_proxies": ["127.0.0.1"]},
        groups={"ops": ["somebody-else"], "former": [SUB]},
        route=RULES,
    )
    fields["Cookie"] = gate.cookie_for(host.lower().partition(":")[0].removesuffix("."))
    if method:
        fields["X_Forwarded_Method"] = method
    asked = request_bytes(
        "/oauth2/auth", host="gate.test", X_Forwarded_Host=host, X_Forwarded_Uri=uri, **fields
    )

    response = await ask(gate.port, asked)

    assert response.status == status
    assert (await gate.log())[-1]["reason"] == reason
    named = status == 202 and reason == "signed-in"
    assert response.values("X-Tailchat-Sub") == ([SUB] if named else [])
