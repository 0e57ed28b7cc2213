"""Finds valid values that can never work: addresses of the gate itself, impossible subs."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from tailchat_gate.config.conflicts import APPROVERS, DENIED, Compared
from tailchat_gate.config.problems import Conflict, Location, judged, readable, shown
from tailchat_gate.config.tables.route import RouteSettings
from tailchat_gate.config.values.address import (
    HttpAddress,
    TcpAddress,
    UnixAddress,
    Upstream,
    leads_to,
    listen_address,
    upstream_address,
)
from tailchat_gate.config.values.group import Group
from tailchat_gate.config.values.identifier import PUBLIC, SUB, no_tailchat_id
from tailchat_gate.config.values.url import parse_url

_OPEN = "/open"
_Listeners = tuple[TcpAddress | UnixAddress, ...]


class TailchatUrls(NamedTuple):
    """The addresses of Tailchat, "" for one that is not set or cannot be read."""

    api_url: str
    internal_url: str


def never_works(tables: Compared, tailchat: TailchatUrls) -> Iterator[Conflict]:
    """Find addresses that are the gate's own, and subs that no Tailchat user can have."""
    listeners = tuple(map(listen_address, tables.listen))
    # A public route can lead /open to Tailchat, so the gate's own address may lead there.
    may_lead_on = any(PUBLIC in readable(route, "allow", ()) for route in tables.routes.values())
    for key, url in tailchat._asdict().items():
        yield from _of_tailchat(("tailchat", key), url, () if may_lead_on else listeners)
    for index, route in tables.routes.items():
        yield from judged(_to_the_gate(index, route, listeners, tables.public_url))
        yield from judged(_nobody_of(index, route, "allow"))
        yield from judged(_nobody_of(index, route, "deny"))
    yield from _nobody(DENIED, tables.denied)
    yield from _nobody(APPROVERS, tables.approvers)
    if isinstance(tables.groups, Mapping):
        for name, members in tables.groups.items():
            yield from _no_members(name, members)


def _of_tailchat(at: Location, url: str, listeners: _Listeners) -> Iterator[Conflict]:
    if not url:
        return
    if url.endswith(_OPEN):
        wanted = f"{shown(url.removesuffix(_OPEN))}: the gate adds {_OPEN} itself"
        yield Conflict(at, shown(url), wanted)
    address = HttpAddress(parse_url(url, ""))
    for listener in listeners:
        if leads_to(address, listener):
            wanted = f"the address of Tailchat; the gate itself listens on {shown(str(listener))}"
            yield Conflict(at, shown(url), wanted)
            return


def _to_the_gate(
    index: int, route: RouteSettings, listeners: _Listeners, public_url: str | None
) -> Iterator[Conflict]:
    """Find an upstream that is the gate itself: each request would loop."""
    for position, backend in enumerate(route.backends):
        itself = _itself(upstream_address(backend), listeners, public_url)
        if itself:
            many = len(route.backends) > 1
            at = ("route", index, "upstream", position) if many else ("route", index, "upstream")
            yield Conflict(at, shown(backend), f"the address of a tool; {itself}")


def _itself(upstream: Upstream, listeners: _Listeners, public_url: str | None) -> str:
    """Return which address of the gate an upstream is, "" for none."""
    for listener in listeners:
        if leads_to(upstream, listener):
            return f"the gate itself listens on {shown(str(listener))}"
    if public_url is None or not isinstance(upstream, HttpAddress):
        return ""
    public = parse_url(public_url, "")
    if (upstream.url.host, upstream.port) != (public.host, public.port or public.default_port):
        return ""
    return f"people reach the gate itself at server.public_url {shown(public_url)}"


def _nobody_of(index: int, route: RouteSettings, key: str) -> Iterator[Conflict]:
    yield from _nobody(("route", index, key), getattr(route, key))


def _nobody(at: Location, entries: Iterable[str]) -> Iterator[Conflict]:
    """Find entries with a sub that no Tailchat user can have."""
    for position, entry in enumerate(entries):
        if entry.startswith(SUB) and no_tailchat_id(entry.removeprefix(SUB)):
            yield Conflict((*at, position), shown(entry), f"{_id_wanted(entry)} after {SUB}")


def _no_members(name: str, members: object) -> Iterator[Conflict]:
    group = members if isinstance(members, Group) else Group()
    for position, entry in enumerate(group):
        if entry in group.subs and no_tailchat_id(entry):
            yield Conflict(("groups", name, position), shown(entry), _id_wanted(entry))


def _id_wanted(entry: str) -> str:
    lower = entry != entry.lower() and not no_tailchat_id(entry.removeprefix(SUB).lower())
    return "a Tailchat id, which has 24 hex digits" + (" in lower case" if lower else "")
