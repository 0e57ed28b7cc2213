from collections.abc import Callable, Sequence

import pytest
from gatekit import make_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.reference.servers import SERVERS
from tailchat_gate.access.policy import decide
from tailchat_gate.access.routes import _MAX_CACHED_LENGTH, _MAX_CACHED_PATHS, RouteTable
from tailchat_gate.request.readings import TooManyReadingsError
from tailchat_gate.request.refusal import RefusedError
from tailchat_gate.request.target import read_host, read_target

GROUPS = {"ops": ["alice"]}


def make_table(*routes: tuple[str, str] | tuple[str, str, str]) -> RouteTable:
    """Return the table of routes given as (path, allow) or (path, allow, host)."""
    configured = [
        {"name": f"r{index}", "path": route[0], "allow": [route[1]], "host": [*route, None][2]}
        for index, route in enumerate(routes)
    ]
    made = make_settings(route=configured, groups=GROUPS)
    return RouteTable(made.route, made.groups)


def met(table: RouteTable, path: str, host: str = "gate.test") -> str | None:
    """Return the configured path of the route that serves a request; None for no route."""
    match = table.match(read_host([host]).name, read_target(path, None).path)
    return match.route.settings.path if match else None


def may(table: RouteTable, path: str, sub: str | None) -> bool:
    """Tell whether `sub` gets through to an upstream with a request for `path`."""
    try:
        match = table.match("gate.test", read_target(path, None).path)
    except (RefusedError, TooManyReadingsError):
        return False
    return decide(match.rules if match else (), sub).allowed


# Which route serves.


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
    table = make_table(
        ("/", "public"), ("/wiki", "public"), ("/wiki/edit", "public"), ("/a/b/c", "public")
    )

    assert met(table, path) == route


@pytest.mark.parametrize("path", ["/", "/wik", "/wikix", "/wikix/a", "/wiki%2e", "/Wiki", "//wiki"])
def test_no_route(path: str) -> None:
    """A path outside every route is served by none."""
    assert met(make_table(("/wiki", "public")), path) is None


@pytest.mark.parametrize(
    "path", ["/wiki/..", "/wiki/%2e%2e/x", "/wiki/..;/x", "/wiki%3f/../../x", "/wiki/..%2f..%2fx"]
)
def test_reading_outside_every_route(path: str) -> None:
    """A path that some server reads as one that no route offers is offered to nobody."""
    assert met(make_table(("/wiki", "public")), path) is None


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
    ],
)
def test_host(host: str, path: str, route: str) -> None:
    """Routes of the host stand before those for any host at the same path; names match whole."""
    table = make_table(
        ("/", "public"),
        ("/", "public", "a.test"),
        ("/wiki", "public"),
        ("/admin", "public", "a.test"),
        ("/", "public", "b.test"),
    )
    match = table.match(read_host([host]).name, read_target(path, None).path)

    assert match is not None
    assert match.route.name == route


def test_request_without_host() -> None:
    """An HTTP/1.0 request without a Host meets the routes for any host, and only those."""
    table = make_table(("/wiki", "public"), ("/", "public", "a.test"))

    assert table.match("", "/wiki") is not None
    assert table.match("", "/") is None


def test_hosts() -> None:
    """The table tells which hosts its routes name."""
    assert make_table(("/", "public"), ("/", "public", "a.test")).hosts == {"a.test"}
    assert make_table(("/", "public")).hosts == frozenset()


def test_thousand_routes() -> None:
    """Of a thousand routes, nested and by host, each request meets its own."""
    routes = [(f"/tool{index}/v{index % 7}", "public") for index in range(500)]
    hosts = [("/", "public", f"h{index}.test") for index in range(500)]
    table = make_table(*routes, *hosts)

    for path, _ in routes:
        assert met(table, f"{path}/x/y", "other.test") == path
        assert met(table, f"{path}x", "other.test") is None
    for _, _, host in hosts:
        match = table.match(host, "/any")
        assert match is not None
        assert match.route.settings.host == host


