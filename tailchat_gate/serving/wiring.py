"""Builds a gate from its settings: the one place where all parts meet."""

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from tailchat_gate.access.browser_origin import WorkerScopes
from tailchat_gate.access.routes import RouteTable
from tailchat_gate.authorizer import Authorizer
from tailchat_gate.config.files import authorities_context, read_key
from tailchat_gate.config.model import Settings
from tailchat_gate.config.values.address import FilesAddress, StaticAddress, upstream_address
from tailchat_gate.config.values.url import proxy_for
from tailchat_gate.endpoints.forward_auth import ForwardAuth
from tailchat_gate.endpoints.login import LoginEndpoints, outcome_codec
from tailchat_gate.endpoints.login_refusals import LoginRefusals
from tailchat_gate.endpoints.login_targets import Bindings, Targets
from tailchat_gate.endpoints.router import Endpoints
from tailchat_gate.endpoints.sign_out import FormTokens, SignOut
from tailchat_gate.endpoints.userinfo import KeySet, UserInfo
from tailchat_gate.gate import Gate
from tailchat_gate.identity.host_sessions import HostSessions, Sites
from tailchat_gate.identity.machine_tokens import Tokens
from tailchat_gate.identity.oauth.back_channel import BackChannel
from tailchat_gate.identity.oauth.client import TailchatClient
from tailchat_gate.identity.oauth.return_targets import ReturnTargets
from tailchat_gate.identity.recheck import RecheckTerms
from tailchat_gate.identity.rechecker import Rechecker
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.cookies import CookieNames, CookieReader
from tailchat_gate.identity.sessions.session import Lifetimes
from tailchat_gate.proxy.client.connection import Service, Timeouts
from tailchat_gate.proxy.exchange.forwarder import Forwarder
from tailchat_gate.proxy.exchange.recorder import Recorder
from tailchat_gate.proxy.message.assertion import Assertions, PublishedKeys, SigningKey
from tailchat_gate.proxy.message.identity_headers import IdentityHeaders
from tailchat_gate.proxy.message.request_headers import RequestHeaders
from tailchat_gate.proxy.static.handler import LocalBackend, LocalFiles, StaticAnswer
from tailchat_gate.proxy.upstream.in_flight import StaticSlots
from tailchat_gate.proxy.upstream.resolver import NamesResolver
from tailchat_gate.request.client import ClientResolver
from tailchat_gate.request.fields import Limits
from tailchat_gate.request.head import RequestReader
from tailchat_gate.responses.answers import Answers
from tailchat_gate.responses.refusals import Refusals
from tailchat_gate.responses.writer import ResponseWriter
from tailchat_gate.serving.generations import Generation
from tailchat_gate.serving.process_state import ProcessState


def redirect_uri(settings: Settings) -> str:
    """Return the exact redirect_uri to register in Tailchat."""
    return f"{settings.server.public_url}{settings.server.prefix}/callback"


def route_table(settings: Settings) -> RouteTable:
    """Return the routes and rules of a configuration."""
    confined = {token.name: token.routes for token in settings.token if token.routes is not None}
    return RouteTable(settings.route, settings.groups, settings.access.deny, confined)


def cookie_names(settings: Settings) -> CookieNames:
    """Return the names of a gate's cookies."""
    return CookieNames.for_origin(
        settings.server.public_url,
        settings.session.cookie_name,
        tailchat_url=settings.tailchat.api_url,
    )


def request_headers(settings: Settings, reader: CookieReader) -> RequestHeaders:
    """Return what makes the heads of requests for tools."""
    return RequestHeaders(
        reader,
        settings.route,
        via=settings.server.via,
        forwarded=settings.server.forwarded,
        real_ip=settings.server.real_ip,
    )


