"""What a stranger sends is remembered within bounds in bytes, however short or long it is."""

import tracemalloc
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest
from gatekit import ALICE, RawClient, make_settings, request_bytes
from processkit import gate_process

from tailchat_gate.access import host_table
from tailchat_gate.access.routes import RouteTable
from tailchat_gate.identity import authenticator
from tailchat_gate.identity.authenticator import Authenticator, SessionCache, Visitor
from tailchat_gate.identity.revocation.state import RevocationState
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions import cookie_fields
from tailchat_gate.identity.sessions.cookie_fields import CookieNames, CookieReader
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sessions.session_cookie import Lifetimes, SessionCookie
from tailchat_gate.observe import access_log
from tailchat_gate.observe.access_log import AccessLog
from tailchat_gate.request import client, head, sections
from tailchat_gate.request.claims import claimed_methods
from tailchat_gate.request.client import ClientResolver
from tailchat_gate.request.fields import HeadLimits
from tailchat_gate.request.head import RequestReader

MIB: Final = 1 << 20
RECORD = SessionRecord.begin(ALICE, now=0, login="")
#: A list of short elements, which takes far more memory as a set than as one value.
OPTIONS: Final = [b"%x" % number for number in range(300)]


def _twice(count: int) -> Iterator[int]:
    """Yield numbers, each twice: what comes only once is not remembered by most."""
    return (number for number in range(count) for _ in range(2))


def _heads(head: Callable[[int], bytes], count: int) -> object:
    reader = RequestReader(HeadLimits(16384, 65536, 128, 16384))
    for number in _twice(count):
        assert reader.read(head(number)) is not None
    return reader


def _sections(field: Callable[[int], bytes], count: int) -> object:
    return _heads(lambda number: b"GET / HTTP/1.1\r\n" + field(number) + b"\r\n", count)


def _claims() -> object:
    reader, value = RequestReader(HeadLimits(16384, 65536, 128, 16384)), b",".join(OPTIONS)
    for number in _twice(250):
        data = b"GET / HTTP/1.1\r\nHost:%x\r\nX-HTTP-Method:" % number + value + b"\r\n\r\n"
        found = reader.read(data)
        assert found is not None
        assert len(claimed_methods(found[0].fields, "")) == len(OPTIONS)
    return reader


def _passed() -> object:
    reader = RequestReader(HeadLimits(16384, 65536, 128, 16384))
    routes = [object() for _ in range(16)]
    for number in _twice(250):
        names = b"".join(b"%x-%x" % (number, place) + b"a" * 100 + b":\r\n" for place in range(10))
        found = reader.read(b"GET / HTTP/1.1\r\nHost: a\r\n" + names + b"\r\n")
        assert found is not None
        for route in routes:
            found[0].fields.shape.passed(route, lambda _route, _name: True)
    return reader


def _lines(target: Callable[[int], bytes], count: int) -> object:
    return _heads(lambda n: b"GET " + target(n) + b" HTTP/1.1\r\nHost: a\r\n\r\n", count)


def _texts() -> object:
    log = AccessLog(1, lambda: 0.0)
    for number in range(500):
        agent = f"{number}" + "a" * 512
        log._texts("192.0.2.1", "GET", "a", 200, "public", "", "a", "", "", "", agent)
    return log


def _clients() -> object:
    resolver = ClientResolver([ip_network("10.0.0.0/8")], default_scheme="http")
    for number in range(800):
        resolver.forwarded("10.0.0.1", "x" * 2000 + f", 192.0.2.1, {number}", "http")
        resolver.direct(f"2001:db8::{number:x}")
        resolver.trusts(f"2001:db8::{number:x}")
    return resolver


def _paths() -> object:
    routes = RouteTable(make_settings(route=[{"name": "a"}, {"name": "b", "path": "/b"}]).route, {})
    for number in _twice(1500):
        routes.match("gate.test", f"/{number}/" + "p" * 400, "GET")
    return routes


