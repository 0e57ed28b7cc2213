"""Keys of routes and tokens that are valid alone but conflict with others."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tailchat_gate.config.problems import Conflict, did_you_mean, judged, readable, shown
from tailchat_gate.config.tables.admin_page import admin_page_conflicts
from tailchat_gate.config.tables.identity import Token
from tailchat_gate.config.tables.route import RouteSettings
from tailchat_gate.config.values import header, identifier, path, quantities, tile
from tailchat_gate.config.values.address import (
    HttpAddress,
    OwnAddress,
    tool_of,
    upstream_address,
)
from tailchat_gate.config.values.group import Group
from tailchat_gate.config.values.url import is_secure

_WORKERS = "workers"
_TLS = ("tls_ca", "tls_certificate", "tls_key", "tls_pin", "tls_server_name")
_OF_A_TOOL = (
    *("upstream_path", "upstream_host", "rewrite_location", "rewrite_cookies", *_TLS),
    *("websocket_max_age", "origins", "embed", "upgrades", "preflight"),
    *("assertion", "audience", "forward_authorization", "pass_fields"),
    *("pass_response_fields", "request_buffer"),
)
_OF_SEVERAL = (
    *("balance", "sticky", "health", "max_fails", "fail_timeout", "panic_threshold"),
    "slow_start",
)
_SPELLED: Mapping[str, Callable[[Any], str]] = MappingProxyType(
    {
        "websocket_max_age": quantities.format_duration,
        "request_buffer": quantities.format_size,
        "fail_timeout": quantities.format_duration,
        "slow_start": quantities.format_duration,
        "health": lambda _: "a table",
    }
)

#: The keys of the lists that hold for all routes.
DENIED = ("access", "deny")
APPROVERS = ("access", "approvers")

#: The groups by name, or their names alone where some cannot be read.
_Groups = Collection[str] | Mapping[str, Group]


@dataclass(frozen=True, slots=True)
class Compared:
    """The values to compare.

    `routes` and `tokens` are keyed by position in the file; positions may be missing, and tables
    may be readable only in part. The names include those of tables with problems. The names,
    `groups`, `prefix` and `public_url` are None if they are not known. `denied` is `access.deny`,
    `approvers` is `access.approvers`; `listen` has the gate's own addresses.
    `keeps_state`: state outlives the process.
    """

    routes: Mapping[int, RouteSettings]
    tokens: Mapping[int, Token]
    route_names: Collection[str] | None
    token_names: Collection[str] | None
    groups: _Groups | None
    prefix: str | None
    public_url: str | None
    denied: Iterable[str]
    approvers: Iterable[str]
    listen: Iterable[str]
    stores_sessions: bool = False
    keeps_state: bool = True
    workers: int | str = 1


def conflicts(tables: Compared) -> tuple[Conflict, ...]:
    """Compare tokens and routes with each other, and with the gate's prefix and groups."""
    return (*_without_store(tables), *_of_tokens(tables), *_of_routes(tables))


def _without_store(tables: Compared) -> Iterator[Conflict]:
    """Find settings that need a store, because memory is one process's and ends with it."""
    if tables.keeps_state:
        return
    if tables.stores_sessions:
        yield Conflict(("session", "store"), "true", "state.path or state.url, not memory alone")
    if tables.workers != 1:
        wanted = (
            "1, or a store that the processes share, in state.path or state.url: in memory, each "
            "would have locks, ended sessions and used logins of its own"
        )
        yield Conflict(("server", _WORKERS), shown(tables.workers), wanted)


def _of_routes(tables: Compared) -> Iterator[Conflict]:
    groups, prefix = tables.groups, tables.prefix
    names: dict[str, int] = {}
    by_path: dict[tuple[str | None, str], dict[int, RouteSettings]] = {}
    if groups is not None:
        yield from _unknown_groups(DENIED, tables.denied, groups)
        yield from _uncertain_groups(DENIED, tables.denied, groups)
        yield from _unknown_groups(APPROVERS, tables.approvers, groups)
    for index, route in tables.routes.items():
        checks = [
            _repeated(index, route, names),
            _taken(index, route, by_path),
            _inside_prefix(index, route, prefix),
            _preflight_without_options(index, route),
            _embed_without_https(index, route, tables.public_url),
            _trace_in_methods_only(index, route),
            _launched_elsewhere(index, route),
            _unfit_for_upstream(index, route),
        ]
        if groups is not None:
            checks[3:3] = [
                _unknown_groups_of(index, route, "allow", groups),
                _unknown_groups_of(index, route, "deny", groups),
                _uncertain_groups_of(index, route, groups),
            ]
        for check in checks:
            yield from judged(check)
    yield from _set_and_passed(tables.routes)
    yield from admin_page_conflicts(tables.routes)


def _repeated(index: int, route: RouteSettings, names: dict[str, int]) -> Iterator[Conflict]:
    first = names.setdefault(route.name.lower(), index)
    if first != index:
        taken = f"a name that route[{first}] does not have"
        yield Conflict(("route", index, "name"), shown(route.name), taken)


