"""Which route a request meets, by host, path and method, and what it costs to find it."""

import sys
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import NamedTuple

import pytest
from choices import Choices, chosen
from gatekit import make_settings
from hypothesis import given, settings
from interpreted import counts_pythons_steps
from routekit import ALICE, GROUPS, ZOE, Row, around, covers, make_table, may, taking

from tailchat_gate.access.host_table import MAX_KEPT
from tailchat_gate.access.policy import NO_METHOD, decide
from tailchat_gate.access.routes import _MAX_KEPT_HOSTS, RouteTable
from tailchat_gate.reasons import Reason
from tailchat_gate.request.readings import readings
from tailchat_gate.request.target import read_host, read_target


def met(table: RouteTable, path: str, host: str = "gate.test", method: str = "GET") -> str | None:
    """Return the name of the route that a request leads to; None for no route."""
    match = table.match(read_host([host]).name, read_target(path, None).path, method)
    return match.route.name if match else None


def met_path(table: RouteTable, path: str) -> str | None:
    """Return the configured path of the route that serves a path; None for no route."""
    match = table.match("gate.test", path, "GET")
    return match.route.settings.path if match else None


# Which route serves.


@pytest.mark.parametrize(
    ("path", "token", "reason"),
    [
        ("/wiki", "ci", Reason.TOKEN),
        ("/wiki", "bot", Reason.TOKEN),
        ("/docs", "ci", Reason.TOKEN),
        ("/docs", "bot", Reason.TOKEN_ELSEWHERE),
        ("/wiki/..%2fdocs", "ci", Reason.TOKEN),
        ("/wiki/..%2fdocs", "bot", Reason.TOKEN_ELSEWHERE),
        ("/docs/..%2fwiki", "bot", Reason.TOKEN_ELSEWHERE),
        ("/open", "bot", Reason.TOKEN),
    ],
)
def test_a_confined_token_opens_its_routes_alone(path: str, token: str, reason: Reason) -> None:
    """Another route that names it stays closed, also where only one reading leads there."""
    allow = ["token:ci", "token:bot"]
    made = make_settings(
        token=[
            {"name": "ci", "hash": f"sha256:{'0' * 64}"},
            {"name": "bot", "hash": f"sha256:{'1' * 64}", "routes": ["wiki"]},
        ],
        route=[
            {"name": "wiki", "path": "/wiki", "allow": allow},
            {"name": "docs", "path": "/docs", "allow": allow},
            {"name": "open", "path": "/open", "allow": ["public"]},
        ],
    )
    match = RouteTable(made.route, {}, confined={"bot": ("wiki",)}).match("gate.test", path, "GET")

    assert match is not None
    assert decide(match.rules, None, token).reason is reason


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/x", "/"),
        ("/wiki", "/wiki"),
        ("/wiki/", "/wiki"),
        ("/wiki/a/b/c/d/e", "/wiki"),
        ("/wiki/edit", "/wiki/edit"),
        ("/wiki/edit/x", "/wiki/edit"),
        ("/wiki/editor", "/wiki"),
        ("/wikix", "/"),
        ("/wiki.", "/"),
        ("/wik", "/"),
        ("/a/b/c", "/a/b/c"),
        ("/a/b/c/d", "/a/b/c"),
        ("/a/b/cd", "/"),
        ("/a/b", "/"),
        ("/WIKI", "/"),
        ("/x/wiki", "/"),
        ("//wiki", "/"),
    ],
)
def test_longest_prefix_of_whole_segments_serves(path: str, route: str) -> None:
    """The deepest route whose segments begin the raw path serves it; half a segment is none."""
    table = make_table(Row("/"), Row("/wiki"), Row("/wiki/edit"), Row("/a/b/c"))

    assert met_path(table, path) == route


@pytest.mark.parametrize("path", ["/", "/wik", "/wikix", "/wikix/a", "/wiki%2e", "/Wiki", "//wiki"])
def test_no_route(path: str) -> None:
    """A path outside every route is served by none."""
    assert met(make_table(Row("/wiki")), path) is None


@pytest.mark.parametrize(
    "path", ["/wiki/..", "/wiki/%2e%2e/x", "/wiki/..;/x", "/wiki%3f/../../x", "/wiki/..%2f..%2fx"]
)
def test_reading_outside_every_route(path: str) -> None:
    """A path that some server reads as one that no route offers is offered to nobody."""
    assert met(make_table(Row("/wiki")), path) is None


