"""Values of the People page: refusals, locks, grants, requests, live connections."""

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Final

from tailchat_gate.access.remedies import RefusedRequest, reason_now, remedies
from tailchat_gate.config.tables.admin_page import is_admin_page
from tailchat_gate.config.values.identifier import SUB, TOKEN
from tailchat_gate.gate import Gate
from tailchat_gate.identity.revocation.state import Lock
from tailchat_gate.observe.audit import Refusal
from tailchat_gate.observe.request_counts import is_stream
from tailchat_gate.proxy.client.active_request import ActiveRequest
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.serving.dashboard.facts import SHOWN, rows
from tailchat_gate.serving.generations import Generation
from tailchat_gate.serving.process_state import ProcessState

#: Live connections that are shown.
MOST_LIVE: Final = 200

Row = dict[str, object]


def people(
    generation: Generation, connections: Iterable[ClientConnection]
) -> Generator[None, None, dict[str, object]]:
    """Return the values of the page."""
    process_state = generation.process_state
    refusals: list[Row] = []
    for refusal in process_state.audit.refusals[:SHOWN]:
        refusals.append(_refusal(generation, refusal))
        yield
    live = sorted(under_way(generation, connections), key=lambda stream: stream[:2])
    now, titles = process_state.monotonic(), generation.settings.titles
    return {
        "refusals": rows(refusals, len(process_state.audit.refusals)),
        "requests": [
            {**request.shown(), "title": titles.get(request.route, request.route)}
            for request in process_state.access_requests.open
        ],
        "locks": [
            {"target": lock.target, "until": lock.until, "message": lock.message, "at": lock.at}
            for lock in process_state.revocation.locks
        ],
        "grants": [
            {"sub": grant.sub, "route": grant.route, "until": grant.until, "by": grant.by}
            | {"reason": grant.reason, "title": titles.get(grant.route, grant.route)}
            for grant in process_state.grants.state.in_force
        ],
        "live": rows([_live(*stream, now, titles) for stream in live[:MOST_LIVE]], len(live)),
        "grantable": [{"name": name, "title": titles[name]} for name in grantable(generation)],
    }


def grantable(generation: Generation) -> list[str]:
    """Return the names of the routes that a grant can open."""
    gate: Gate = generation.gate
    return [route.name for route in gate.authorizer.routes.routes if route.rule.route]


def under_way(
    generation: Generation, connections: Iterable[ClientConnection]
) -> Iterator[tuple[str, str, ActiveRequest]]:
    """Yield owner, request ID and request of everything under way that ends with its session.

    The owner is a person's sub or "token:NAME". Requests for the admin page are left out: the order
    itself, and the event streams of open pages.
    """
    own = {route.name for route in generation.settings.route if is_admin_page(route)}
    for connection in connections:
        request = connection.active_request
        admission = request.admission if request is not None else None
        if request is None or admission is None or admission.holder is None:
            continue
        context = admission.context
        who = f"{TOKEN}{context.token}" if context.token else context.sub
        if who and context.route not in own:
            yield who, context.request_id, request


def open_streams(
    connections: Iterable[ClientConnection], now: float
) -> Generator[None, None, Counter[str]]:
    """Return how many event streams and long polls are open, by route; `now` is monotonic."""
    by_route: Counter[str] = Counter()
    for connection in tuple(connections):
        context: RequestContext | None = getattr(connection.active_request, "context", None)
        if context is not None and is_stream(context, now - context.started):
            by_route[context.route] += 1
        yield
    return by_route


def _route_of(request: ActiveRequest) -> str:
    return request.admission.context.route if request.admission is not None else ""


def _live(
    who: str, request_id: str, request: ActiveRequest, now: float, titles: Mapping[str, str]
) -> Row:
    context = request.admission.context if request.admission is not None else None
    record = getattr(request.session, "record", None)
    return {
        "who": who,
        "id": request_id,
        "nickname": getattr(record, "nickname", ""),
        "route": _route_of(request),
        "title": titles.get(_route_of(request), _route_of(request)),
        "path": context.path if context else "",
        "client": context.client if context else "",
        "seconds": max(now - context.started, 0.0) if context else 0.0,
    }


def _refusal(generation: Generation, refusal: Refusal) -> Row:
    process_state, who = generation.process_state, refusal.person.sub
    is_machine = who.startswith(TOKEN)
    settings, table = generation.settings, generation.gate.authorizer.routes
    # The method is not stored, so assume one that the route takes.
    methods = next((route.methods for route in settings.route if route.name == refusal.route), ())
    request = RefusedRequest(
        *(who, refusal.reason, refusal.host, refusal.path),
        method=methods[0] if methods else "GET",
        lock=_lock(process_state, who),
    )
    reason = reason_now(table, request, _blocked(generation, who))
    lets_in = remedies(settings, table, request._replace(reason=reason)) if reason else ()
    return {
        "who": who if is_machine else SUB + who,
        "nickname": refusal.person.nickname,
        "discriminator": refusal.person.discriminator,
        "route": refusal.route,
        "title": settings.titles.get(refusal.route, refusal.route),
        "is_let_in": reason is None,
        "where": f"{refusal.host}{refusal.path}",
        "reason": str(refusal.reason),
        "count": refusal.count,
        "last": refusal.last,
        "remedies": [{"table": remedy.table, "line": remedy.line} for remedy in lets_in],
    }


def _blocked(generation: Generation, who: str) -> Reason | None:
    """Return the reason that holds whatever the rules say: of the account, or the expired token."""
    process_state = generation.process_state
    if not who.startswith(TOKEN):
        return process_state.revocation.blocked().get(who)
    name = who.removeprefix(TOKEN)
    token = next((token for token in generation.settings.token if token.name == name), None)
    if token is None:
        return Reason.TOKEN_UNKNOWN
    over = token.expires is not None and token.expires <= process_state.clock()
    return Reason.TOKEN_EXPIRED if over else None


def _lock(process_state: ProcessState, who: str) -> Lock | None:
    if who.startswith(TOKEN):
        return process_state.revocation.lock_on_token(who.removeprefix(TOKEN))
    return process_state.revocation.lock_on(who)
