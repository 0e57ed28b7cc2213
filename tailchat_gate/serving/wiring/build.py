"""Builds a gate from its settings: the only place that knows all parts."""

from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlsplit

from tailchat_gate.access.rates import LOGINS, RateLimit
from tailchat_gate.authorizer import Authorizer
from tailchat_gate.config.certificates import certificate_expiries
from tailchat_gate.config.load import Sources
from tailchat_gate.config.model import Settings
from tailchat_gate.endpoints.access import AccessEndpoints, ApprovalDesk
from tailchat_gate.endpoints.account import SignOut, UserInfo
from tailchat_gate.endpoints.admin import AdminRoute
from tailchat_gate.endpoints.form_tokens import FormTokens
from tailchat_gate.endpoints.forward_auth import ForwardAuth
from tailchat_gate.endpoints.frame import FrameSignIn
from tailchat_gate.endpoints.https_redirect import HttpsRedirect
from tailchat_gate.endpoints.launcher import Launcher
from tailchat_gate.endpoints.login import LoginEndpoints
from tailchat_gate.endpoints.login_answers import (
    Bindings,
    LoginRefusals,
    Targets,
    outcome_codec,
)
from tailchat_gate.endpoints.login_rates import LoginRates
from tailchat_gate.endpoints.router import ClearCookies, Endpoints, KeySet
from tailchat_gate.gate import Gate
from tailchat_gate.identity.oauth.login_state import KEY_PURPOSE
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.proxy.client.connection import Service, Timeouts
from tailchat_gate.request.client import ClientResolver
from tailchat_gate.request.head import RequestReader
from tailchat_gate.responses.refusals import AccessForm
from tailchat_gate.serving.generations import Generation
from tailchat_gate.serving.listening.tls import server_tls
from tailchat_gate.serving.process_state import ProcessState, process_state_of, trace_contexts
from tailchat_gate.serving.wiring.config_parts import approvers, askable, request_limits
from tailchat_gate.serving.wiring.rooms import (
    AccessParts,
    IdentityParts,
    ProxyParts,
    ResponseParts,
    StaticRoutes,
    rate_limit,
    wire_access,
    wire_identity,
    wire_proxy,
    wire_rates,
    wire_responses,
    wire_static,
)
from tailchat_gate.serving.wiring.tailchat_parts import secrets


class Parts(NamedTuple):
    """The parts that the handlers are built from."""

    settings: Settings
    process_state: ProcessState
    access: AccessParts
    identity: IdentityParts
    proxy: ProxyParts
    responses: ResponseParts
    authorizer: Authorizer


def wire_endpoints(parts: Parts) -> Endpoints:
    """Return the handlers of the gate's own paths."""
    settings, answers = parts.settings, parts.responses.answers
    prefix, assertions = settings.server.prefix, parts.proxy.assertions
    forms = FormTokens(_key_ring(settings, "form"), parts.identity.sites)
    targets = Targets(
        answers,
        parts.identity.sites,
        parts.responses.returns,
        prefix,
        settings.limits.target_bytes,
        parts.access.routes,
    )
    login = _login(parts, targets)
    return Endpoints(
        login=login,
        rates=LoginRates(login, _login_rate(parts, "start"), _login_rate(parts, "callback")),
        frame=FrameSignIn(
            answers=answers,
            bindings=Bindings(parts.identity.sessions),
            targets=targets,
            sites=parts.identity.sites,
            embedders=parts.access.embedders,
            prefix=prefix,
        ),
        access=_access(parts, targets, forms),
        targets=targets,
        sign_out=_sign_out(parts, forms),
        userinfo=_userinfo(parts, forms),
        clear_cookies=ClearCookies(answers, parts.identity.sites),
        launcher=_launcher(parts),
        forward_auth=_forward_auth(parts),
        key_set=KeySet(answers=answers, key_set=assertions.key_set if assertions else None),
        refusals=parts.responses.refusals,
        maintenance=parts.process_state.revocation.maintenance,
        prefix=prefix,
    )


