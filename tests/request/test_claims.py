"""Paths that fields name are judged as the request's own is; Apache's mod_dav behind the gate."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from edge_fields import FILES
from gatekit import (
    RawClient,
    RawUpstream,
    Response,
    RunningGate,
    ask,
    make_settings,
    request_bytes,
)
from toolkit import apache

from tailchat_gate.access.routes import RouteTable
from tailchat_gate.identity.machine_tokens import hash_of, make_token
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.claims import ELSEWHERE, FIELDS, NAMES, claimed_paths
from tailchat_gate.request.fields import FieldSection

Start = Callable[..., Any]
DEPLOY = Path(__file__).parents[2] / "deploy"
ALICE = Profile("alice", "Alice", "0001", "")
ZOE = Profile("zoe", "Zoe", "0002", "")
#: How Envoy's file says that every field goes to the question.
PASSES_ALL = '- safe_regex: { regex: ".*" }'
TOKEN = make_token(bytes(32))
ROUTES = (
    {"name": "public", "path": "/public", "allow": ["public"]},
    {"name": "admin", "path": "/admin", "allow": ["sub:alice", "token:ci"]},
    {"name": "read", "path": "/read", "allow": ["sub:alice"]},
    {"name": "reading", "path": "/read", "allow": ["public"], "methods": ["GET"]},
    {"name": "moved", "path": "/moved", "allow": ["public"], "upstream_path": "/public/in"},
    {"name": "other", "path": "/other", "allow": ["public"], "upstream": "http://127.0.0.1:9"},
)


async def say(
    gate: RunningGate,
    method: str,
    path: str,
    who: Profile | None = None,
    /,
    **fields: str,
) -> Response:
    """Send a request of somebody, with further fields."""
    if who is not None:
        fields["Cookie"] = gate.cookie(who)
    data = request_bytes(path, method=method)[:-2]
    for name, value in fields.items():
        data += f"{name.replace('_', '-')}: {value}\r\n".encode()
    return await ask(gate.port, data + b"\r\n")


async def start(start_gate: Start, upstream: str, **sections: Any) -> RunningGate:  # noqa: ANN401 - tables of the configuration
    """Start a gate before one tool with an open and a closed place."""
    token = [{"name": "ci", "hash": hash_of(TOKEN)}]
    gate = await start_gate(
        upstream, route=[dict(route) for route in ROUTES], token=token, **sections
    )
    assert isinstance(gate, RunningGate)
    return gate


OUTSIDE = (
    *("/admin/x", "http://gate.test/admin/x", "https://gate.test/admin/x", "/public/../admin/x"),
    *("/public/%2e%2e/admin/x", "HTTP://GATE.test:80/admin/x", "/read/x", "/nowhere/x", "/"),
    *("http://evil.test/public/x", "http://gate.test:81/public/x", "http://gate.test.evil.test/x"),
    *("//evil.test/public/x", "ftp://gate.test/public/x", "http://u@gate.test/public/x", ""),
    *("/public/x y", "/public/\\x", "/public/%00", "http://gate.test/admin.json", "/other/x"),
    *("/moved/../admin", "admin/x", "admin%2Fx", "http:/public/x", "/public/x#y", "/public/\u00e9"),
)


@pytest.mark.parametrize("method", ["COPY", "MOVE", "PUT", "MKCOL", "POST"])
async def test_no_destination_leads_where_nobody_may_write(
    start_gate: Start, upstream: RawUpstream, method: str
) -> None:
    """A Destination that the visitor may not write, or that is elsewhere, is refused by 403."""
    gate = await start(start_gate, upstream.url)

    for named in OUTSIDE:
        for who in (None, ZOE):
            response = await say(gate, method, "/public/a", who, Destination=named)
            assert response.status == 403, named
            assert response.json["error"] == "claim-refused", named
    assert upstream.requests == []
    for named in ("/public/b", "/public/b%20c/", "http://gate.test/public/b", "/public"):
        assert (await say(gate, method, "/public/a", None, Destination=named)).status == 200, named
        assert upstream.requests[-1].values("Destination") == [named.encode()]
    assert (await say(gate, method, "/public/a", ALICE, Destination="/admin/b")).status == 200
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for path, named, status in (
        ("/admin/a", "/public/b", 200),
        ("/public/a", "/admin/b", 200),
        ("/public/a", "/read/b", 403),
    ):
        response = await say(gate, method, path, None, Destination=named, **bearer)
        assert response.status == status, named


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ('(<urn:uuid:x> ["a)b"]) (Not <DAV:no-lock>)', 200),
        ("</public/b> (<urn:uuid:x>)", 200),
        ('<http://gate.test/public/a> (["</admin/x>"]) (<urn:y>) </public/b> (["e"])', 200),
        ("</admin/b> (<urn:uuid:x>)", 403),
        ("</public/b> (<urn:uuid:x>) <http://gate.test/admin/x> (<urn:uuid:y>)", 403),
        ("<http://evil.test/public/b> (<urn:uuid:x>)", 403),
        ("(<urn:uuid:x>", 403),
        ("</public/b", 403),
        ("public", 403),
    ],
)
async def test_tagged_lists_are_judged(
    start_gate: Start, upstream: RawUpstream, value: str, status: int
) -> None:
    """An If field may name what the visitor may do the same with, and nothing else."""
    gate = await start(start_gate, upstream.url)

    assert (await say(gate, "PUT", "/public/a", None, If=value)).status == status
    assert len(upstream.requests) == (status == 200)


SOURCES = sorted(
    name.decode() for name, field in FIELDS.items() if field.relative and b"rename" not in name
)


@pytest.mark.parametrize("name", SOURCES)
async def test_the_source_of_a_copy_is_judged_as_read(
    start_gate: Start, upstream: RawUpstream, name: str
) -> None:
    """What an object is copied from has to be readable, by whatever cloud's field."""
    gate = await start(start_gate, upstream.url)
    closed: tuple[str, ...] = (
        *("/admin/x", "admin/x", "/admin%2Fx?versionId=3", "%61dmin/x", "/public/..%2fadmin/x"),
        *("http://evil.test/public/x", "arn:aws:s3:us:1:accesspoint/a/object/admin"),
    )
    if not FIELDS[name.encode()].in_account:
        closed += ("/nowhere", "nowhere/x", "/public%2f..%2fnowhere")
    for named in closed:
        response = await say(gate, "PUT", "/public/a", ZOE, **{name: named})
        assert response.status == 403, named
        assert response.json["error"] == "claim-refused", named
    for named in ("/public/x", "public/x?versionId=3", "read/x"):
        assert (await say(gate, "PUT", "/public/a", ZOE, **{name: named})).status == 200, named
        assert upstream.requests[-1].value(name) == named.encode()
    # From the root that the tool sees: behind a replaced path that is another one.
    assert (await say(gate, "PUT", "/moved/a", None, **{name: "/public/in/x"})).status == 200
    assert (await say(gate, "PUT", "/moved/a", None, **{name: "/admin/x"})).status == 403