@pytest.mark.parametrize(
    ("host", "path", "route"),
    [
        ("a.test", "/", "r1"),
        ("A.Test:8080", "/x", "r1"),
        ("a.test.", "/x", "r1"),
        ("a.test", "/wiki", "r2"),
        ("a.test", "/admin/x", "r3"),
        ("b.test", "/x", "r4"),
        ("b.test", "/wiki", "r2"),
        ("c.test", "/wiki", "r2"),
        ("c.test", "/x", "r0"),
        ("xa.test", "/x", "r0"),
        ("a.test.evil", "/x", "r0"),
        ("[0:0::1]:80", "/x", "r5"),
    ],
)
def test_host(host: str, path: str, route: str) -> None:
    """Routes of the host stand before those for any host at the same path; names match whole."""
    table = make_table(
        *(Row("/"), Row("/", host="a.test"), Row("/wiki"), Row("/admin", host="a.test")),
        *(Row("/", host="b.test"), Row("/", host="[::1]")),
    )

    assert met(table, path, host) == route


@pytest.mark.parametrize(
    ("host", "path", "route"),
    [
        ("a.example.com", "/", "r1"),
        ("A.Example.COM.:443", "/", "r1"),
        ("x.y.z.example.com", "/", "r1"),
        ("example.com", "/", "r0"),
        ("badexample.com", "/", "r0"),
        ("a.example.com.evil.test", "/", "r0"),
        ("a.b.example.com", "/", "r2"),
        ("x.a.b.example.com", "/", "r2"),
        ("b.example.com", "/", "r1"),
        ("wiki.example.com", "/", "r3"),
        ("x.wiki.example.com", "/", "r1"),
        # The longest path counts before the host.
        ("wiki.example.com", "/admin", "r4"),
        ("a.b.example.com", "/admin/x", "r4"),
        ("a.b.example.com", "/api", "r5"),
        ("example.com", "/api", "r5"),
        ("example.com", "/admin", "r0"),
        ("wiki.example.com", "/adminx", "r3"),
    ],
)
def test_wildcard(host: str, path: str, route: str) -> None:
    """A wildcard takes every name below its own; before it stand longer ones and whole names."""
    table = make_table(
        *(Row("/"), Row("/", host="*.example.com"), Row("/", host="*.b.example.com")),
        *(Row("/", host="wiki.example.com"), Row("/admin", host="*.example.com"), Row("/api")),
    )

    assert met(table, path, host) == route


def test_request_without_host() -> None:
    """An HTTP/1.0 request without a Host meets the routes for any host, and only those."""
    table = make_table(Row("/wiki"), Row("/", host="a.test"), Row("/", host="*.test"))

    assert table.match("", "/wiki", "GET") is not None
    assert table.match("", "/", "GET") is None


def test_hosts() -> None:
    """The table tells which hosts its routes name."""
    table = make_table(Row("/"), Row("/", host="a.test"), Row("/", host="*.b.test"))

    assert table.hosts == {"a.test", "*.b.test"}
    assert make_table(Row("/")).hosts == frozenset()


# Methods.

BY_METHOD = (
    Row("/", ("signed-in",)),
    Row("/api", ("public",), methods=("GET",)),
    Row("/api", ("group:ops",), methods=("DELETE", "PROPFIND")),
    Row("/api", ("signed-in",)),
    Row("/feed", ("public",), methods=("GET",)),
    Row("/probe", ("public",), methods=("HEAD",)),
    Row("/probe", ("group:ops",), methods=("GET",)),
)


@pytest.mark.parametrize(
    ("path", "method", "route"),
    [
        ("/api", "GET", "r1"),
        ("/api/x", "HEAD", "r1"),
        ("/api", "DELETE", "r2"),
        ("/api", "PROPFIND", "r2"),
        ("/api", "POST", "r3"),
        ("/api", "OPTIONS", "r3"),
        ("/api", "MKCOL", "r3"),
        ("/apix", "GET", "r0"),
        ("/feed", "GET", "r4"),
        ("/feed", "HEAD", "r4"),
        ("/probe", "HEAD", "r5"),
        ("/probe", "GET", "r6"),
        ("/", "DELETE", "r0"),
        ("/", "BREW", "r0"),
    ],
)
def test_method(path: str, method: str, route: str) -> None:
    """At one place the route that names the method serves it, GET's its HEAD, or the one left."""
    assert met(make_table(*BY_METHOD), path, method=method) == route


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "get", "GET2", "PROPFIND", "TRACE", "x"])
def test_a_method_that_nobody_takes_falls_back_to_no_other_route(method: str) -> None:
    """Neither a shorter path nor another host takes what the nearest place refuses."""
    table = make_table(*BY_METHOD, Row("/feed", host="*.test"), Row("/feed/x", host="a.test"))
    narrow = make_table(*BY_METHOD, Row("/", ("public",), host="gate.test", methods=("GET",)))
    for table, path in ((make_table(*BY_METHOD), "/feed/x"), (narrow, "/any")):
        match = table.match("gate.test", path, method)

        assert match is not None
        assert match.rules == (NO_METHOD,)


