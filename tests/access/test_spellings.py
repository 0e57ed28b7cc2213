"""No spelling of a path, host or method gets past a stricter rule, and no honest one is broken."""

from dataclasses import replace
from itertools import product
from typing import NamedTuple

import pytest
from choices import Choices, chosen
from hypothesis import given, settings
from routekit import (
    ALICE,
    EVERYBODY,
    ZOE,
    Asker,
    Row,
    around,
    lets_in,
    make_table,
    may,
    taking,
)

from fuzz.reference.servers import SERVERS
from tailchat_gate.reasons import RefusedError


@pytest.mark.parametrize(
    "path",
    [
        "/group%2Fproject",
        "/a;b",
        "/x//y",
        "/%E6%98%9F",
        "/a%20b",
        "/search/what%3F",
        "/c%23/docs",
        "/100%25",
        "/~user/",
        "/v1./x",
        "/caf%C3%A9;v=1//a%2Fb%20c",
        "/wiki/a%2Fb",
        "/wiki//a;b",
        "/wiki/%E6%98%9F%E9%87%8E",
    ],
)
def test_honest_paths_pass(path: str) -> None:
    """Who may have every reading of an odd but honest path gets it, on every kind of table."""
    rows = (Row("/", ("signed-in",)), Row("/wiki", ("signed-in",)), Row("/admin", ("group:ops",)))
    below = tuple(replace(row, host="*.test") for row in rows)
    methods = (Row("/wiki", ("group:ops",), methods=("DELETE",)), Row("/feed", methods=("GET",)))
    tables = (
        make_table(*rows),
        make_table(*below, Row("/", ("group:ops",))),
        make_table(*rows, *methods),
        make_table(*rows, denied=["group:banned", "token:backup"]),
    )

    for table in tables:
        for method in ("GET", "HEAD", "POST"):
            assert may(table, path, ALICE, method=method)
            assert may(table, path, ZOE, method=method)
            assert not may(table, path, method=method)
    assert may(make_table(Row()), path)
    assert may(make_table(Row(methods=("GET",)), Row(allow=("group:ops",))), path)


@pytest.mark.parametrize(
    ("path", "stranger", "zoe"),
    [
        ("/public", True, True),
        ("/public/x", True, True),
        ("/publicx", False, True),
        ("/public.", False, True),
        ("/public%2e", False, True),
        ("/public/%2e%2e/x", False, True),
        ("/public%2fx", False, True),
        ("/PUBLIC", False, True),
        ("/Public/x", False, True),
        ("/public/..%2fPUBLIC/x", False, True),
        ("/public/..", False, True),
        ("/public/../admin", False, False),
        ("/public/..%2fadmin", False, False),
        ("/public/..%5cadmin", False, False),
        ("/public/..;/admin", False, False),
        ("/public/%252e%252e/admin", False, False),
        ("/public/x%2fy/%2e%2e/%2e%2e/admin", False, False),
        ("/x/../public", False, True),
        ("/admin/../public", False, False),
        ("/Admin", False, False),
        ("//x/admin", False, False),
        ("/admin.", False, False),
        ("/admin%3fx", False, False),
        ("/public/%00", False, False),
        ("/public/" + "%252e%252e%252f;%255c//" * 300, False, False),
    ],
)
def test_strictest_reading_counts(path: str, stranger: bool, zoe: bool) -> None:
    """Who may have one reading of a path and not another gets neither."""
    table = make_table(
        Row("/", ("signed-in",)), Row("/public", ("public",)), Row("/admin", ("group:ops",))
    )

    assert may(table, path) == stranger
    assert may(table, path, ZOE) == zoe


def test_routes_that_differ_in_case_are_both_judged() -> None:
    """Two routes that a careless server takes for one are guarded by both rules."""
    table = make_table(Row("/"), Row("/Docs"), Row("/docs", ("group:ops",)))
    match = table.match("gate.test", "/Docs/x", "GET")

    assert match is not None
    assert match.route.settings.path == "/Docs"
    assert not may(table, "/Docs/x")
    assert may(table, "/DOCS/x", ALICE)


def test_a_place_of_the_host_hides_the_one_for_any_host() -> None:
    """Where a host has a path of its own, the rule of the same path for any host is not met."""
    table = make_table(
        Row("/x", ("group:ops",)), Row("/x", host="*.test"), Row("/X", host="a.test")
    )

    assert may(table, "/x", host="b.test")
    assert not may(table, "/x", host="b.other")
    assert may(table, "/X", host="a.test")
    assert not may(table, "/x", host="other")


def test_a_path_without_end_is_refused() -> None:
    """A path made to be read in many ways is refused as a bad request, before any rule."""
    table = make_table(Row("/", ("signed-in",)), Row("/admin", ("group:ops",)))

    with pytest.raises(RefusedError, match="too many ways"):
        table.match("gate.test", "/" + "%252e%252e%252f;%255c//" * 300, "GET")


