"""Wires the parts of each room: one constructor for a room, called by `wiring.build`.

The constructors are here and not in their rooms because they take parts of ProcessState, which
rooms below serving must not import.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tailchat_gate.access.browser_origin import Embedders, WorkerScopes
from tailchat_gate.access.rates import (
    CLIENT,
    PERSON,
    ROUTE,
    TOKEN,
    Buckets,
    RateLimit,
    RequestRates,
    RouteRates,
)
from tailchat_gate.access.routes import RouteTable
from tailchat_gate.config.files import read_key
from tailchat_gate.config.model import Settings
from tailchat_gate.config.values.address import (
    AdminPageAddress,
    FilesAddress,
    StaticAddress,
    upstream_address,
)
from tailchat_gate.config.values.quantities import read_rate
from tailchat_gate.endpoints.admin import AdminRoute
from tailchat_gate.identity.grants import GrantState
from tailchat_gate.identity.host_sessions import HostSessions
from tailchat_gate.identity.machine_tokens import Tokens
from tailchat_gate.identity.oauth.return_targets import ReturnTargets
from tailchat_gate.identity.sessions.session_cookie import Lifetimes
from tailchat_gate.identity.sites import Sites
from tailchat_gate.pages.render import Pages
from tailchat_gate.people.groups.memberships import Members
from tailchat_gate.people.rechecks import PeopleRechecks, TicketRechecks
from tailchat_gate.proxy.exchange.forwarder import Forwarder
from tailchat_gate.proxy.exchange.recorder import Recorder
from tailchat_gate.proxy.message.assertion import Assertions, PublishedKeys, SigningKey
from tailchat_gate.proxy.message.identity_headers import IdentityHeaders
from tailchat_gate.proxy.message.request_headers import RequestHeaders
from tailchat_gate.proxy.static.handler import LocalBackend, LocalFiles, StaticAnswer, StaticSlots
from tailchat_gate.responses.answers import Answers
from tailchat_gate.responses.refusals import AccessForm, Refusals
from tailchat_gate.responses.writer import ResponseWriter
from tailchat_gate.serving.process_state import ProcessState
from tailchat_gate.serving.wiring.config_parts import (
    brand_of,
    cookie_names,
    hsts_value,
    request_headers,
    route_table,
)
from tailchat_gate.serving.wiring.tailchat_parts import TailchatParts, secrets, wire_tailchat


class AccessParts(NamedTuple):
    """The parts that decide about routes, service workers and embedding.

    `members` knows who is in the groups that Tailchat defines.
    """

    routes: RouteTable
    workers: WorkerScopes
    members: Members
    embedders: Embedders


class IdentityParts(NamedTuple):
    """The parts that identify visitors."""

    sites: Sites
    tailchat: TailchatParts
    sessions: HostSessions
    tokens: Tokens


class ProxyParts(NamedTuple):
    """The parts that forward requests to tools."""

    headers: RequestHeaders
    forwarder: Forwarder
    assertions: Assertions | None
    identity: IdentityHeaders
    recorder: Recorder


class ResponseParts(NamedTuple):
    """The parts that make the gate's own responses."""

    returns: ReturnTargets
    answers: Answers
    refusals: Refusals
    writer: ResponseWriter


class StaticRoutes(NamedTuple):
    """The handlers of routes without a tool, by the route's name."""

    backends: Mapping[str, LocalBackend | AdminRoute]
    slots: Mapping[str, StaticSlots]


def wire_access(settings: Settings, grants: GrantState) -> AccessParts:
    """Return the parts of the access room."""
    members = Members(settings.groups)
    return AccessParts(
        route_table(settings, members, grants),
        WorkerScopes(settings.server.prefix),
        members,
        Embedders(settings.route),
    )


def rate_limit(buckets: Buckets, name: str, text: str, *, of: str = "") -> RateLimit | None:
    """Return the limit for the configured rate `text`, None if it is empty; see RateLimit."""
    rate = read_rate(text)
    return RateLimit(buckets, name, rate, of=of) if rate else None


def wire_rates(settings: Settings, buckets: Buckets) -> RequestRates | None:
    """Return the rate limits of requests to tools, None if there are none."""
    limits = settings.limits
    person = rate_limit(buckets, PERSON, limits.requests_per_person)
    token = rate_limit(buckets, TOKEN, limits.requests_per_token)
    routes = {
        route.name: RouteRates(
            rate_limit(buckets, ROUTE, route.rate, of=route.name),
            rate_limit(buckets, CLIENT, route.rate_per_client, of=route.name),
        )
        for route in settings.route
        if route.rate or route.rate_per_client
    }
    return RequestRates(person, token, routes) if person or token or routes else None