@pytest.mark.parametrize("method", ["get", "Delete", "BREW", "MKCOL", "propfind", "TRACE", "GETS"])
def test_a_method_that_a_tool_may_take_for_any_meets_every_rule(method: str) -> None:
    """What no route names and not every tool knows is for whom every method there is for."""
    table = make_table(*BY_METHOD)

    assert not may(table, "/api", ZOE, method=method)
    assert may(table, "/api", ALICE, method=method)
    assert may(table, "/", ZOE, method=method)


@pytest.mark.parametrize(
    ("path", "method", "zoe"),
    [
        ("/api", "POST", True),
        ("/api", "DELETE", False),
        ("/Api", "DELETE", False),
        ("/API/x", "POST", True),
        ("/api/%2e%2e/api/x", "DELETE", False),
        ("/x/..%2fapi/x", "DELETE", False),
        ("/x/..%2fapi/x", "POST", True),
        ("/x/..%2ffeed", "POST", False),
        ("/x/..%2ffeed", "GET", True),
        ("//feed", "POST", False),
    ],
)
def test_every_reading_counts_by_its_method(path: str, method: str, zoe: bool) -> None:
    """A path that may be read as one of another place needs that place to take the method too."""
    assert may(make_table(*BY_METHOD), path, ZOE, method=method) == zoe


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/feed", {"GET", "HEAD"}),
        ("/x/..%2ffeed", {"GET", "HEAD"}),
        ("/api", {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "PROPFIND"}),
        ("/", {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "PROPFIND"}),
    ],
)
def test_methods_of_a_path(path: str, methods: set[str]) -> None:
    """The table tells what Allow may say of a path: methods that every reading of it takes."""
    assert set(make_table(*BY_METHOD).allow("gate.test", path).split(", ")) == methods


@pytest.mark.parametrize("path", ["/", "/%2e%2e" * 1000])
def test_methods_of_a_table_of_one_place(path: str) -> None:
    """Where one place takes every path, no path is read to tell its methods."""
    assert make_table(Row(methods=("GET",))).allow("gate.test", path) == "GET, HEAD"
    assert "PUT" in make_table(Row()).allow("gate.test", path)


def test_claimed_methods_meet_their_rules() -> None:
    """A request that claims further methods needs the leave of each."""
    table = make_table(*BY_METHOD)
    match = table.match("gate.test", "/api", "POST")
    assert match is not None

    def rules(*claimed: str) -> set[bool]:
        found = table.match_each(match, "gate.test", "/api", claimed)
        assert found is not None
        assert found.route is match.route
        return {"alice" in rule.subs for rule in found.rules}

    assert rules("POST") == rules("PUT") == {False}
    assert rules("DELETE") == rules("brew") == {True, False}
    feed = table.match("gate.test", "/feed", "GET")
    assert feed is not None
    refused = table.match_each(feed, "gate.test", "/feed", ["GET", "PUT"])
    assert refused is not None
    assert refused.rules == (NO_METHOD,)


# Any table.

HOSTS = (None, "a.test", "b.a.test", "*.a.test", "*.test", "*.b.a.test", "c.test")
NAMES = ("a.test", "b.a.test", "x.b.a.test", "c.test", "x.c.test", "test", "xa.test", "other")
PATHS = ("/", "/a", "/a/b", "/a/b/c", "/b", "/ab")
ASKED = ("/", "/a", "/a/", "/a/b", "/a/bx", "/a/b/c/d", "/b/x", "/ab/c", "/c")
METHODS = ((), (), ("GET",), ("POST", "PUT"), ("HEAD",), ("DELETE",), ("PROPFIND",))
ASKED_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PROPFIND", "PATCH")


class Asked(NamedTuple):
    """Routes, and requests that meet them: hosts, paths and methods."""

    rows: tuple[Row, ...]
    requests: list[tuple[str, str, str]]


