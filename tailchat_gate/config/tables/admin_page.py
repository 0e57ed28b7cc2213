"""Routes to the gate's own admin page, and the settings of other routes that endanger it."""

from collections.abc import Iterator, Mapping

from tailchat_gate.config.problems import Conflict, judged, readable, shown
from tailchat_gate.config.tables.route import RouteSettings
from tailchat_gate.config.values.address import ADMIN_PAGE
from tailchat_gate.config.values.identifier import PUBLIC
from tailchat_gate.syntax import WILDCARD

_OWN_ADDRESSES = (ADMIN_PAGE, "static:")


def is_admin_page(route: RouteSettings) -> bool:
    """Whether a route leads to the gate's admin page."""
    return route.upstream == ADMIN_PAGE


def takes_grants(route: RouteSettings) -> bool:
    """Whether a grant may let people in; never to the admin page, where grants are given."""
    return route.grants and not is_admin_page(route)


def admin_page_conflicts(routes: Mapping[int, RouteSettings]) -> Iterator[Conflict]:
    """Find what makes the admin page unsafe: who may enter, and pages that share its origin."""
    for index, route in routes.items():
        if readable(route, "upstream") == ADMIN_PAGE:
            yield from judged(_unsafe(index, route))
            for other, beside in routes.items():
                yield from judged(_beside(index, route, other, beside))


def _unsafe(index: int, route: RouteSettings) -> Iterator[Conflict]:
    if route.host is None or route.host.startswith(WILDCARD):
        wanted = "one whole host name that no tool has: a tool's scripts could use the page"
        yield Conflict(("route", index, "host"), shown(route.host), wanted)
    if PUBLIC in route.allow:
        position = route.allow.index(PUBLIC)
        wanted = 'people who look after the gate, such as "group:ops": this is its admin page'
        yield Conflict(("route", index, "allow", position), shown(PUBLIC), wanted)
    if route.outlive:
        wanted = "the key left out: the admin page ends with its session"
        yield Conflict(("route", index, "outlive"), "true", wanted)


def _beside(
    index: int, route: RouteSettings, other: int, beside: RouteSettings
) -> Iterator[Conflict]:
    """Find a tool whose pages share the origin of the admin page."""
    if beside.upstream_text.startswith(_OWN_ADDRESSES) or not _covers(beside.host, route.host):
        return
    if beside.host != route.host and route.path == beside.path:
        # The route with the longer host name wins, so no page of the tool is there.
        return
    wanted = f"a host that only route[{index}] has: scripts of a tool there could use the page"
    key = "host" if beside.host == route.host else "path"
    yield Conflict(("route", other, key), shown(getattr(beside, key)), wanted)


def _covers(host: str | None, name: str | None) -> bool:
    """Whether a route's host, which may be a wildcard, covers a name; None is every host."""
    if host is None or name is None:
        return True
    return name.endswith(host[1:]) if host.startswith(WILDCARD) else host == name