def test_remembered_paths_are_bounded() -> None:
    """The memory of judged paths is emptied when it is full, and never holds a long path."""
    table = make_table(("/", "public"), ("/admin", "signed-in"))
    memory = table._any_host._cache

    assert not may(table, "/admin/x", None)
    assert not may(table, "/admin/x", None)
    assert list(memory) == ["/admin/x"]
    for index in range(_MAX_CACHED_PATHS + 10):
        assert may(table, f"/p{index}", None)
    assert len(memory) == 11
    assert may(table, "/" + "x" * _MAX_CACHED_LENGTH, None)
    assert len(memory) == 11


# Who may.


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
    table = make_table(("/", "signed-in"), ("/wiki", "signed-in"), ("/admin", "group:ops"))

    assert may(table, path, "alice")
    assert may(table, path, "zoe")
    assert not may(table, path, None)
    assert may(make_table(("/", "public")), path, None)


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
    table = make_table(("/", "signed-in"), ("/public", "public"), ("/admin", "group:ops"))

    assert may(table, path, None) == stranger
    assert may(table, path, "zoe") == zoe


def test_routes_that_differ_in_case_are_both_judged() -> None:
    """Two routes that a careless server takes for one are guarded by both rules."""
    table = make_table(("/", "public"), ("/Docs", "public"), ("/docs", "group:ops"))

    assert met(table, "/Docs/x") == "/Docs"
    assert not may(table, "/Docs/x", None)
    assert may(table, "/DOCS/x", "alice")


# No spelling of a path gets past a stricter rule, whichever server reads it.

#: (path, whom it lets in: None stands for a stranger).
EVERYBODY = (None, "zoe", "alice")
TABLES: tuple[tuple[tuple[str, str], ...], ...] = (
    (("/", "public"), ("/admin", "group:ops")),
    (("/public", "public"), ("/admin", "group:ops")),
    (("/", "public"), ("/public", "public"), ("/admin", "signed-in")),
    (("/", "signed-in"), ("/public", "public"), ("/public/admin", "group:ops")),
    (("/", "public"), ("/x", "signed-in"), ("/x/admin", "group:ops"), ("/x/admin/y", "public")),
    (("/admin", "group:ops"), ("/admin/public", "public")),
)
LETS_IN = {"public": EVERYBODY, "signed-in": ("zoe", "alice"), "group:ops": ("alice",)}

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


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """Return a path made of a few segments, separators and escapes on top of them."""
    count = draw(st.integers(1, 5))
    path = "/"
    for index in range(count):
        path += draw(st.sampled_from(SEPARATORS)) if index else draw(st.sampled_from(("", "", "/")))
        path += draw(st.sampled_from(SEGMENTS))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(1, len(path)))
        escaped = "".join(f"%{ord(sign):02x}" for sign in path[place : place + 1])
        depth = draw(st.integers(0, 2))
        path = path[:place] + escaped.replace("%", "%" + "25" * depth) + path[place + 1 :]
    return path


def lets_in(table: Sequence[tuple[str, str]], reading: str) -> tuple[str | None, ...]:
    """Return whom the deepest route around `reading` lets in; nobody where there is none."""
    around = [
        (path, allow)
        for path, allow in table
        if path in {"/", reading} or reading.startswith(path + "/")
    ]
    return LETS_IN[max(around)[1]] if around else ()


TABLE_OF = {table: make_table(*table) for table in TABLES}


@given(path=spellings(), table=st.sampled_from(TABLES), sub=st.sampled_from(EVERYBODY))
@settings(max_examples=1000, deadline=None)
def test_no_spelling_gets_past_a_stricter_rule(
    path: str, table: tuple[tuple[str, str], ...], sub: str | None
) -> None:
    """Nobody gets through with a path that one server would serve from where he may not enter."""
    if may(TABLE_OF[table], path, sub):
        for server in SERVERS:
            reading = server(path)
            assert sub in lets_in(table, reading), (server.__name__, reading)


@given(path=spellings(), sub=st.sampled_from(EVERYBODY))
@settings(max_examples=300, deadline=None)
def test_memory_of_paths_changes_no_judgement(path: str, sub: str | None) -> None:
    """A path is judged alike the first time and every other time."""
    fresh = make_table(*TABLES[0])

    assert may(fresh, path, sub) == may(fresh, path, sub) == may(TABLE_OF[TABLES[0]], path, sub)


@pytest.mark.parametrize("server", SERVERS)
def test_servers_serve(server: Callable[[str], str]) -> None:
    """Each server of the test reads a plain path as it stands."""
    assert server("/admin/y") == "/admin/y"