def rows_of(choices: Choices) -> tuple[Row, ...]:
    """Return rows of which no two take the same requests."""
    several = (
        (choices.of(PATHS), choices.of(HOSTS), choices.of(METHODS))
        for _ in range(choices.between(1, 10))
    )
    drawn = dict.fromkeys(several)
    return tuple(Row(path, host=host, methods=methods) for path, host, methods in drawn)


def asked(choices: Choices) -> Asked:
    """Return any routes and requests; to make a table takes longer than several requests."""
    requests = [(choices.of(NAMES), choices.of(ASKED), choices.of(ASKED_METHODS)) for _ in range(8)]
    return Asked(rows_of(choices), requests)


@given(chosen(asked))
@settings(max_examples=150, deadline=None)
def test_any_table_serves_as_the_rules_say(asked: Asked) -> None:
    """Of any routes the one serves that the rules of the documentation name, or none."""
    table = make_table(*asked.rows)
    for name, path, method in asked.requests:
        match = table.match(name, path, method)
        place = around(asked.rows, name, path)
        row = taking(place, method)

        if not place:
            assert match is None
        else:
            assert match is not None
            assert (match.rules == (NO_METHOD,)) == (row is None)
            served = asked.rows[int(match.route.name.removeprefix("r"))]
            assert served == row if row else served in place


@given(chosen(asked))
@settings(max_examples=150, deadline=None)
def test_routes_in_order(asked: Asked) -> None:
    """In the order of the table, the first route that fits a request is the one that serves it."""
    table = make_table(*asked.rows)
    for name, path, method in asked.requests:
        match = table.match(name, path, method)
        fitting = [
            route
            for route in table.in_order
            if covers(route.settings.host, name)
            and (route.settings.path in {"/", path} or path.startswith(f"{route.settings.path}/"))
        ]
        if match is not None and match.rules != (NO_METHOD,):
            place = (fitting[0].settings.host, fitting[0].settings.path)
            named = {method, "GET"} if method == "HEAD" else {method}
            here = [r for r in fitting if (r.settings.host, r.settings.path) == place]
            by_name = [r for r in here if method in r.settings.methods]
            first = [r for r in here if not r.settings.methods or named & {*r.settings.methods}]
            assert match.route is (by_name or first)[0]
        assert bool(fitting) == (match is not None)


def in_two_orders(choices: Choices) -> tuple[tuple[Row, ...], list[Row]]:
    """Return any routes as they stand, and shuffled."""
    rows = rows_of(choices)
    return rows, choices.shuffled(rows)


@given(chosen(in_two_orders))
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_file_does_not_count(routes: tuple[tuple[Row, ...], list[Row]]) -> None:
    """The same routes in another order serve the same requests."""
    rows, mixed = routes
    table, other = make_table(*rows), make_table(*mixed)
    for name in NAMES:
        for path in ASKED:
            for method in ASKED_METHODS:
                one, two = table.match(name, path, method), other.match(name, path, method)
                assert (one is None) == (two is None)
                if one is not None and two is not None and one.rules != (NO_METHOD,):
                    assert rows[int(one.route.name[1:])] == mixed[int(two.route.name[1:])]


# What it costs.


def test_thousand_routes() -> None:
    """Of a thousand routes, nested and by host, each request meets its own."""
    paths = [Row(f"/tool{index}/v{index % 7}") for index in range(500)]
    hosts = [Row("/", host=f"h{index}.test") for index in range(500)]
    table = make_table(*paths, *hosts)

    for row in paths:
        assert met_path(table, f"{row.path}/x/y") == row.path
        assert met_path(table, f"{row.path}x") is None
    for index, row in enumerate(hosts):
        assert met(table, "/any", row.host or "") == f"r{500 + index}"