def build(settings: Settings, process_state: ProcessState | None = None) -> Generation:
    """Return the generation for `settings`; it has to be started before it serves.

    `process_state` is that of the generation before, None for the first. Nothing of it is changed
    here that an event loop looks at, so that a thread may build while the loop serves: reading the
    pages' and the routes' files takes its time. Raises PemError for a file that changed since it
    was checked, KeyFileError for one with a signing key.
    """
    process_state = (
        ProcessState(state_path=settings.state.path) if process_state is None else process_state
    )
    clock, metrics = process_state.clock, process_state.metrics
    server = settings.server
    names = cookie_names(settings)
    routes = route_table(settings)
    sites = Sites(server.public_url, routes.hosts)
    tailchat = _tailchat(settings, process_state)
    rechecker = _rechecker(settings, tailchat, process_state)
    sessions = _sessions(settings, sites, names, rechecker, process_state)
    headers = request_headers(settings, sessions.reader)
    workers = WorkerScopes(server.prefix)
    forwarder = Forwarder(
        routes.routes,
        sessions.reader,
        headers,
        process_state.upstream_pools,
        workers,
        clock,
        settings.session.idle,
        settings.limits.client_requests,
    )
    tokens = Tokens(settings.token, clock, process_state.revocation, process_state.token_use.last)
    assertions = _assertions(settings, process_state.published_keys, clock)
    identity = IdentityHeaders(settings.groups, assertions)
    returns = ReturnTargets(process_state.kept_targets, server.prefix)
    answers = Answers(
        process_state.make_pages(
            contact=settings.pages.contact, prefix=server.prefix, public_url=server.public_url
        ),
        sites=sites,
        prefix=server.prefix,
        clock=clock,
    )
    refusals = Refusals(
        answers,
        sites=sites,
        returns=returns,
        prefix=server.prefix,
        sign_in_page=settings.pages.sign_in == "page",
    )
    forms = FormTokens(_key_ring(settings, "form"))
    targets = Targets(answers, sites, returns, server.prefix, settings.limits.target_bytes)
    bindings = Bindings(sessions)
    login = LoginEndpoints(
        answers=answers,
        refusals=refusals,
        tailchat=tailchat,
        sessions=sessions,
        bindings=bindings,
        targets=targets,
        sites=sites,
        used_states=process_state.used_states,
        used_passes=process_state.used_passes,
        login_queue=process_state.login_queue,
        states=_key_ring(settings, "state"),
        passes=_key_ring(settings, "pass"),
        outcomes=outcome_codec(_key_ring(settings, "outcome")),
        login_refusals=LoginRefusals(
            answers=answers,
            bindings=bindings,
            targets=targets,
            notes=_key_ring(settings, "note"),
            metrics=metrics,
            audit=process_state.audit,
            faults=process_state.faults,
        ),
        metrics=metrics,
        audit=process_state.audit,
        prefix=server.prefix,
        keeps_tokens=settings.session.recheck > 0,
    )
    authorizer = Authorizer(routes, sites, sessions, tokens, process_state.audit)
    endpoints = Endpoints(
        login=login,
        targets=targets,
        sign_out=SignOut(
            answers=answers,
            sessions=sessions,
            sites=sites,
            forms=forms,
            keys=_key_ring(settings, "sign-out"),
            locks=process_state.locks,
            audit=process_state.audit,
            prefix=server.prefix,
        ),
        userinfo=UserInfo(
            refusals=refusals,
            sessions=sessions,
            tokens=tokens,
            identity=identity,
            forms=forms,
            has_tool=lambda host: routes.match(host, "/", "GET") is not None,
        ),
        forward_auth=ForwardAuth(
            refusals=refusals,
            authorizer=authorizer,
            identity=identity,
            headers=headers,
            workers=workers,
            path=f"{server.prefix}/auth",
            public_host=urlsplit(server.public_url).hostname or "",
            clock=clock,
        ),
        key_set=KeySet(answers=answers, key_set=assertions.key_set if assertions else None),
        answers=answers,
        prefix=server.prefix,
    )
    local = _local_backends(settings, clock)
    recorder = Recorder(
        metrics, process_state.access_log if settings.log.access else None, process_state.monotonic
    )
    gate = Gate(
        clients=ClientResolver(
            server.trusted_proxies, default_scheme=server.public_url.partition(":")[0]
        ),
        endpoints=endpoints,
        authorizer=authorizer,
        workers=workers,
        headers=headers,
        identity=identity,
        forwarder=forwarder,
        local=local,
        static_slots=_static_slots(settings, local, process_state),
        refusals=refusals,
        writer=ResponseWriter(answers, process_state.pages, recorder),
        recorder=recorder,
        request_ids=process_state.request_ids,
        monotonic=process_state.monotonic,
    )
    return Generation(
        settings, gate, _service(settings, gate), tailchat, forwarder, assertions, process_state
    )