def _access(parts: Parts, targets: Targets, forms: FormTokens) -> AccessEndpoints:
    settings, process_state = parts.settings, parts.process_state
    return AccessEndpoints(
        refusals=parts.responses.refusals,
        sessions=parts.identity.sessions,
        sites=parts.identity.sites,
        targets=targets,
        forms=forms,
        routes=parts.access.routes,
        desk=_desk(parts),
        grants=process_state.grants,
        is_stored=lambda: not process_state.store.faults,
        panel=parts.identity.tailchat.panel,
        prefix=settings.server.prefix,
    )


def _desk(parts: Parts) -> ApprovalDesk:
    settings = parts.settings
    rule = approvers(settings, parts.access.members)
    return ApprovalDesk(parts.process_state.access_requests, rule, askable(settings))


def _admin(parts: Parts) -> AdminRoute:
    process_state = parts.process_state
    return AdminRoute(
        page=lambda: process_state.admin_page,
        forms=FormTokens(_key_ring(parts.settings, "admin"), parts.identity.sites),
        sites=parts.identity.sites,
        answers=parts.responses.answers,
        approvers=approvers(parts.settings, parts.access.members),
        clock=process_state.clock,
    )


def _login(parts: Parts, targets: Targets) -> LoginEndpoints:
    settings, process_state, identity = parts.settings, parts.process_state, parts.identity
    bindings = Bindings(identity.sessions)
    return LoginEndpoints(
        answers=parts.responses.answers,
        refusals=parts.responses.refusals,
        tailchat=identity.tailchat.client,
        sign_in_watch=identity.tailchat.sign_in,
        people=identity.tailchat.people,
        sessions=identity.sessions,
        bindings=bindings,
        targets=targets,
        sites=identity.sites,
        used_states=process_state.used_states,
        used_handoffs=process_state.used_handoffs,
        login_queue=process_state.login_queue,
        states=_key_ring(settings, KEY_PURPOSE),
        handoffs=_key_ring(settings, "pass"),
        outcomes=outcome_codec(_key_ring(settings, "outcome")),
        login_refusals=LoginRefusals(
            answers=parts.responses.answers,
            bindings=bindings,
            targets=targets,
            notes=_key_ring(settings, "note"),
            metrics=process_state.metrics,
            audit=process_state.audit,
            faults=process_state.faults,
        ),
        metrics=process_state.metrics,
        audit=process_state.audit,
        prefix=settings.server.prefix,
        keeps_tokens=settings.session.recheck > 0,
    )


def _sign_out(parts: Parts, forms: FormTokens) -> SignOut:
    return SignOut(
        answers=parts.responses.answers,
        sessions=parts.identity.sessions,
        sites=parts.identity.sites,
        forms=forms,
        keys=_key_ring(parts.settings, "sign-out"),
        locks=parts.process_state.locks,
        audit=parts.process_state.audit,
        prefix=parts.settings.server.prefix,
    )


def _userinfo(parts: Parts, forms: FormTokens) -> UserInfo:
    routes = parts.access.routes
    return UserInfo(
        refusals=parts.responses.refusals,
        sessions=parts.identity.sessions,
        tokens=parts.identity.tokens,
        identity=parts.proxy.identity,
        forms=forms,
        grants=parts.process_state.grants.state,
        has_tool=lambda host: routes.match(host, "/", "GET") is not None,
    )


def _launcher(parts: Parts) -> Launcher:
    return Launcher(
        refusals=parts.responses.refusals,
        sessions=parts.identity.sessions,
        sites=parts.identity.sites,
        routes=parts.access.routes,
        desk=_desk(parts),
        grants=parts.process_state.grants.state,
        prefix=parts.settings.server.prefix,
    )