async def test_what_is_moved_has_to_be_writable(start_gate: Start, upstream: RawUpstream) -> None:
    """What is renamed is taken away from where it was."""
    gate = await start(start_gate, upstream.url)
    for name in ("x-amz-rename-source", "x-ms-rename-source"):
        assert (await say(gate, "PUT", "/public/a", None, **{name: "/read/x"})).status == 403
        assert (await say(gate, "PUT", "/public/a", None, **{name: "/public/x"})).status == 200
    for parts, status in (("final;/public/b /public/c", 200), ("final;/public/b /admin/c", 403)):
        assert (await say(gate, "POST", "/public/a", None, Upload_Concat=parts)).status == status
    assert (await say(gate, "POST", "/public/a", None, Upload_Concat="partial")).status == 200


async def test_what_cannot_be_judged_is_refused(start_gate: Start, upstream: RawUpstream) -> None:
    """Another account, a field that came twice, and paths without number are refused."""
    gate = await start(start_gate, upstream.url)
    for name in sorted(ELSEWHERE):
        response = await say(gate, "COPY", "/public/a", None, **{name.decode(): "other"})
        assert response.status == 403, name
    twice = {"Destination": "/public/b", "destination": "/public/c"}
    assert (await say(gate, "COPY", "/public/a", None, **twice)).status == 403
    many = " ".join(f"</public/{n}> (<urn:x>)" for n in range(17))
    assert (await say(gate, "PUT", "/public/a", None, If=many)).status == 403
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("path", "field", "sent", "told"),
    [
        (
            "/moved/a",
            "Destination",
            "http://gate.test/moved/b%20c",
            "http://gate.test/public/in/b%20c",
        ),
        ("/moved/a", "Destination", "/moved/b", "/public/in/b"),
        ("/moved/a", "Destination", "/public/b", "/public/b"),
        ("/public/a", "Destination", "https://gate.test/moved/b", "http://gate.test/public/in/b"),
        ("/public/a", "Destination", "https://gate.test/public/b", "http://gate.test/public/b"),
        (
            *("/moved/a", "If"),
            '<https://gate.test/moved/b> (<urn:x>) </public/c> (["</moved/d>"])',
            '<http://gate.test/public/in/b> (<urn:x>) </public/c> (["</moved/d>"])',
        ),
        (
            "/moved/a",
            "Upload-Concat",
            "final; /moved/b /moved/c",
            "final; /public/in/b /public/in/c",
        ),
    ],
)
async def test_paths_in_fields_are_told_in_the_tools_view(
    start_gate: Start, upstream: RawUpstream, path: str, field: str, sent: str, told: str
) -> None:
    """Where the path is replaced, or TLS ends here, the tool reads a path of its own."""
    gate = await start(start_gate, upstream.url)

    for _ in range(2):
        async with RawClient.connect(gate.port) as client:
            client.send(request_bytes(path, method="COPY", host="gate.test", **{field: sent}))
            assert (await client.response()).status == 200
    assert [request.values(field) for request in upstream.requests] == [[told.encode()]] * 2


