"""Which rules a request meets, and why: what `match` finds, told reading by reading."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tailchat_gate.access.policy import NO_METHOD
from tailchat_gate.access.routes import Match, Route, RouteTable


class Met(NamedTuple):
    """Routes at one place whose rules a request meets, and one of its readings that leads there.

    `routes` is empty where a reading leads to no route, or out of one that is confined to its
    path. `taken` is False where the place does not take `method`.
    """

    routes: tuple[Route, ...]
    reading: str
    method: str
    taken: bool


def met(table: RouteTable, host: str, path: str, methods: Iterable[str]) -> tuple[Met, ...]:
    """Return what a raw path on a host meets, each place once; the path as it stands first.

    `methods` are the request's own and further ones that it claims. Raises TooManyReadingsError.
    """
    found: dict[tuple[object, ...], Met] = {}
    for method in methods:
        for meeting in table.meetings(host, path, method):
            if not meeting.matches:
                found.setdefault((), Met((), meeting.reading, method, taken=False))
            for match in meeting.matches:
                each = Met(
                    tuple(_ruling(table, match)),
                    meeting.reading,
                    method,
                    taken=NO_METHOD not in match.rules,
                )
                found.setdefault((each.routes, each.taken or method), each)
    return tuple(found.values())


def _ruling(table: RouteTable, match: Match) -> Iterator[Route]:
    """Yield the routes at the place of a match whose rules are those of the match."""
    here = (match.route.settings.host, match.route.settings.path)
    for route in table.routes:
        if (route.settings.host, route.settings.path) == here and (
            route.rule in match.rules or NO_METHOD in match.rules
        ):
            yield route
