"""What the tests of routes share: tables of a few rows, and the rules written down once more."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from gatekit import make_settings

from tailchat_gate.access.policy import decide
from tailchat_gate.access.routes import RouteTable
from tailchat_gate.config.model import Settings
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.target import read_host, read_target

GROUPS = MappingProxyType({"ops": ("alice", "mallory"), "banned": ("mallory",)})


@dataclass(frozen=True, slots=True)
class Row:
    """What matters of a [[route]]."""

    path: str = "/"
    allow: tuple[str, ...] = ("public",)
    host: str | None = None
    methods: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    upstream_path: str | None = None


class Asker(NamedTuple):
    """Who asks: a person, a machine, or nobody."""

    sub: str | None = None
    token: str = ""


NOBODY = Asker()
ZOE, ALICE, MALLORY = Asker("zoe"), Asker("alice"), Asker("mallory")
BACKUP = Asker(token="backup")
EVERYBODY = (NOBODY, ZOE, ALICE, MALLORY, BACKUP)


def make_table(*rows: Row, denied: Sequence[str] = ()) -> RouteTable:
    """Return the table of some rows; their routes are called r0, r1 and so on."""
    settings = _settings(rows, tuple(denied))
    return RouteTable(settings.route, settings.groups, settings.access.deny)


@lru_cache
def _settings(rows: tuple[Row, ...], denied: tuple[str, ...]) -> Settings:
    """Return the settings of some rows, which take longer to check than to make a table of."""
    routes = [
        {
            "name": f"r{index}",
            "path": row.path,
            "host": row.host,
            "allow": row.allow,
            "methods": row.methods,
            "deny": row.deny,
            **({"upstream_path": row.upstream_path} if row.upstream_path else {}),
        }
        for index, row in enumerate(rows)
    ]
    everybody = {entry for row in rows for entry in (*row.allow, *row.deny)} | {*denied}
    names = sorted(entry.partition(":")[2] for entry in everybody if entry.startswith("token:"))
    return make_settings(
        route=routes,
        groups=dict(GROUPS),
        access={"deny": denied},
        token=[{"name": name, "hash": f"sha256:{n:064x}"} for n, name in enumerate(names)],
    )


def may(
    table: RouteTable,
    path: str,
    asker: Asker = NOBODY,
    *,
    method: str = "GET",
    host: str = "gate.test",
) -> bool:
    """Tell whether a request for `path`, as it is sent, gets through to an upstream."""
    try:
        name, target = read_host([host]).name, read_target(path, None)
        match = table.match(name, target.path, method)
    except RefusedError:
        return False
    return decide(match.rules if match else (), *asker).allowed


# The rules, written from docs/configure/, apart from the code under test and without regard
# to what they cost. They are about plain hosts, paths and methods.


def covers(host: str | None, name: str) -> bool:
    """Tell whether a route's host takes requests for a name."""
    if host is None or not host.startswith("*."):
        return host in {None, name}
    below = name.removesuffix(host[1:])
    return below not in {name, ""}


def around(rows: Sequence[Row], name: str, path: str) -> list[Row]:
    """Return the rows at the place that a request leads to, whatever its method."""
    found = [
        row
        for row in rows
        if covers(row.host, name) and (row.path in {"/", path} or path.startswith(f"{row.path}/"))
    ]
    deepest = max((row.path for row in found), key=lambda path: len(path.rstrip("/")), default="")
    found = [row for row in found if row.path == deepest]
    hosts = {row.host or "" for row in found}
    nearest = max(hosts, key=lambda host: (bool(host), host[:1] != "*", len(host)), default="")
    return [row for row in found if (row.host or "") == nearest]


def taking(place: Sequence[Row], method: str) -> Row | None:
    """Return the row of a place that takes a method, None where none does."""
    for wanted in (method, "GET") if method == "HEAD" else (method,):
        for row in place:
            if wanted in row.methods:
                return row
    return next((row for row in place if not row.methods), None)


def lets_in(row: Row, asker: Asker, denied: Sequence[str] = ()) -> bool:
    """Tell whether a row lets somebody in."""
    if "public" in row.allow:
        return True
    names = {f"sub:{asker.sub}"} if asker.sub else set()
    names |= {f"token:{asker.token}"} if asker.token else set()
    names |= {f"group:{group}" for group, subs in GROUPS.items() if asker.sub in subs}
    if names & {*row.deny, *denied}:
        return False
    return bool(names & {*row.allow}) or bool(asker.sub and "signed-in" in row.allow)
