"""The launcher: the tools that a person may open, as tiles."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Final, NamedTuple
from urllib.parse import quote

from aiohttp import web
from markupsafe import Markup

from tailchat_gate.access.policy import decide
from tailchat_gate.access.route import Route
from tailchat_gate.access.routes import RouteTable
from tailchat_gate.config.files import read_picture
from tailchat_gate.config.values.address import StaticAddress, upstream_address
from tailchat_gate.endpoints.access import ApprovalDesk
from tailchat_gate.identity.access_requests import OPEN
from tailchat_gate.identity.grants import GrantState
from tailchat_gate.identity.host_sessions import HostSessions
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sites import Sites
from tailchat_gate.pages.render import draw_tile
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.intent import Intent, read_intent
from tailchat_gate.request.target import cookie_fields, query_pairs
from tailchat_gate.responses.refusals import Refusals
from tailchat_gate.syntax import WILDCARD

#: The markup between two tiles.
_BETWEEN: Final = Markup("</span></a></li>\n")
#: Above this number of tiles, the page has a search field.
_FILTER_BEYOND: Final = 12


class Tile(NamedTuple):
    """A tool as the launcher shows it; `url` opens it, `target` is the URL's path and query.

    `html` is the tile without its closing tags, because a text about a grant may follow.
    """

    route: Route
    title: str
    description: str
    host: str
    target: str
    url: str
    html: Markup


def make_tiles(routes: Iterable[Route], sites: Sites) -> Iterator[Tile]:
    """Yield the tiles of the routes that have a URL to open. Raises FileError.

    A wildcard has none, and a route with a fixed status has no tool.
    """
    for route in routes:
        settings = route.settings
        host = settings.host or sites.public_host
        fixed = isinstance(upstream_address(settings.backends[0]), StaticAddress)
        readable = not settings.methods or "GET" in settings.methods
        if settings.launch is False or host.startswith(WILDCARD) or fixed or not readable:
            continue
        target = settings.launch if isinstance(settings.launch, str) else settings.path
        picture = read_picture("icon", settings.icon)
        title, description, icon = settings.shown_name, settings.description, settings.icon
        url = f"{sites.origin(host)}{target}"
        # Rendered once: rendering a thousand tiles for each page would delay all requests.
        html = draw_tile(title, description, url, icon="" if picture else icon, picture=picture)
        yield Tile(route, title, description, host, target, url, html)


class Launcher:
    """The handler of /oauth2/ for one configuration."""

    def __init__(
        self,
        *,
        refusals: Refusals,
        sessions: HostSessions,
        sites: Sites,
        routes: RouteTable,
        desk: ApprovalDesk,
        grants: GrantState,
        prefix: str,
    ) -> None:
        """Read the icons of the routes. Raises FileError."""
        self._refusals = refusals
        self._sessions = sessions
        self._routes = routes
        self._desk = desk
        self._approvals_url = f"{sites.public_url}{prefix}/approvals"
        self._request_url = f"{prefix}/request"
        self._grants = grants
        self._tiles = tuple(make_tiles(routes.routes, sites))

    async def answer(self, request: web.BaseRequest, context: RequestContext) -> web.StreamResponse:
        """Show a signed-in person's tools; redirect an anonymous page navigation to the login.

        `q` in the query selects the tools whose name or description contains its words.
        """
        if context.head.fields.bearer is not None:
            # The launcher is for people; a machine knows its tools.
            return self._refusals.failure(context, Reason.NO_ROUTE)
        host_session = self._sessions.at(context.host)
        record = await host_session.settled_record(cookie_fields(request.raw_headers))
        if record is None:
            rejection = host_session.authenticator.explain_rejection(context.head.fields)
            return self._refusals.not_let_in(context, rejection)
        context.sub = record.sub
        mine: list[Tile] = []
        waiting: list[dict[str, object]] = []
        for tile in self._tiles:
            if self._may_open(record, tile):
                mine.append(tile)
            elif (asked_for := self._waiting(record, tile)) is not None:
                waiting.append(asked_for)
        if read_intent(context.method, request.headers) is not Intent.NAVIGATION:
            body = json.dumps([_described(tile) for tile in mine])
            return self._refusals.answers.json(body.encode("ascii"))
        wanted = dict(query_pairs(context.target.query)).get("q", "").strip()
        until = {grant.route: grant.until for grant in self._grants.of(record.sub)}
        return self._refusals.answers.page(
            context,
            "launcher",
            nickname=record.nickname,
            tools=list(drawn(_sought(mine, wanted), until)),
            waiting=waiting,
            query=wanted,
            decisions=self._desk.waiting_for(record.sub),
            approvals_url=self._approvals_url,
            filters=len(mine) > _FILTER_BEYOND,
        )

    def _may_open(self, record: SessionRecord, tile: Tile) -> bool:
        """Whether a tile's URL leads to its route, which the person may use."""
        try:
            match = self._routes.match(tile.host, tile.target.partition("?")[0], "GET")
        except RefusedError:
            return False
        if match is None or match.route is not tile.route:
            return False
        return decide(match.rules, record.sub).allowed

    def _waiting(self, record: SessionRecord, tile: Tile) -> dict[str, object] | None:
        """Return the page's values about an open request, None if there is none."""
        request = self._desk.requests.of(record.sub, tile.route.name)
        if request is None or request.state != OPEN:
            return None
        url = f"{self._request_url}?route={quote(request.route)}&rd={quote(tile.url, safe='/')}"
        return {"title": tile.title, "url": url, "at": request.at}


def drawn(tiles: Iterable[Tile], until: Mapping[str, int]) -> Iterator[dict[str, object]]:
    """Yield tiles for the page; those without a grant are joined, which renders faster."""
    for end, run in groupby(tiles, lambda tile: until.get(tile.route.name, 0)):
        parts = [tile.html for tile in run]
        for html in parts if end else [_BETWEEN.join(parts)]:
            yield {"html": html, "until": end}


def _described(tile: Tile) -> dict[str, object]:
    return {
        "name": tile.route.name,
        "title": tile.title,
        "description": tile.description,
        "url": tile.url,
    }


def _sought(tiles: list[Tile], text: str) -> Iterator[Tile]:
    words = text.casefold().split()
    for tile in tiles:
        searched = f"{tile.title} {tile.description} {tile.route.name}".casefold()
        if all(word in searched for word in words):
            yield tile