def as_sent(method: str, _named: frozenset[str]) -> str:
    """Take a method for what it is (RFC 9110 section 9.1: its case counts)."""
    return method


def capitals(method: str, _named: frozenset[str]) -> str:
    """Django and Werkzeug: the method in capitals."""
    return method.upper()


def unknown_is_get(method: str, named: frozenset[str]) -> str:
    """A PHP script that asks for POST and shows its page for all else it was not told of."""
    common = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
    return method if method in common | named else "GET"


METHOD_READERS = (as_sent, capitals, unknown_is_get)


# Each table is its rows and the deny list for all of them. "*.test" covers gate.test.
Table = tuple[tuple[Row, ...], tuple[str, ...]]
PUBLIC, SIGNED_IN, OPS = ("public",), ("signed-in",), ("group:ops",)
MACHINES = ("token:backup", "sub:zoe")
BANNED = ("group:banned",)
TABLES: tuple[Table, ...] = (
    ((Row("/", PUBLIC), Row("/admin", OPS)), ()),
    ((Row("/public", PUBLIC), Row("/admin", OPS)), ()),
    ((Row("/", PUBLIC), Row("/public", PUBLIC), Row("/admin", SIGNED_IN)), ()),
    ((Row("/", SIGNED_IN), Row("/public", PUBLIC), Row("/public/admin", OPS)), ()),
    (
        (
            *(Row("/", PUBLIC), Row("/x", SIGNED_IN), Row("/x/admin", OPS)),
            Row("/x/admin/y", PUBLIC),
        ),
        (),
    ),
    ((Row("/admin", OPS), Row("/admin/public", PUBLIC)), ()),
    # Deny lists, of a route and of all.
    ((Row("/", SIGNED_IN, deny=("sub:zoe",)), Row("/admin", SIGNED_IN), Row("/x", OPS)), BANNED),
    ((Row("/", PUBLIC, deny=BANNED), Row("/admin", SIGNED_IN, deny=("sub:alice",))), ()),
    ((Row("/", MACHINES), Row("/admin", ("token:backup", "group:ops"))), ("token:other",)),
    ((Row("/", MACHINES), Row("/admin", MACHINES, deny=("token:backup",))), ()),
    # Hosts: the place of the longest path counts, then that of the nearest host.
    ((Row("/", OPS), Row("/", PUBLIC, "*.test"), Row("/admin", SIGNED_IN)), ()),
    ((Row("/", PUBLIC, "gate.test"), Row("/admin", OPS, "*.test"), Row("/admin", PUBLIC)), ()),
    ((Row("/admin", PUBLIC), Row("/", SIGNED_IN, "*.test"), Row("/Admin", OPS, "gate.test")), ()),
    ((Row("/", PUBLIC), Row("/admin", PUBLIC), Row("/admin", OPS, "*.test")), ()),
    # Methods.
    ((Row("/", PUBLIC, methods=("GET",)), Row("/", OPS)), ()),
    ((Row("/", OPS, methods=("GET",)), Row("/", SIGNED_IN), Row("/admin", OPS)), ()),
    ((Row("/", SIGNED_IN), Row("/admin", OPS, methods=("GET", "POST"))), ()),
    ((Row("/", PUBLIC), Row("/admin", OPS, methods=("DELETE", "PUT")), Row("/admin", PUBLIC)), ()),
    (
        (
            *(Row("/", SIGNED_IN, methods=("GET",)), Row("/", OPS, methods=("POST", "PROPFIND"))),
            *(Row("/public", PUBLIC, "*.test"), Row("/public", OPS, "*.test", ("DELETE",))),
        ),
        BANNED,
    ),
)
#: Without paths that differ in case alone, of which every server's reading is in doubt.
PLAIN_TABLES = [table for table in TABLES if all(row.path != "/Admin" for row in table[0])]
MADE = {table: make_table(*table[0], denied=table[1]) for table in TABLES}
HOSTS = ("gate.test", "GATE.Test.", "gate.test:8443", "x.gate.test", "test", "badtest")
METHODS = (
    *("GET",) * 4,
    *("HEAD", "POST", "DELETE", "PUT", "OPTIONS", "PROPFIND", "MKCOL", "BREW"),
    *("get", "Delete", "pOST", "propfind", "GET2", "_"),
)


