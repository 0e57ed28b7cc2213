"""What a stranger sends is remembered within bounds in bytes, however short or long it is."""

import tracemalloc
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from gatekit import ALICE, RawClient, make_settings, request_bytes
from processkit import gate_process

from tailchat_gate.access.routes import RouteTable
from tailchat_gate.identity.authenticator import MAX_BYTES, SessionCache, Visitor
from tailchat_gate.identity.sessions.cookies import CookieNames, CookieReader
from tailchat_gate.identity.sessions.session import SessionRecord
from tailchat_gate.observe.access_log import AccessLog
from tailchat_gate.request.client import ClientResolver
from tailchat_gate.request.fields import Limits
from tailchat_gate.request.head import RequestReader

MIB = 1 << 20
RECORD = SessionRecord.begin(ALICE, now=0, login="")


def _sections(field: Callable[[int], bytes], count: int) -> object:
    reader = RequestReader(Limits(16384, 65536, 128, 16384))
    for number in range(count):
        reader.read(b"GET / HTTP/1.1\r\n" + field(number) + b"\r\n")
    return reader


def _lines(target: Callable[[int], bytes], count: int) -> object:
    reader = RequestReader(Limits(16384, 65536, 128, 16384))
    for number in range(count):
        reader.read(b"GET " + target(number) + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    return reader


def _cookies(value: Callable[[int], bytes], count: int) -> object:
    reader = CookieReader(CookieNames.for_origin("http://gate.test"))
    for number in range(count):
        reader.session_values(value(number))
    return reader


def _texts() -> object:
    log = AccessLog(1, lambda: 0.0)
    for number in range(3000):
        log._texts("192.0.2.1", "GET", "a", 200, "public", "a", "", "", f"{number}" + "a" * 512)
    return log


def _clients() -> object:
    resolver = ClientResolver([ip_network("10.0.0.0/8")], default_scheme="http")
    for number in range(5000):
        resolver.forwarded("10.0.0.1", "x" * 2000 + f", 192.0.2.1, {number}", "http")
        resolver.direct(f"2001:db8::{number:x}")
        resolver.trusts(f"2001:db8::{number:x}")
    return resolver


def _paths() -> object:
    routes = RouteTable(make_settings(route=[{"name": "a"}, {"name": "b", "path": "/b"}]).route, {})
    for number in range(10_000):
        routes.match("gate.test", f"/{number}/" + "p" * 400, "GET")
    return routes


def _opened() -> object:
    opened = SessionCache()
    for number in range(20_000):
        opened.keep(("host", f"{number}" + "v" * 4000), Visitor(RECORD, 0, 0))  # type: ignore[arg-type] # a name will do
    assert opened._size <= MAX_BYTES
    return opened


#: A bound is below what so many values would take if all were kept, and tracing costs time.
FLOODS: dict[str, tuple[Callable[[], object], int]] = {
    "sections, short": (lambda: _sections(lambda n: b"Host:%x\r\n" % n, 15_000), 4),
    "sections of many fields": (
        lambda: _sections(lambda n: b"Host:%x\r\n" % n + b"a:\r\n" * 100, 2000),
        4,
    ),
    "sections, long": (lambda: _sections(lambda n: b"Host:%x\r\nA:" % n + b"a" * 4000, 4000), 8),
    "lines, short": (lambda: _lines(lambda n: b"/%x" % n, 20_000), 2),
    "lines, long": (lambda: _lines(lambda n: b"/%x" % n + b"a" * 4000, 5000), 16),
    "cookies, short": (lambda: _cookies(lambda n: b"a=%x" % n, 30_000), 16),
    "cookies of the gate": (
        lambda: _cookies(lambda n: b"tailchat_gate=%x" % n + b"z" * 3000, 10_000),
        16,
    ),
    "texts of the access log": (_texts, 4),
    "clients": (_clients, 8),
    "paths": (_paths, 4),
    "opened sessions": (_opened, 96),
}


@pytest.fixture
def traced() -> Iterator[None]:
    """Count what is allocated."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("name", FLOODS)
def test_what_is_remembered_has_a_bound_in_bytes(name: str, traced: None) -> None:
    """Ever new values of the worst length take no more than so many MiB."""
    flood, most = FLOODS[name]
    before = tracemalloc.get_traced_memory()[0]
    kept = flood()
    taken = tracemalloc.get_traced_memory()[0] - before

    assert kept is not None
    assert taken < most * MIB


async def test_a_process_that_is_flooded_stays_small(tmp_path: Path) -> None:
    """Thousands of requests that are different in every part cost little memory, over sockets."""
    route = [{"name": "tool", "allow": ["signed-in"]}]
    async with gate_process(tmp_path, route=route) as gate:
        await gate.ping()
        before = await gate.metric("process_resident_memory_bytes")
        async with RawClient.connect(gate.port) as client:
            for number in range(2500):
                client.send(
                    request_bytes(
                        f"/{number}/x?{number}",
                        host=f"h{number}.test",
                        User_Agent=f"{number}" + "a" * 50_000,
                        Cookie=f"a={number}; tailchat_gate={number}",
                        Accept="application/json",
                    )
                )
                assert (await client.response()).status in {401, 404, 421}
        after = await gate.metric("process_resident_memory_bytes")

    assert after - before < 48 * MIB
