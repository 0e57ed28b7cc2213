"""Request fields that a tool takes for the path, the person or the address, by their names."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gatekit import RawClient, RawUpstream, RunningGate, ask, make_settings

from tailchat_gate.request.field_names import CLAIMS, OWN, fold, is_claim, is_own

Start = Callable[..., Any]

DOCUMENT = Path(__file__).parents[2] / "docs/headers.md"
#: Every name of the list; a family by one of its members.
NAMES = [name.replace("*", "any") for names in (OWN, *CLAIMS.values()) for name in names]


def spellings(name: str) -> Iterator[str]:
    """Yield ways to write a name that CGI, WSGI or PHP make one variable of."""
    yield from (name, name.upper(), name.replace("-", "_"), name.upper().replace("-", "_"))
    yield from (name.replace("-", odd, 1) for odd in "_.~+")


def request(fields: list[str], path: str = "/open", value: str = "spoofed") -> bytes:
    """Return a GET with these fields."""
    lines = "".join(f"{field}: {value}\r\n" for field in fields)
    return f"GET {path} HTTP/1.1\r\nHost: gate.test\r\n{lines}\r\n".encode()


async def passed(gate: RunningGate, upstream: RawUpstream, data: bytes) -> list[str]:
    """Send a request; return the names of the fields that arrived with the visitor's value."""
    response = await ask(gate.port, data)
    assert response.status == 200
    received = upstream.requests[-1]
    return [name.decode() for name, value in received.fields if value == b"spoofed"]


def public(**route: Any) -> dict[str, Any]:  # noqa: ANN401 - as in the file
    """Return a route that is open to everybody."""
    return {"name": "open", "path": "/open", "allow": ["public"], **route}


@pytest.mark.parametrize("group", ["own", *CLAIMS])
async def test_no_name_of_the_list_arrives(
    start_gate: Start, upstream: RawUpstream, group: str
) -> None:
    """No spelling of a name on the list reaches a tool, also where nobody is signed in."""
    gate = await start_gate(upstream.url, route=[public()])
    names = OWN if group == "own" else CLAIMS[group]
    for name in names:
        fields = [*spellings(name.replace("*", "any")), "X-Plain"]
        assert await passed(gate, upstream, request(fields)) == ["X-Plain"], name