SEGMENTS = (
    *("admin", "public", "x", "y", "Admin", "PUBLIC", "", ".", "..", "...", "%2e", "%2E%2e"),
    *(".%2e", "..;", "..;a=b", ".;", "x;y", ";", "..%3b", "%252e%252e", "%25252e.", "%c0%ae%c0%ae"),
    *("%e0%80%ae%e0%80%ae", "%f0%80%80%ae.", "%ef%bc%8e%ef%bc%8e", "%e2%80%a5", "%u002e%u002e"),
    *("admin.", "admin%20", "admin%20.", "admin%2500z", "admin%3f", "admin%23z", "ad%09min"),
    *(
        "adm%c4%b1n",
        "%ef%bd%81dmin",
        "%61dmin",
        "%2561dmin",
        "admin;v=1",
        "%c1%a1dmin",
        "%u0061dmin",
    ),
    *("publicx", "Public", "adminx", "%ff", "..%20", "%E6%98%9F", "a%20b", "%", "%2", "%zz"),
)
SEPARATORS = (
    *("/",) * 8,
    *("//", "///", "%2f", "%2F", "%5c", "%252f", "%255c", "%c0%af", "%ef%bc%8f", "/./", "/%2e/"),
    *("/x/../", "/x/%2e%2e/", "/x%2f..%2f", "/;/", "%2f%2f", "%5c%2f", "%25252f", "%u002f"),
)


def spelling(choices: Choices) -> str:
    """Return a path made of a few segments, separators and escapes on top of them."""
    path = "/" + choices.of(("", "", "/"))
    for index in range(choices.between(1, 5)):
        path += choices.of(SEPARATORS) if index else ""
        path += choices.of(SEGMENTS)
    for _ in range(choices.between(0, 2)):
        place = choices.between(1, len(path))
        escaped = "".join(f"%{ord(sign):02x}" for sign in path[place : place + 1])
        path = (
            path[:place] + escaped.replace("%", "%" + "25" * choices.below(3)) + path[place + 1 :]
        )
    return path


class Asked(NamedTuple):
    """A request, and a table that it meets."""

    path: str
    host: str
    method: str
    table: Table
    asker: Asker


def asked(choices: Choices) -> Asked:
    """Return any request."""
    return Asked(
        spelling(choices),
        choices.of(HOSTS),
        choices.of(METHODS),
        choices.of(TABLES),
        choices.of(EVERYBODY),
    )


#: Honest paths.
PLAIN = ("/", "/x", "/x/y", "/admin", "/admin/x", "/public/admin", "/z/public")


def asked_plainly(choices: Choices) -> Asked:
    """Return a request of which nothing is in doubt."""
    return Asked(
        choices.of(PLAIN),
        choices.of(HOSTS),
        choices.of(("GET", "HEAD", "POST", "DELETE", "PUT")),
        choices.of(PLAIN_TABLES),
        choices.of(EVERYBODY),
    )


def _may_enter(table: Table, name: str, method: str, reading: str, asker: Asker) -> bool:
    """Tell whether the row that a tool would take a request for lets somebody in."""
    rows, denied = table
    row = taking(around(rows, name, reading), method)
    return row is not None and lets_in(row, asker, denied)


@given(chosen(asked, 24))
@settings(max_examples=2000, deadline=None)
def test_no_spelling_gets_past_a_stricter_rule(request: Asked) -> None:
    """Nobody gets through with what one tool would serve from where he may not enter."""
    path, host, method, table, asker = request
    if not may(MADE[table], path, asker, method=method, host=host):
        return
    name = host.lower().partition(":")[0].removesuffix(".")
    named = frozenset(named for row in table[0] for named in row.methods)
    # Most servers read most paths alike.
    taken = {read(method, named): read for read in METHOD_READERS}
    readings = {server(path): server for server in SERVERS}
    for (found, read), (reading, server) in product(taken.items(), readings.items()):
        assert _may_enter(table, name, found, reading, asker), (server, read, reading)


@given(chosen(asked, 24))
@settings(max_examples=300, deadline=None)
def test_memory_of_paths_changes_no_judgement(request: Asked) -> None:
    """A request is judged alike the first time and every other time."""
    path, _, method, _, asker = request
    table = TABLES[-1]
    fresh = make_table(*table[0], denied=table[1])
    first = may(fresh, path, asker, method=method)

    assert first == may(fresh, path, asker, method=method)
    assert first == may(MADE[table], path, asker, method=method)


@given(chosen(asked_plainly, 5))
@settings(max_examples=500, deadline=None)
def test_a_plain_path_is_for_exactly_whom_its_row_lets_in(request: Asked) -> None:
    """Where nothing is in doubt, nobody is refused who may, and nobody let in who may not."""
    plain, host, method, table, asker = request
    name = host.lower().partition(":")[0].removesuffix(".")

    wanted = _may_enter(table, name, method, plain, asker)

    assert may(MADE[table], plain, asker, method=method, host=host) == wanted


def test_somebody_gets_through() -> None:
    """The tables of the property above let in each kind of asker somewhere, and keep each out."""
    for asker in EVERYBODY:
        found = {
            may(MADE[table], path, asker, method=method)
            for table in TABLES
            for path in ("/", "/admin", "/public")
            for method in ("GET", "DELETE")
        }
        assert found == {True, False}