@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("name", ["Upload_Concat", "Upload.Concat"])
async def test_a_path_in_a_field_with_an_odd_name_is_told_in_the_tools_view(
    start_gate: Start, upstream: RawUpstream, name: str, *, passes: bool
) -> None:
    """Such a name, which CGI or PHP takes for the one with a dash, reaches a tool where it may."""
    moved = {**ROUTES[4], "pass_fields": [name] if passes else []}
    gate = await start_gate(upstream.url, route=[dict(ROUTES[0]), moved])
    head = f"POST /moved/a HTTP/1.1\r\nHost: gate.test\r\n{name}: final;/moved/b\r\n\r\n"

    assert (await ask(gate.port, head.encode())).status == 200
    assert upstream.requests[0].values(name) == ([b"final;/public/in/b"] if passes else [])


async def test_a_path_in_a_field_with_an_odd_name_is_judged(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A name with a dot, which PHP takes for the one with a dash, is no way around a rule."""
    public = {**ROUTES[0], "pass_fields": ["X.Amz.Copy.Source"]}
    gate = await start_gate(upstream.url, route=[public, dict(ROUTES[2])])
    for path, status in (("/read/x", 403), ("/public/x", 200)):
        fields = {"X.Amz.Copy.Source": path}
        assert (await say(gate, "PUT", "/public/a", None, **fields)).status == status


async def test_a_port_that_a_proxy_left_out_of_the_host_is_the_visitors(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """Nginx's $host has no port, the client's Destination has: the tool is told of one place."""
    public = {"public_url": "https://gate.test:8443"}
    gate = await start(start_gate, upstream.url, server=public)
    for host, named, status in (
        ("gate.test", "https://gate.test:8443", 200),
        ("gate.test", "http://gate.test:8443", 200),
        ("gate.test", "http://gate.test:9443", 403),
        ("gate.test:9443", "http://gate.test:8443", 403),
    ):
        fields = {"Destination": f"{named}/public/b"}
        copied = request_bytes("/public/a", method="COPY", host=host, **fields)
        assert (await ask(gate.port, copied)).status == status, named
    told = [request.values("Destination") for request in upstream.requests]
    assert told == [[b"http://gate.test/public/b"]] * 2


async def test_no_path_comes_behind_a_body(start_gate: Start, upstream: RawUpstream) -> None:
    """A trailer names no path."""
    gate = await start(start_gate, upstream.url)
    trailers = b"".join(b"%b: /admin/x\r\n" % name for name in NAMES) + b"X-Sum: 1\r\n"
    head = b"PUT /public/a HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n"

    assert (await ask(gate.port, head + b"0\r\n" + trailers + b"\r\n")).status == 200
    assert upstream.requests[0].trailers == [b"X-Sum: 1"]


async def test_forward_auth_judges_paths_in_fields(start_gate: Start) -> None:
    """A proxy that hands the fields of a request to its question gets the same answer."""
    gate = await start(start_gate, "http://127.0.0.1:9", server={"trusted_proxies": ["127.0.0.1"]})
    asked = {"X-Forwarded-Uri": "/public/a", "X-Forwarded-Method": "COPY"}
    asked["X-Forwarded-Host"] = "gate.test"
    for named, status in (
        ("https://gate.test/public/b", 202),
        ("/other/b", 202),
        ("https://gate.test/admin/b", 403),
        ("https://evil.test/public/b", 403),
    ):
        response = await say(gate, "GET", "/oauth2/auth", None, Destination=named, **asked)
        assert response.status == status, named


def test_proxies_pass_the_fields_with_paths_to_the_question() -> None:
    """Each proxy of deploy/ passes all fields to the question but those it takes out by name."""
    envoy = (DEPLOY / "envoy/envoy.yaml").read_text()
    lua = (DEPLOY / "haproxy/tailchat-gate.lua").read_text()
    unasked = re.search(r"local UNASKED = \{(.*?)\n\}", lua, re.DOTALL)

    assert PASSES_ALL in envoy
    assert "authRequestHeaders:" not in (DEPLOY / "traefik/dynamic.yaml").read_text()
    assert unasked is not None
    left_out = set(re.findall(r"[a-z][a-z0-9-]+", unasked[1]))
    assert not left_out & {name.decode() for name in NAMES}


@pytest.mark.parametrize("file", FILES)
def test_each_proxy_has_the_list_of_fields(file: str) -> None:
    """What the gate drops itself, every proxy is told to drop: the same names, none forgotten."""
    assert FILES[file]() in (DEPLOY / file).read_text()


def test_fields_are_read_once() -> None:
    """What a section names is kept with it; a field of no such name costs nothing more."""
    section = FieldSection([(b"Host", b"h"), (b"Destination", b"/a")])
    plain = FieldSection([(b"Host", b"h")])

    assert claimed_paths(section) is claimed_paths(section)
    assert claimed_paths(plain) == ()
    with pytest.raises(RefusedError) as refused:
        claimed_paths(FieldSection([(b"Host", b"h"), (b"DESTINATION", b"")]))
    assert refused.value.reason is Reason.CLAIM_REFUSED


# Apache.


@asynccontextmanager
async def webdav(directory: Path) -> AsyncIterator[str]:
    """Serve two folders with Apache's mod_dav."""
    for name in ("public/in", "admin"):
        (directory / "site" / name).mkdir(parents=True)
    (directory / "site/public/a.txt").write_text("open")
    (directory / "site/public/in/locked.txt").write_text("open")
    (directory / "site/admin/s.txt").write_text("secret")
    lines = (f"DavLockDB {directory}/locks", "<Directory />", "Dav On", "</Directory>")
    for path in (directory, *directory.rglob("*")):  # noqa: ASYNC240 - a few, before it starts
        path.chmod(0o777 if path.is_dir() else 0o666)
    async with apache(directory, ("dav", "dav_fs"), *lines) as url:
        yield url


async def test_apache_copies_and_moves_where_somebody_may(
    start_gate: Start, tmp_path: Path
) -> None:
    """COPY and MOVE work in the visitor's view, with and without a replaced path; not elsewhere."""
    async with webdav(tmp_path / "dav") as tool:
        site = tmp_path / "dav/site"
        gate = await start(start_gate, tool)
        for method in ("COPY", "MOVE"):
            for origin in ("http://gate.test", "https://gate.test", ""):
                named = f"{origin}/admin/x"
                response = await say(gate, method, "/public/a.txt", None, Destination=named)
                assert response.status == 403
        assert sorted(path.name for path in (site / "admin").iterdir()) == ["s.txt"]

        async def moved(method: str, path: str, destination: str) -> int:
            return (await say(gate, method, path, None, Destination=destination)).status

        assert await moved("COPY", "/public/a.txt", "http://gate.test/public/b.txt") == 201
        assert await moved("COPY", "/public/a.txt", "https://gate.test/public/c.txt") == 201
        assert await moved("MOVE", "/public/c.txt", "https://gate.test/moved/d.txt") == 201
        assert await moved("COPY", "/moved/d.txt", "https://gate.test/moved/e.txt") == 201
        assert await moved("MOVE", "/moved/e.txt", "http://gate.test/moved/f%20g.txt") == 201
        (site / "public/in/locked.txt").unlink()
        found = sorted(str(path.relative_to(site)) for path in site.rglob("*.txt"))
        assert found == [
            *("admin/s.txt", "public/a.txt", "public/b.txt", "public/in/d.txt", "public/in/f g.txt")
        ]


_LOCK = b"""<?xml version="1.0"?>
<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>
<D:locktype><D:write/></D:locktype></D:lockinfo>"""


async def test_apache_takes_the_lock_that_a_tagged_list_names(
    start_gate: Start, tmp_path: Path
) -> None:
    """LOCK and If with a tagged list work in the visitor's view; a foreign tag is refused."""
    async with webdav(tmp_path / "dav") as tool:
        gate = await start(start_gate, tool)
        lock = request_bytes("/moved/locked.txt", method="LOCK", Content_Length=str(len(_LOCK)))
        response = await ask(gate.port, lock + _LOCK)
        assert response.status == 200
        token = re.search(r"<[^>]+>", response.value("Lock-Token"))
        assert token is not None

        async def put(condition: str) -> int:
            fields = {"Content_Length": "0", **({"If": condition} if condition else {})}
            return (await say(gate, "PUT", "/moved/locked.txt", None, **fields)).status

        assert await put("") == 423
        assert await put(f"<https://gate.test/moved/locked.txt> ({token[0]})") == 204
        assert await put(f"</moved/locked.txt> ({token[0]})") == 204
        assert await put(f"<https://gate.test/admin/s.txt> ({token[0]})") == 403


#: One of a hundred readings, in a few bytes.
ODD = "%2e;a/%252e%5cx.b.c"


@pytest.mark.parametrize(
    ("path", "name"),
    [("/open/x", f"</open/{ODD}>"), ("/open/x", f"<{ODD}>"), (f"/open/{ODD}/x", "<x>")],
)
async def test_all_names_have_no_more_readings_than_one_path(
    start_gate: Start, upstream: RawUpstream, path: str, name: str
) -> None:
    """Sixteen names cost no more than one path may, and sixteen that are plain are taken."""
    gate = await start_gate(upstream.url, route=OPEN)
    names = " ".join(f"{name[:-1]}{count}> (<a:b>)" for count in range(16))
    refused = await say(gate, "PUT", path, If=names)
    assert (refused.status, b"too many ways" in refused.body) == (400, True)

    plain = " ".join(f"{mark}{count}> (<a:b>)" for mark in ("</open/", "<") for count in range(8))
    assert (await say(gate, "PUT", "/open/x", If=plain)).status == 200
    assert len(upstream.requests) == 1


def test_names_are_judged_once_for_all_methods_that_are_none() -> None:
    """However many methods a request claims, a name meets the rules of few."""
    table = RouteTable(make_settings(route=OPEN).route, {})
    many = frozenset(f"M{number}" for number in range(2000))
    for path in ("/open/x", "/x"):
        assert table.touched("h", path, many) == table.touched("h", path, {"M0"})
        assert 0 < len(table.touched("h", path, many | {"GET", "PUT"})) < 12


OPEN = [
    {"name": "any", "allow": ["public"]},
    {"name": "open", "path": "/open", "allow": ["public"]},
    {"name": "reading", "path": "/open", "allow": ["public"], "methods": ["GET"]},
]


async def test_a_destination_is_told_by_the_route_of_each_method(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """Two methods with the same fields are told of two places, where two routes serve the path."""
    public = {"allow": ["public"]}
    gate = await start_gate(
        upstream.url,
        route=[
            {**public, "name": "files", "path": "/files"},
            {**public, "name": "copies", "path": "/to", "methods": ["COPY", "PUT"],
             "upstream_path": "/copies"},
            {**public, "name": "moves", "path": "/to", "methods": ["MOVE"],
             "upstream_path": "/moves"},
        ],
    )  # fmt: skip
    for method in ("COPY", "MOVE", "COPY"):
        assert (await say(gate, method, "/files/a", Destination="/to/b")).status == 200

    told = [request.value("Destination") for request in upstream.requests]
    assert told == [b"/copies/b", b"/moves/b", b"/copies/b"]