def _inside_prefix(index: int, route: RouteSettings, prefix: str | None) -> Iterator[Conflict]:
    if prefix is not None and path.inside(route.path, prefix):
        outside = f"a path outside server.prefix {shown(prefix)}, where the gate itself answers"
        yield Conflict(("route", index, "path"), shown(route.path), outside)


def _preflight_without_options(index: int, route: RouteSettings) -> Iterator[Conflict]:
    if route.preflight and route.methods and "OPTIONS" not in route.methods:
        wanted = "methods with OPTIONS among them, or none"
        yield Conflict(("route", index, "preflight"), "true", wanted)


def _embed_without_https(
    index: int, route: RouteSettings, public_url: str | None
) -> Iterator[Conflict]:
    if route.embed and public_url is not None and not is_secure(public_url):
        wanted = "the key left out, or a server.public_url with https: frames need secure cookies"
        yield Conflict(("route", index, "embed"), shown(route.embed[0]), wanted)


def _trace_in_methods_only(index: int, route: RouteSettings) -> Iterator[Conflict]:
    if identifier.TRACE in route.methods and not route.trace:
        at = ("route", index, "methods", route.methods.index(identifier.TRACE))
        yield Conflict(at, shown(identifier.TRACE), "trace = true beside it, or it never passes")


def _launched_elsewhere(index: int, route: RouteSettings) -> Iterator[Conflict]:
    if isinstance(route.launch, str) and not tile.leads_into(route.launch, route.path):
        wanted = f"a path in the route's own path {shown(route.path)}"
        yield Conflict(("route", index, "launch"), shown(route.launch), wanted)


def _taken(
    index: int,
    route: RouteSettings,
    by_path: dict[tuple[str | None, str], dict[int, RouteSettings]],
) -> Iterator[Conflict]:
    """Find an earlier route that takes the same requests, so that neither could be chosen."""
    beside = by_path.setdefault((route.host, route.path), {})
    others = dict(beside)
    beside[index] = route
    where = f"the path {shown(route.path)} on " + (
        f"the host {shown(route.host)}" if route.host else "every host"
    )
    for first, other in others.items():
        clashes = list(judged(_taken_by(index, route, first, other, where)))
        yield from clashes
        if clashes and not route.methods:
            return


def _taken_by(
    index: int, route: RouteSettings, first: int, other: RouteSettings, where: str
) -> Iterator[Conflict]:
    shared = [method for method in route.methods if method in other.methods]
    if not route.methods and not other.methods:
        taken = f"a host and path that route[{first}] does not have"
        yield Conflict(("route", index, "path"), where, taken)
    elif shared:
        taken = f"methods that route[{first}] does not name there"
        found = f"{', '.join(map(shown, shared))} for {where}"
        yield Conflict(("route", index, "methods"), found, taken)


def _set_and_passed(routes: Mapping[int, RouteSettings]) -> Iterator[Conflict]:
    """Find headers that one route passes from clients and another sets for the same tool."""
    setters: dict[tuple[object, bytes], int] = {}
    for index, route in routes.items():
        for setter in judged(_headers_set(route)):
            setters.setdefault(setter, index)
    for index, route in routes.items():
        yield from judged(_passed_of(index, route, setters))


def _headers_set(route: RouteSettings) -> Iterator[tuple[object, bytes]]:
    for tool in _tools(route):
        yield from ((tool, header.folded(name)) for name in route.headers)


def _tools(route: RouteSettings) -> Iterator[object]:
    return map(tool_of, map(upstream_address, route.backends))


def _passed_of(
    index: int, route: RouteSettings, setters: Mapping[tuple[object, bytes], int]
) -> Iterator[Conflict]:
    tools = tuple(_tools(route))
    for position, name in enumerate(route.pass_fields):
        settings = (setters.get((tool, header.folded(name))) for tool in tools)
        setter = next((setting for setting in settings if setting is not None), None)
        if setter is not None:
            wanted = f"a header that route[{setter}].headers does not set for the same tool"
            yield Conflict(("route", index, "pass_fields", position), shown(name), wanted)


def _unknown_groups_of(
    index: int, route: RouteSettings, key: str, groups: Collection[str]
) -> Iterator[Conflict]:
    yield from _unknown_groups(("route", index, key), getattr(route, key), groups)


def _unknown_groups(
    at: tuple[str | int, ...], entries: Iterable[str], groups: Collection[str]
) -> Iterator[Conflict]:
    for position, entry in enumerate(entries):
        name = entry.removeprefix(identifier.GROUP)
        if entry.startswith(identifier.GROUP) and name not in groups:
            wanted = "a group that [groups] names" + did_you_mean(name, groups)
            yield Conflict((*at, position), shown(entry), wanted)


def _uncertain_groups_of(index: int, route: RouteSettings, groups: _Groups) -> Iterator[Conflict]:
    yield from _uncertain_groups(("route", index, "deny"), route.deny, groups)