def _forward_auth(parts: Parts) -> ForwardAuth:
    server = parts.settings.server
    return ForwardAuth(
        refusals=parts.responses.refusals,
        authorizer=parts.authorizer,
        identity=parts.proxy.identity,
        headers=parts.proxy.headers,
        workers=parts.access.workers,
        path=f"{server.prefix}/auth",
        public_host=urlsplit(server.public_url).hostname or "",
        clock=parts.process_state.clock,
    )


def _login_rate(parts: Parts, step: str) -> RateLimit | None:
    limits, buckets = parts.settings.limits, parts.process_state.rates.buckets
    return rate_limit(buckets, LOGINS, limits.logins, of=step)


def _key_ring(settings: Settings, purpose: str) -> KeyRing:
    return KeyRing(secrets(settings), purpose)


def build(
    settings: Settings,
    process_state: ProcessState | None = None,
    sources: Sources = MappingProxyType({}),
) -> Generation:
    """Return the generation for `settings`; call its `start` before it serves.

    `process_state` is the previous generation's, None for the first. `sources` says where settings
    came from that are not in the file.

    This blocks while it reads files. It changes nothing in `process_state` that the event loop
    uses, so a thread can build while the loop serves. Raises FileError for a file that changed
    since it was checked, and KeyFileError for a changed signing key.
    """
    process_state = process_state_of(settings) if process_state is None else process_state
    access = wire_access(settings, process_state.grants.state)
    identity = wire_identity(settings, access, process_state)
    proxy = wire_proxy(settings, access, identity.sessions, process_state)
    responses = wire_responses(
        settings,
        identity.sites,
        proxy,
        access.embedders,
        AccessForm(
            askable(settings), FormTokens(_key_ring(settings, "form"), identity.sites).token
        ),
        process_state,
    )
    authorizer = Authorizer(
        access.routes,
        identity.sites,
        identity.sessions,
        identity.tokens,
        process_state.audit,
        wire_rates(settings, process_state.rates.buckets),
    )
    parts = Parts(settings, process_state, access, identity, proxy, responses, authorizer)
    static = wire_static(settings, process_state, _admin(parts))
    gate = _gate(parts, wire_endpoints(parts), static)
    return Generation(
        settings,
        gate,
        _service(settings, gate, _redirecting(parts, gate)),
        identity.tailchat.client,
        identity.tailchat.sign_in,
        identity.tailchat.people,
        identity.tailchat.registration,
        identity.tailchat.groups,
        identity.tailchat.panel,
        identity.tailchat.notices,
        proxy.forwarder,
        proxy.assertions,
        server_tls(settings.server),
        process_state,
        certificate_expiries(settings),
        sources,
    )


def _gate(parts: Parts, endpoints: Endpoints, static: StaticRoutes) -> Gate:
    server = parts.settings.server
    return Gate(
        clients=ClientResolver(
            server.trusted_proxies, default_scheme=server.public_url.partition(":")[0]
        ),
        endpoints=endpoints,
        authorizer=parts.authorizer,
        workers=parts.access.workers,
        headers=parts.proxy.headers,
        identity=parts.proxy.identity,
        forwarder=parts.proxy.forwarder,
        local=static.backends,
        static_slots=static.slots,
        refusals=parts.responses.refusals,
        writer=parts.responses.writer,
        recorder=parts.proxy.recorder,
        request_ids=parts.process_state.request_ids,
        traces=trace_contexts(parts.settings.tracing, parts.process_state.spans),
        monotonic=parts.process_state.monotonic,
        passes_certificate=parts.settings.server.pass_client_certificate,
    )


def _redirecting(parts: Parts, gate: Gate) -> HttpsRedirect:
    return HttpsRedirect(
        gate,
        parts.identity.sites,
        parts.responses.refusals,
        parts.responses.writer,
        parts.process_state.request_ids,
        parts.process_state.monotonic,
    )


def _service(settings: Settings, gate: Gate, redirecting: HttpsRedirect) -> Service:
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
        redirecting,
    )