def _opened() -> object:
    opened = SessionCache()
    ring, names = KeyRing([b"a" * 32], "session"), CookieNames.for_origin("http://gate.test")
    cookie = SessionCookie(ring, names, Lifetimes(1.0, 0.0), lambda: 0.0)
    host = Authenticator(cookie, lambda: 0.0, RevocationState(lambda: 0.0), opened=opened)
    for number in range(4000):
        opened.keep((host, f"{number}" + "v" * 4000), Visitor(RECORD, 0, 0))
    return opened


def _cookies() -> object:
    reader = CookieReader(CookieNames.for_origin("http://gate.test"))
    # What was read last is at hand; what comes again after that is remembered.
    for number in (*range(1000), *range(1000)):
        reader.session_values(b"a=%x" % number)
        reader.session_values(b"tailchat_gate=%x" % number + b"z" * 3000)
    return reader


#: What is kept at most, and which part of it is enough to see that it is a bound: of sections,
#: which are dear to read, a smaller one.
BOUNDS: Final[tuple[tuple[ModuleType, str, int], ...]] = (
    *((sections, name, 64) for name in ("_KEPT_SECTIONS", "_KEPT_SHAPES", "_KEPT_KNOWN")),
    (head, "_KEPT_LINES", 16),
    (access_log, "_KEPT_TEXTS", 16),
    *((client, name, 16) for name in ("_MAX_CACHED_CHAINS", "_MAX_CACHED_PEERS")),
    (host_table, "MAX_KEPT", 16),
    (authenticator, "MAX_BYTES", 16),
    (cookie_fields, "_KEPT", 16),
)
#: KiB that each may take: more than is kept of it, and less than so many values would take.
FLOODS: Final[dict[str, tuple[Callable[[], object], int]]] = {
    "sections, short": (lambda: _sections(lambda n: b"Host:%x\r\n" % n, 1000), 800),
    "sections of many fields": (
        lambda: _sections(lambda n: b"Host:%x\r\n" % n + b"a:\r\n" * 60, 250),
        640,
    ),
    "sections, long": (
        lambda: _sections(lambda n: b"Host:%x\r\nA:" % n + b"a" * 4000 + b"\r\n", 250),
        1200,
    ),
    "sections, an agent that is not ASCII": (
        lambda: _sections(
            lambda n: b"Host:%x\r\nUser-Agent:" % n + b"a" * 1500 + b"\xf0\x9f\x98\x80\r\n", 250
        ),
        768,
    ),
    "sections, many options of Connection": (
        lambda: _sections(
            lambda n: b"Host:%x\r\nConnection:" % n + b",".join(OPTIONS[:60]) + b"\r\n", 250
        ),
        896,
    ),
    "sections, many claimed methods": (_claims, 784),
    "sections, lines for many routes": (_passed, 1312),
    "lines, short": (lambda: _lines(lambda n: b"/%x" % n, 3000), 640),
    "lines, long": (lambda: _lines(lambda n: b"/%x" % n + b"a" * 4000, 400), 1280),
    "texts of the access log": (_texts, 400),
    "clients": (_clients, 1024),
    "paths": (_paths, 512),
    "opened sessions": (_opened, 6144),
    "cookies": (_cookies, 640),
}


@pytest.fixture
def traced() -> Iterator[None]:
    """Count what is allocated."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


def _taken(flood: Callable[[], object]) -> int:
    """Return how many KiB a flood leaves behind."""
    before = tracemalloc.get_traced_memory()[0]
    kept = flood()
    assert kept is not None
    return (tracemalloc.get_traced_memory()[0] - before) >> 10


def _bound(monkeypatch: pytest.MonkeyPatch, change: Callable[[int, int], int]) -> None:
    for module, name, part in BOUNDS:
        monkeypatch.setattr(module, name, change(getattr(module, name), part))


@pytest.mark.parametrize("name", FLOODS)
def test_what_is_remembered_has_a_bound_in_bytes(
    name: str, traced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ever new values of the worst length take no more than so much."""
    flood, most = FLOODS[name]
    _bound(monkeypatch, lambda bound, part: bound // part)

    assert _taken(flood) < most


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_without_a_bound_is_noticed(
    name: str, traced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same values take more where all of them are kept: none of these tests is too small."""
    flood, most = FLOODS[name]
    _bound(monkeypatch, lambda _bound, _part: 1 << 40)

    assert _taken(flood) > most


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