def _calls(work: Callable[[], object]) -> int:
    """Count the calls of functions, Python's and C's, that a piece of work makes."""
    calls = 0

    def count(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


@cache
def _table_of(count: int) -> RouteTable:
    """Return a table of so many routes of three kinds; to make one takes a tenth of a second."""
    return make_table(
        *(Row(f"/tool{index:03}", ("signed-in",)) for index in range(count)),
        *(Row(f"/own{index:03}", host=f"h{index}.test") for index in range(count)),
        *(Row(f"/below{index:03}", host=f"*.w{index}.test") for index in range(count)),
    )


@counts_pythons_steps
@pytest.mark.parametrize("host", ["h1.test", "x.w1.test", "other.test"])
@pytest.mark.parametrize("path", ["/tool001/x", "/tool001/%2e%2e/tool001", "/nothing"])
def test_a_thousand_routes_take_no_more_steps_than_a_few(host: str, path: str) -> None:
    """The steps of a request do not grow with the routes, judged before or for the first time."""

    def steps(count: int) -> list[int]:
        table = _table_of(count)
        # What came once is not kept by itself.
        return [_calls(lambda: table.match(host, path, "GET")) for _ in range(3)]

    # What a process does once, whatever its routes, is done before.
    steps(3)
    few, many = steps(2), steps(334)

    assert few == many
    assert many[2] <= 7


def _read_paths(work: Callable[[], object]) -> int:
    """Count how often the readings of a path are made in a piece of work."""
    count = 0

    def note(frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code is readings.__code__

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@counts_pythons_steps
@pytest.mark.parametrize("path", ["/x/%2e%2e/admin%2fy", "/" + "x%2e/" * 200])
def test_the_readings_of_a_path_are_made_once_for_all_methods(path: str) -> None:
    """Eight methods that a request claims cost the readings of its path no second time."""
    methods = ("GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW")
    table = make_table(Row("/"), Row("/admin", methods=methods[:4]), Row("/admin"))

    def judge() -> None:
        match = table.match("gate.test", path, "PURGE")
        assert match is not None
        table.match_each(match, "gate.test", path, methods)

    assert _read_paths(judge) == 1


@counts_pythons_steps
def test_a_path_that_was_refused_is_refused_again_without_being_read() -> None:
    """A path with too many readings costs them once, by whatever method and however long."""
    table = make_table(Row("/"), Row("/admin", ("signed-in",)))
    path = "/" + "%252e%252e%252f;%255c//" * 300
    assert not may(table, path)

    assert _read_paths(lambda: [may(table, path, method=m) for m in ("GET", "PUT", "X")]) == 0
    for index in range(200):
        assert not may(table, f"{path}{index}")
    assert len(table._cache.refused) < 200


def test_remembered_paths_are_bounded() -> None:
    """What is remembered of paths is bounded over all hosts and methods, and holds no long path."""
    table = make_table(
        *(Row("/"), Row("/admin", ("signed-in",)), Row("/", host="a.test", methods=("GET",))),
    )
    memory = table._cache

    assert not may(table, "/admin/x")
    assert not may(table, "/admin/x")
    assert [path for _, _, path in memory.forms._young] == ["/admin/x"]
    assert [path for _, _, path in memory.paths._young] == ["/admin/x"]
    most = MAX_KEPT // 512
    for index in range(most + 10):
        host = "a.test" if index % 2 else "gate.test"
        for _ in range(2):
            may(table, f"/p{index};", method=f"M{index}" if index % 3 else "PUT", host=host)
        assert len(memory.paths) <= most
    assert len(memory.paths) > most // 4
    assert len(memory.forms) < 20
    before = len(memory.paths)
    for _ in range(3):
        assert may(table, "/" + "x" * 1024)
    assert len(memory.paths) == before


def test_paths_that_differ_are_not_remembered() -> None:
    """Of ever new plain paths only the form is kept, however many places there are."""
    table = make_table(
        *(Row("/"), Row("/admin", ("signed-in",)), Row("/a/b"), Row("/a/b/c.html", ("signed-in",))),
    )
    for index in range(3000):
        for folder in ("", "/admin", "/a", "/a/b", "/a/b/x"):
            assert may(table, f"{folder}/{index}") == (folder != "/admin")

    assert len(table._cache.forms) == 5
    assert len(table._cache.paths) < 5, "but for the few whose hashes are alike"


def test_remembered_hosts_are_bounded() -> None:
    """What is remembered of hosts is bounded, and changes nothing for those that routes name."""
    table = make_table(Row("/"), Row("/", host="*.a.test"), Row("/", host="b.a.test"))
    for index in range(_MAX_KEPT_HOSTS + 10):
        host = f"x{index}.a.test" if index % 2 else f"x{index}.test"
        assert met(table, "/", host) == ("r1" if index % 2 else "r0")
        assert met(table, "/", "b.a.test") == "r2"
        assert len(table._by_host) <= _MAX_KEPT_HOSTS

    assert len(table._by_host) == 12
    assert met(table, "/", "x1.a.test") == "r1"


def test_groups_are_known() -> None:
    """The rule of a route holds the members of its groups, by their sub alone."""
    match = make_table(Row("/", ("group:ops",))).match("gate.test", "/", "GET")

    assert match is not None
    assert match.rules[0].subs == {*GROUPS["ops"]}