def _uncertain_groups(
    at: tuple[str | int, ...], entries: Iterable[str], groups: _Groups
) -> Iterator[Conflict]:
    """Find groups in a deny list whose members the gate does not always know."""
    members: Mapping[str, object] = groups if isinstance(groups, Mapping) else {}
    for position, entry in enumerate(entries):
        group = members.get(entry.removeprefix(identifier.GROUP))
        if entry.startswith(identifier.GROUP) and isinstance(group, Group) and group.sources:
            wanted = (
                "a group of subs alone: while Tailchat cannot be asked who is in "
                f"{shown(group.sources[0].entry)}, the list would let them in"
            )
            yield Conflict((*at, position), shown(entry), wanted)


def _unfit_for_upstream(index: int, route: RouteSettings) -> Iterator[Conflict]:
    """Find the keys that have no effect for the route's kind of upstream."""
    upstream = upstream_address(route.backends[0])
    if len(route.backends) == 1:
        without = f"the key left out, or a list of backends: {shown(route.upstream_text)} is alone"
        yield from _without_effect(index, route, _OF_SEVERAL, without)
    if isinstance(upstream, OwnAddress):
        without = f"the key left out, since {shown(route.upstream_text)} is answered without a tool"
        yield from _without_effect(index, route, _OF_A_TOOL, without)
    elif not (isinstance(upstream, HttpAddress) and upstream.tls):
        without = (
            f"the key left out, or an https upstream: {shown(route.upstream_text)} is without TLS"
        )
        yield from _without_effect(index, route, _TLS, without)
    elif route.tls_key is None and route.tls_certificate is not None:
        wanted = "the file with the private key of tls_certificate"
        yield Conflict(("route", index, "tls_key"), "nothing", wanted)
    elif route.tls_certificate is None and route.tls_key is not None:
        wanted = "the file with the certificate that tls_key belongs to"
        yield Conflict(("route", index, "tls_certificate"), "nothing", wanted)


def _without_effect(
    index: int, route: RouteSettings, keys: tuple[str, ...], expected: str
) -> Iterator[Conflict]:
    for key in keys:
        value = readable(route, key, RouteSettings.model_fields[key].default)
        if value != RouteSettings.model_fields[key].default:
            found = shown(_SPELLED[key](value) if key in _SPELLED else value)
            yield Conflict(("route", index, key), found, expected)


def _of_tokens(tables: Compared) -> Iterator[Conflict]:
    names: dict[str, int] = {}
    hashes: dict[str, int] = {}
    for index, token in tables.tokens.items():
        yield from judged(_repeated_name(index, token, names))
        yield from judged(_repeated_hash(index, token, hashes))
    if tables.token_names is not None:
        for index, route in tables.routes.items():
            yield from judged(_unknown_tokens(index, route, tables.token_names))
    if tables.route_names is not None:
        by_name = {readable(route, "name"): route for route in tables.routes.values()}
        for index, token in tables.tokens.items():
            yield from judged(_unknown_routes(index, token, by_name, tables.route_names))


def _repeated_name(index: int, token: Token, names: dict[str, int]) -> Iterator[Conflict]:
    first = names.setdefault(token.name.lower(), index)
    if first != index:
        taken = f"a name that token[{first}] does not have"
        yield Conflict(("token", index, "name"), shown(token.name), taken)


def _repeated_hash(index: int, token: Token, hashes: dict[str, int]) -> Iterator[Conflict]:
    first = hashes.setdefault(token.hash, index)
    if first != index:
        taken = f"the hash of a token of its own; token[{first}] has this one"
        yield Conflict(("token", index, "hash"), "a hash", taken)


def _unknown_tokens(index: int, route: RouteSettings, names: Collection[str]) -> Iterator[Conflict]:
    for position, entry in enumerate(route.allow):
        name = entry.removeprefix(identifier.TOKEN)
        if entry.startswith(identifier.TOKEN) and name not in names:
            wanted = "a token that a [[token]] names" + did_you_mean(name, names)
            yield Conflict(("route", index, "allow", position), shown(entry), wanted)


def _unknown_routes(
    index: int, token: Token, routes: Mapping[str, RouteSettings], names: Collection[str]
) -> Iterator[Conflict]:
    """Find the routes of a token that do not exist or do not allow it."""
    entry = identifier.TOKEN + token.name
    for position, name in enumerate(token.routes or ()):
        at = ("token", index, "routes", position)
        if name not in names:
            yield Conflict(at, shown(name), "the name of a route" + did_you_mean(name, names))
        elif name in routes:
            yield from judged(_not_allowed(entry, at, routes[name]))


def _not_allowed(entry: str, at: tuple[str | int, ...], route: RouteSettings) -> Iterator[Conflict]:
    if entry not in route.allow:
        yield Conflict(at, shown(route.name), f"a route whose allow names {shown(entry)}")