async def test_a_name_that_folds_onto_another_is_dropped(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A name with anything but letters, digits and "-" does not pass, whatever it is."""
    gate = await start_gate(upstream.url, route=[public()])
    odd = [f"X{character}Own" for character in "_.~+!#$%&'*^`|"]

    found = await passed(gate, upstream, request([*odd, "X-Own", "_", "Accept_", "a1-B2"]))

    assert found == ["X-Own", "a1-B2"]


async def test_a_route_passes_what_it_names(start_gate: Start, upstream: RawUpstream) -> None:
    """`pass_fields` lets a name through in its own spelling, on its route, in a head alone."""
    names = ["X-Original-URL", "legacy_name"]
    gate = await start_gate(
        upstream.url, route=[public(pass_fields=names), public(name="b", path="/b")]
    )
    sent = ["x-original-url", "X_Original_URL", "X-Original-Host", "LEGACY_NAME", "legacy.name"]

    assert await passed(gate, upstream, request(sent)) == ["x-original-url", "LEGACY_NAME"]
    assert await passed(gate, upstream, request(sent, "/b")) == []
    trailing = "".join(f"{name}: spoofed\r\n" for name in [*names, "X-Sum"])
    await ask(
        gate.port,
        b"POST /open HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n" + trailing.encode() + b"\r\n",
    )
    assert upstream.requests[-1].trailers == [b"X-Sum: spoofed"]


async def test_no_name_of_the_list_is_a_trailer(start_gate: Start, upstream: RawUpstream) -> None:
    """A trailer is held to the list that the head is held to."""
    gate = await start_gate(upstream.url, route=[public()])
    fields = [spelling for name in NAMES for spelling in (name, name.replace("-", "_").upper())]
    for start in range(0, len(fields), 60):
        lines = "".join(f"{name}: spoofed\r\n" for name in [*fields[start : start + 60], "X-Sum"])
        response = await ask(
            gate.port,
            b"POST /open HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nab\r\n0\r\n" + lines.encode() + b"\r\n",
        )
        assert response.status == 200
        assert upstream.requests[-1].trailers == [b"X-Sum: spoofed"]


RESPONSE_TRAILERS = (
    *("Location", "Refresh", "Set-Cookie", "Clear-Site-Data", "Service-Worker-Allowed"),
    *("Access-Control-Allow-Origin", "Strict-Transport-Security", "WWW-Authenticate", "Vary"),
    *("Age", "Date", "Expires", "Retry-After", "Status", "Content-Type", "Content_Type"),
    *("X-Accel-Redirect", "X-Sendfile", "X-Tailchat-Sub", "X-Forwarded-For", "Link", "Alt-Svc"),
)


async def test_trailers_of_a_reply_give_no_orders(start_gate: Start) -> None:
    """What tells a browser or an edge what to do does not pass behind a body (A 6.5.1)."""
    sent = "".join(
        f"{name}: x\r\n" for name in (*RESPONSE_TRAILERS, "Server-Timing", "grpc-status")
    )
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + sent.encode() + b"\r\n"
    async with RawUpstream(answer) as upstream:
        gate = await start_gate(upstream.url, route=[public()])
        reader = await ask_for_trailers(gate)

    assert reader.split(b"0\r\n", 1)[1] == b"Server-Timing: x\r\ngrpc-status: x\r\n\r\n"


async def ask_for_trailers(gate: RunningGate) -> bytes:
    """Return all bytes behind the head of a reply to a client that reads trailers."""
    async with RawClient.connect(gate.port) as client:
        client.send(
            b"GET /open HTTP/1.1\r\nHost: gate.test\r\n"
            b"TE: trailers\r\nConnection: TE, close\r\n\r\n"
        )
        return (await client.reader.read(-1)).split(b"\r\n\r\n", 1)[1]


OTHER = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("Authorization", "Basic c2VjcmV0"),
        ("X-Api-Key", "key-of-{sub}"),
        ("Accept-Language", "de"),
        ("X-Own", "{nickname}"),
    ],
)
async def test_a_header_of_one_tool_is_the_visitors_at_another(
    start_gate: Start, upstream: RawUpstream, name: str, template: str
) -> None:
    """What a route sets is stripped there and before the same tool, and nowhere else."""
    hosts = ("localhost", "0.0.0.0", "[::ffff:127.0.0.1]")  # noqa: S104 - asked only
    async with RawUpstream() as other:
        routes = [
            public(name="sets", path="/sets", headers={name: template}),
            *(
                public(name=f"same-{number}", path=f"/same-{number}", upstream=same)
                for number, same in enumerate(upstream.url.replace("127.0.0.1", h) for h in hosts)
            ),
            public(name="other", path="/other", upstream=other.url),
        ]
        gate = await start_gate(upstream.url, route=routes)
        for path in ("/sets", "/same-0", "/same-1", "/same-2"):
            for spelling in spellings(name):
                assert await passed(gate, upstream, request([spelling], path)) == []

        assert await passed(gate, other, request([name.lower()], "/other")) == [name.lower()]


@pytest.mark.parametrize(
    ("path", "upstream_path", "prefix"),
    [
        ("/open", "/", b"/open"),
        ("/apps/open", "/open", b"/apps"),
        ("/open", "/other", None),
        ("/open", None, None),
        ("/open", "/open", None),
        ("/open", "/pen", None),
        ("/", "/inner", None),
    ],
)
async def test_a_tool_is_told_the_prefix_that_was_stripped(
    start_gate: Start, upstream: RawUpstream, path: str, upstream_path: str | None, prefix: bytes
) -> None:
    """X-Forwarded-Prefix is what the gate took off the path, never what a visitor says."""
    route = public(path=path, upstream_path=upstream_path, pass_fields=["X-Forwarded-Prefix"])
    if prefix is None:
        del route["pass_fields"]
    gate = await start_gate(upstream.url, route=[route])

    await ask(gate.port, request(["X-Forwarded-Prefix", "X_FORWARDED_PREFIX"], f"{path}/x"))

    assert upstream.requests[0].value("X-Forwarded-Prefix") == prefix


@pytest.mark.parametrize("signed_in", [True, False])
async def test_a_tool_is_told_the_address_on_request(
    start_gate: Start, upstream: RawUpstream, signed_in: bool
) -> None:
    """X-Real-IP and a template with {client} hold the address of each visitor."""
    headers = {"X-Client": "ip={client}", "X-Own": "{sub}"}
    gate = await start_gate(
        upstream.url,
        server={"real_ip": True, "trusted_proxies": ["127.0.0.1"]},
        route=[
            public(headers=headers),
            public(name="own", path="/own", headers={"X-Real-IP": "{client}"}),
        ],
    )
    sent = "X-Forwarded-For: 6.6.6.6, 2001:db8::7\r\nX-Real-IP: 6.6.6.6\r\nx_client: 6.6.6.6\r\n"
    sent += f"Cookie: {gate.cookie()}\r\n" if signed_in else ""
    for path in ("/open", "/own"):
        await ask(gate.port, f"GET {path} HTTP/1.1\r\nHost: gate.test\r\n{sent}\r\n".encode())

    first, second = upstream.requests
    assert first.value("X-Real-IP") == second.value("X-Real-IP") == b"2001:db8::7"
    assert first.value("X-Client") == b"ip=2001:db8::7"
    assert (first.value("X-Own") is not None) is signed_in
    assert b"6.6.6.6" not in first.head + second.head


async def test_two_addresses_behind_one_proxy_are_told_apart(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """On one connection, with fields that repeat, each request has its own visitor's address."""
    gate = await start_gate(
        upstream.url,
        server={"trusted_proxies": ["127.0.0.1"]},
        route=[public(headers={"X-Client": "{client}"})],
    )
    async with RawClient.connect(gate.port) as client:
        for last in (1, 2, 1):
            client.send(
                b"GET /open HTTP/1.1\r\nHost: gate.test\r\nX-Forwarded-For: 10.0.0.%d\r\n\r\n"
                % last
            )
            await client.response()

    found = [received.value("X-Client") for received in upstream.requests]
    assert found == [b"10.0.0.1", b"10.0.0.2", b"10.0.0.1"]


async def test_a_proxy_that_asks_is_told_the_address(start_gate: Start) -> None:
    """A header with {client} is in the answer to forward-auth, for nobody too."""
    gate = await start_gate(
        server={"trusted_proxies": ["127.0.0.1"]}, route=[public(headers={"X-Client": "{client}"})]
    )

    response = await ask(
        gate.port,
        b"GET /oauth2/auth HTTP/1.1\r\nHost: gate.test\r\nX-Forwarded-Uri: /open\r\n"
        b"X-Forwarded-Method: GET\r\nX-Forwarded-For: 10.0.0.7\r\n\r\n",
    )

    assert (response.status, response.value("X-Client")) == (202, "10.0.0.7")


def test_a_template_is_about_the_person_or_the_request() -> None:
    """{client} and the fields of a person do not stand in one template."""
    with pytest.raises(ValueError, match="without the others"):
        make_settings(route=[public(headers={"X-A": "{client} {sub}"})])


@pytest.mark.parametrize(
    ("passed_name", "found"),
    [
        ("X-Tailchat-Sub", "managed by the gate"),
        ("x_forwarded_for", "managed by the gate"),
        ("Connection", "managed by the gate"),
        ("X Y", "the name of a header"),
        ("X-Own", "does not set for the same tool"),
        ("x.own", "does not set for the same tool"),
    ],
)
def test_what_no_route_can_pass(passed_name: str, found: str) -> None:
    """The gate's own names, and those that it sets for the tool, stay its own."""
    routes = [public(pass_fields=[passed_name]), {"name": "b", "headers": {"X-Own": "{sub}"}}]
    with pytest.raises(ValueError, match=found):
        make_settings(route=routes)


def test_the_list_is_documented() -> None:
    """The table in docs/headers.md has every name of the list, and no other."""
    section = DOCUMENT.read_text(encoding="utf-8").split("## What a visitor cannot say")[1]
    section = section.split("\n## ")[0]
    rows = re.findall(r"^\| [^|]+ \| (`.*`) \|$", section, re.MULTILINE)

    found = [tuple(name.lower() for name in re.findall("`([^`]+)`", row)) for row in rows]
    assert found == list(CLAIMS.values())
    always = section.split("Dropped unless")[0].lower()
    assert all(f"`{name}`" in always for name in OWN)


def test_the_list_is_in_the_form_that_names_are_compared_in() -> None:
    """Each name is folded already, stands once, and no claim is the gate's own word."""
    every = [name for names in (OWN, *CLAIMS.values()) for name in names]

    assert len(set(every)) == len(every)
    for name in every:
        bare = name.removesuffix("*").encode()
        assert fold(bare) == bare
    for name in (name for names in CLAIMS.values() for name in names):
        folded = name.replace("*", "any").encode()
        assert is_claim(folded)
        assert not is_own(folded)