def request_limits(settings: Settings) -> Limits:
    """Return what a request may bring."""
    limits = settings.limits
    return Limits(
        limits.target_bytes, limits.header_bytes, limits.header_count, limits.cookie_bytes
    )


def _service(settings: Settings, gate: Gate) -> Service:
    server, limits = settings.server, settings.limits
    reader = RequestReader(request_limits(settings))
    return Service(
        gate,
        reader,
        Timeouts(
            server.header_timeout,
            server.body_timeout,
            server.keepalive_timeout,
            server.half_closed_timeout,
        ),
        limits.target_bytes + limits.header_bytes,
        limits.client_connections,
    )


def _local_backends(settings: Settings, clock: Callable[[], float]) -> dict[str, LocalBackend]:
    found: dict[str, LocalBackend] = {}
    for route in settings.route:
        address = upstream_address(route.upstream)
        if isinstance(address, StaticAddress):
            found[route.name] = StaticAnswer(address.status)
        elif isinstance(address, FilesAddress):
            directory = Path(address.directory)
            found[route.name] = LocalFiles(directory, idle_timeout=route.idle_timeout, clock=clock)
    return found


def _static_slots(
    settings: Settings, local: Mapping[str, LocalBackend], process_state: ProcessState
) -> dict[str, StaticSlots]:
    of_one = settings.limits.client_requests
    return {
        route.name: StaticSlots(process_state.descriptors, route.max_connections, of_one)
        for route in settings.route
        if route.name in local
    }


def _assertions(
    settings: Settings, published: PublishedKeys, clock: Callable[[], float]
) -> Assertions | None:
    """Return what signs identities, None where no key is configured. Raises KeyFileError.

    `published` outlives a configuration, so that a new key is known before it signs.
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


def _secrets(settings: Settings) -> list[bytes]:
    return [secret.get_secret_value().encode() for secret in settings.session.secrets]


def _key_ring(settings: Settings, purpose: str) -> KeyRing:
    return KeyRing(_secrets(settings), purpose)


def _sessions(
    settings: Settings,
    sites: Sites,
    names: CookieNames,
    rechecker: Rechecker,
    process_state: ProcessState,
) -> HostSessions:
    return HostSessions(
        _secrets(settings),
        sites,
        names=names,
        lifetimes=Lifetimes(settings.session.lifetime, settings.session.idle),
        clock=process_state.clock,
        revocation=process_state.revocation,
        rechecker=rechecker,
    )


def _rechecker(
    settings: Settings, tailchat: TailchatClient, process_state: ProcessState
) -> Rechecker:
    session = settings.session
    return Rechecker(
        RecheckTerms(session.recheck or math.inf, session.recheck_outage),
        tailchat,
        sign_ins=process_state.sign_ins,
        end=partial(process_state.locks.revoke, lifetime=session.lifetime),
        patience=settings.tailchat.timeout,
        clock=process_state.clock,
        observe=process_state.metrics.recheck,
        audit=process_state.audit,
    )


def _tailchat(settings: Settings, process_state: ProcessState) -> TailchatClient:
    tailchat = settings.tailchat
    back_url = tailchat.internal_url or tailchat.api_url
    return TailchatClient(
        api_url=tailchat.api_url,
        client_id=tailchat.client_id,
        client_secret=tailchat.client_secret,
        redirect_uri=redirect_uri(settings),
        scope=tailchat.scope,
        issuer=tailchat.issuer,
        clock=process_state.clock,
        observe=process_state.metrics.tailchat_call,
        channel=BackChannel(
            back_url,
            timeout=tailchat.timeout,
            resolver=NamesResolver(process_state.names),
            tls=authorities_context("ca_file", tailchat.ca_file or None),
            proxy=proxy_for(tailchat.proxy, back_url),
        ),
    )
