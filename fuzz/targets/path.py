"""Paths: a visitor who gets through may have whatever a server makes of the path."""

from collections.abc import Mapping

from fuzz.cutting import steered
from fuzz.reference.servers import SERVERS
from fuzz.target import Target
from tailchat_gate.access.policy import decide
from tailchat_gate.access.routes import Match, RouteTable
from tailchat_gate.config.model import RouteSettings
from tailchat_gate.proxy.static.tree import read_path
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.readings import (
    MAX_CHARACTERS,
    MAX_READINGS,
    TooManyReadingsError,
    readings,
)
from tailchat_gate.request.target import read_target

_TABLES: tuple[Mapping[str, str], ...] = (
    {"/": "public", "/admin": "group:ops"},
    {"/public": "public", "/admin": "group:ops"},
    {"/": "public", "/x": "signed-in", "/x/admin": "group:ops", "/x/admin/y": "public"},
    {"/admin": "group:ops", "/admin/public": "public"},
)
_LETS_IN: Mapping[str, tuple[str | None, ...]] = {
    "public": (None, "zoe", "alice"),
    "signed-in": ("zoe", "alice"),
    "group:ops": ("alice",),
}
#: Closing over every reading again costs their square.
_FEW = 24


def _table(routes: Mapping[str, str]) -> RouteTable:
    made = [
        RouteSettings(name=f"r{number}", upstream="http://127.0.0.1:9", path=path, allow=(allow,))
        for number, (path, allow) in enumerate(routes.items())
    ]
    return RouteTable(made, {"ops": ["alice"]})


_MADE = tuple((routes, _table(routes)) for routes in _TABLES)


def check(data: bytes) -> None:
    """Judge a path; one byte chooses the routes."""
    steer, data = steered(data, 1)
    try:
        path = read_target("/" + data.decode("latin-1"), None).path
    except RefusedError:
        return
    _check_readings(path)
    _check_routes(path, *_MADE[steer[0] % len(_MADE)])
    _check_names(path)


def _outcome(match: Match | None) -> object:
    return match and (match.route.name, set(match.rules))


def _check_readings(path: str) -> None:
    try:
        found = readings(path)
    except TooManyReadingsError:
        return
    assert path in found
    assert len(found) <= MAX_READINGS
    assert len(found) * len(path) <= MAX_CHARACTERS
    assert all(reading.startswith("/") for reading in found)
    if len(found) <= _FEW:
        for reading in found:
            assert readings(reading) <= found, (reading, "has a reading of its own")


def _check_routes(path: str, routes: Mapping[str, str], table: RouteTable) -> None:
    """Nobody gets through with a path that a server serves from where he may not enter."""
    try:
        match = table.match("h", path, "GET")
    except TooManyReadingsError:
        return
    fresh = _table(routes).match("h", path, "GET")
    assert _outcome(match) == _outcome(fresh), "judged before, it is judged otherwise"
    if match is None:
        return
    entering = [sub for sub in (None, "zoe", "alice") if decide(match.rules, sub).allowed]
    if not entering:
        return
    for server in SERVERS:
        reading = server(path)
        around = [p for p in routes if p in {"/", reading} or reading.startswith(p + "/")]
        may = _LETS_IN[routes[max(around)]] if around else ()
        for sub in entering:
            assert sub in may, (sub, server.__name__, reading)


def _check_names(path: str) -> None:
    """What names a file is one file below the directory, and no other spelling of one above."""
    found = read_path(path)
    if found is None:
        return
    for name in found.names:
        assert name not in {b"", b".", b".."}
        assert not {b"/", b"\\", b"\0"} & {bytes((octet,)) for octet in name}
        assert not name.startswith(b".") or name == b".well-known"
    joined = "/" + "/".join(name.decode("utf-8") for name in found.names)
    decoded = [s(path) for s in SERVERS if s.__name__ in {"nginx", "python", "node"}]
    assert {one.rstrip("/") for one in decoded} == {joined.rstrip("/")}
    assert found.folder == (path.endswith("/"))


TARGET = Target(
    check,
    parsers=("request.readings", "request.target", "access.routes", "access.policy",
             "access.route", "access.host_table", "access.plain_paths", "proxy.static.tree"),
    seeds=(
        b"\0admin/x",
        b"\1public/../admin",
        b"\1public/%2e%2e/admin",
        b"\2x/..;/x/admin",
        b"\0x/..%2fadmin%2500",
        b"\3admin/public/%c0%ae%c0%ae/z",
        b"\0%u0061dmin",
        b"\0..%20/admin/%c0%ae%c0%ae",
        b"\2x//admin./%ef%bc%8e%ef%bc%8e%ef%bc%8fy",
        b"\0adm%c4%b1n;a=b%3f",
        b"\0a/b%20c/.well-known/%E6%98%9F",
    ),
    words=(
        *(b"admin", b"public", b"/", b"//", b".", b"..", b";", b"..;", b"%2e", b"%2f", b"%5c"),
        *(b"%25", b"%252e", b"%3b", b"%3f", b"%23", b"%20", b"%09", b"%c0%ae", b"%c0%af", b"%00"),
        *(b"%e0%80%ae", b"%ef%bc%8e", b"%ef%bc%8f", b"%e2%80%a5", b"%c4%b1", b"%u002e", b"%uff0f"),
        *(b"%2500", b"%ff", b"%61", b"%c3%a9", b"%ud800", b"/x/", b"/../", b"%ef%bd%81"),
    ),
)  # fmt: skip
