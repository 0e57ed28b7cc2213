"""What a visitor does by HTTP/2 to have a proxy in front route by another thing than it asks by."""

import asyncio
from base64 import b64encode
from collections.abc import Sequence

from edgekit import TOKEN, Edge, in_front
from gatekit import Received
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, ResponseReceived, StreamEnded, StreamReset

pytestmark = in_front
_TIMEOUT = 10.0
WIKI, OTHER = "wiki.test", "other.test"

Fields = Sequence[tuple[str, str]]


def head(
    path: str = "/page", authority: str = WIKI, method: str = "GET", scheme: str = "http"
) -> list[tuple[str, str]]:
    """Return the pseudo-fields of a request (RFC 9113 section 8.3.1)."""
    found = [(":method", method), (":scheme", scheme), (":path", path)]
    return [*found, (":authority", authority)] if authority else found


#: Requests of a stranger of which some reading is one that he may not make.
REQUESTS: tuple[Fields, ...] = (
    head(),
    *(
        head(authority=authority)
        for authority in (
            *(OTHER, "WIKI.TEST", "wiki.test.", "wiki.test:80", "user@wiki.test", "gate.test"),
            *(
                "other.test@wiki.test",
                "wiki.test@other.test",
                "wiki.test/x",
                "wiki.test, other.test",
            ),
        )
    ),
    [*head(authority=OTHER), ("host", WIKI)],
    [*head(), ("host", OTHER)],
    [*head(), ("host", WIKI)],
    [*head(authority=""), ("host", WIKI)],
    [*head(authority=""), ("host", OTHER)],
    [*head(authority=""), ("host", WIKI), ("host", OTHER)],
    [*head(authority=""), ("host", OTHER), ("host", WIKI)],
    head(authority=""),
    [(":authority", OTHER), *head()],
    [(":authority", WIKI), *head(authority=OTHER)],
    [(":path", "/open"), *head()],
    [*head("/open"), (":path", "/page")],
    [("accept", "*/*"), *head()],
    *(
        head(path)
        for path in (
            *("page", "*", "", "?/open", "http://wiki.test/page", "http://other.test/page"),
            *("//wiki.test/page", "/open/../page", "/open/%2e%2e/page", "/open/..%2fpage"),
            *("/page#/open", "/page HTTP/1.1", "/page\r\nHost: other.test", "/open\n/../page"),
            *("/open\x00/../page", "/open\\..\\page", "/oauth2/../page", "/page;/open"),
        )
    ),
    head(method="POST"),
    head("/write", method="POST"),
    head("/write", method="post"),
    head("/write", method="DELETE"),
    head("/write", method="GET /write HTTP/1.1\r\nX: "),
    [(":method", "GET"), *head("/write", method="DELETE")],
    [*head("/page", method="CONNECT"), (":protocol", "websocket")],
    [*head("/page", method="CONNECT"), (":protocol", "h2c")],
    [(":method", "CONNECT"), (":authority", "wiki.test:80")],
    [*head("/open", method="CONNECT"), (":protocol", "foo")],
    head(scheme="https"),
    head(scheme="ftp"),
    head(scheme="http://wiki.test/page?"),
    [*head(), ("x-forwarded-uri", "/open")],
    [*head(), ("connection", "x-forwarded-uri"), ("x-forwarded-uri", "/open")],
    [*head("/write"), ("x-http-method-override", "DELETE")],
    [*head("/write"), ("X-HTTP-Method-Override", "DELETE")],
    [*head("/write"), ("transfer-encoding", "chunked")],
    [*head("/write"), ("x: a\r\nx-http-method-override", "DELETE")],
)
#: What a tool must not see of a public request.
CLAIMS = (
    ("x-tailchat-sub", "forged"),
    ("X-Tailchat-Sub", "forged"),
    ("x_tailchat_sub", "forged"),
    ("x-tailchat-sub ", "forged"),
    ("script-name", "forged"),
    ("remote-user", "forged"),
    ("x-other", "a\r\nX-Tailchat-Sub: forged"),
    ("x-other", "a\nX-Tailchat-Sub: forged"),
    ("x-other\r\nx-tailchat-sub", "forged"),
    ("x-other: a\r\nx-tailchat-sub", "forged"),
    ("connection", "x-tailchat-sub, forged"),
    ("upgrade", "forged"),
    ("te", "trailers, forged"),
)


async def sent(front: Edge, fields: Fields) -> tuple[int, list[Received]]:
    """Send one request; return its status, 0 for none, and what reached the tool of it."""
    tool = front.scene.tool
    tool.requests.clear()
    client = H2Connection(
        H2Configuration(
            client_side=True,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=False,
        )
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", front.http2_port)
    client.initiate_connection()
    client.send_headers(1, list(fields), end_stream=True)
    writer.write(client.data_to_send())
    try:
        async with asyncio.timeout(_TIMEOUT):
            status = await _status(client, reader, writer)
    finally:
        writer.close()
    return status, list(tool.requests)


async def _status(
    client: H2Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> int:
    status = 0
    while data := await _read(reader):
        for event in client.receive_data(data):
            if isinstance(event, ResponseReceived):
                status = int(dict(event.headers)[b":status"])
            if isinstance(event, StreamEnded | StreamReset | ConnectionTerminated):
                return status
        writer.write(client.data_to_send())
    return status


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65536)
    except ConnectionError:
        return b""


def own(front: Edge) -> str:
    """Return the tool's host as a browser sends it."""
    return f"{WIKI}:{front.port}"


async def test_a_stranger_reaches_no_closed_page(front: Edge) -> None:
    """Pseudo-fields that are odd, repeated or at odds with Host open nothing."""
    status, (received,) = await sent(front, head("/open", own(front)))
    assert (status, received.value("Host")) == (200, own(front).encode())
    reached = []
    for fields in REQUESTS:
        _, received_of_it = await sent(front, fields)
        reached += [
            (fields, received.head)
            for received in received_of_it
            if received.line not in {b"GET /open HTTP/1.1", b"GET /write HTTP/1.1"}
            or b"override" in received.head.lower()
        ]

    assert reached == []


async def test_a_visitor_claims_nothing(front: Edge) -> None:
    """No name or value of HTTP/2 becomes a field that only the gate may set."""
    assert (await sent(front, head("/open", own(front))))[0] == 200
    arrived = []
    for claim in CLAIMS:
        _, received_of_it = await sent(front, [*head("/open", own(front)), claim])
        arrived += [(claim, each.head) for each in received_of_it if b"forged" in each.head]

    assert arrived == []


async def test_a_machines_token_stays_at_the_gate(front: Edge) -> None:
    """The tool hears the name of the token, in whatever way it came; its own credentials arrive."""
    basic = "Basic " + b64encode(f"git:{TOKEN}".encode()).decode()
    plain = ("authorization", "Basic YTpi")
    for fields, rest in (
        ([("authorization", f"Bearer {TOKEN}")], []),
        ([("authorization", basic)], []),
        ([("x-tailchat-token", TOKEN)], []),
        ([("x-tailchat-token", TOKEN), plain], [b"Basic YTpi"]),
    ):
        status, (received,) = await sent(front, [*head("/page", own(front)), *fields])
        assert (status, received.values("X-Tailchat-Token")) == (200, [b"ci"])
        assert received.values("Authorization") == rest