def wire_identity(
    settings: Settings, access: AccessParts, process_state: ProcessState
) -> IdentityParts:
    """Return the parts of the identity room. Raises FileError."""
    sites = Sites(settings.server.public_url, access.routes.hosts)
    tailchat = wire_tailchat(settings, access.members, process_state)
    sessions = HostSessions(
        secrets(settings),
        sites,
        names=cookie_names(settings),
        lifetimes=Lifetimes(settings.session.lifetime, settings.session.idle),
        clock=process_state.clock,
        revocation=process_state.revocation,
        rechecker=TicketRechecks(
            PeopleRechecks(tailchat.rechecker, tailchat.people),
            tailchat.rechecker.vault,
            process_state.store,
        ),
        vault=tailchat.rechecker.vault,
    )
    tokens = Tokens(
        settings.token,
        process_state.clock,
        process_state.revocation,
        process_state.token_use.last,
    )
    return IdentityParts(sites, tailchat, sessions, tokens)


def wire_proxy(
    settings: Settings, access: AccessParts, sessions: HostSessions, process_state: ProcessState
) -> ProxyParts:
    """Return the parts of the proxy room except static routes. Raises KeyFileError."""
    headers = request_headers(settings, sessions.reader)
    forwarder = Forwarder(
        access.routes.routes,
        sessions.reader,
        headers,
        process_state.upstream_pools,
        access.workers,
        process_state.clock,
        settings.session.idle,
        settings.limits.client_requests,
    )
    assertions = _assertions(settings, process_state.published_keys, process_state.clock)
    recorder = Recorder(
        process_state.metrics,
        process_state.access_log if settings.log.access else None,
        process_state.monotonic,
        process_state.spans,
        names_people=settings.tracing.identity,
    )
    identity = IdentityHeaders(settings.groups, assertions, access.members)
    return ProxyParts(headers, forwarder, assertions, identity, recorder)


def wire_responses(
    settings: Settings,
    sites: Sites,
    proxy: ProxyParts,
    embedders: Embedders,
    access_form: AccessForm,
    process_state: ProcessState,
) -> ResponseParts:
    """Return the parts of the responses room, with the pages."""
    prefix = settings.server.prefix
    returns = ReturnTargets(process_state.stored_targets, prefix)
    pages = Pages(
        contact=settings.pages.contact,
        prefix=prefix,
        public_url=settings.server.public_url,
        tailchat=urlsplit(settings.tailchat.api_url).hostname or "",
        brand=brand_of(settings.pages),
    )
    titles, clock = settings.titles, process_state.clock
    answers = Answers(pages, sites=sites, prefix=prefix, titles=titles, clock=clock)
    refusals = Refusals(
        answers,
        sites=sites,
        returns=returns,
        prefix=prefix,
        sign_in_page=settings.pages.sign_in == "page",
        embedders=embedders,
        access_form=access_form,
        groups_of=proxy.identity.groups_of,
    )
    writer = ResponseWriter(
        answers, process_state.bridge, proxy.recorder, hsts_value(settings.server)
    )
    return ResponseParts(returns, answers, refusals, writer)


def wire_static(settings: Settings, process_state: ProcessState, admin: AdminRoute) -> StaticRoutes:
    """Return the handlers of the routes without a tool; `admin` is that of the admin page."""
    backends: dict[str, LocalBackend | AdminRoute] = {}
    for route in settings.route:
        address = upstream_address(route.backends[0])
        if isinstance(address, AdminPageAddress):
            backends[route.name] = admin
        elif isinstance(address, StaticAddress):
            backends[route.name] = StaticAnswer(address.status)
        elif isinstance(address, FilesAddress):
            backends[route.name] = LocalFiles(
                Path(address.directory), idle_timeout=route.idle_timeout, clock=process_state.clock
            )
    of_one = settings.limits.client_requests
    slots = {
        route.name: StaticSlots(process_state.descriptors, route.max_connections, of_one)
        for route in settings.route
        if route.name in backends
    }
    return StaticRoutes(backends, slots)


def _assertions(
    settings: Settings, published: PublishedKeys, clock: Callable[[], float]
) -> Assertions | None:
    """Return the signer of assertions, None if no key is configured. Raises KeyFileError.

    `published` outlives a configuration, so that tools can fetch a new key before it signs.
    """
    keys = [SigningKey(read_key(path)) for path in settings.assertion.key_files]
    if not keys:
        return None
    return Assertions(
        keys,
        published,
        issuer=settings.server.public_url,
        lifetime=settings.assertion.lifetime,
        clock=clock,
        random_bytes=os.urandom,
    )
