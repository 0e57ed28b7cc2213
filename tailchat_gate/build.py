"""Builds a gate from its settings: the one place where all parts meet."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tailchat_gate.access.routes import RouteTable
from tailchat_gate.answers import Answers
from tailchat_gate.authorizer import Authorizer
from tailchat_gate.config.address import FilesAddress, StaticAddress, upstream_address
from tailchat_gate.config.keyfile import read_key
from tailchat_gate.config.model import Settings
from tailchat_gate.endpoints.forward_auth import ForwardAuth
from tailchat_gate.endpoints.jwks import KeySet
from tailchat_gate.endpoints.login import LoginEndpoints
from tailchat_gate.endpoints.sign_out import SignOut
from tailchat_gate.endpoints.table import Endpoints
from tailchat_gate.endpoints.userinfo import UserInfo
from tailchat_gate.gate import Gate
from tailchat_gate.identity.cookie import CookieNames, CookieReader
from tailchat_gate.identity.handoff import Sites
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.session import Lifetimes
from tailchat_gate.identity.site import SiteSessions
from tailchat_gate.identity.tailchat import TailchatClient
from tailchat_gate.identity.tokens import Tokens
from tailchat_gate.identity.used_states import UsedStates
from tailchat_gate.observe.access_log import AccessLog
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.pages.render import Pages
from tailchat_gate.proxy.assertion import Assertions, PublishedKeys, SigningKey
from tailchat_gate.proxy.forward import Forwarder
from tailchat_gate.proxy.headers import RequestHeaders
from tailchat_gate.proxy.identity_headers import IdentityHeaders
from tailchat_gate.proxy.local import LocalBackend, LocalFiles, StaticAnswer
from tailchat_gate.proxy.own_pages import PageServer
from tailchat_gate.request.client import ClientResolver
from tailchat_gate.request.visit import RequestIds


@dataclass(frozen=True, slots=True)
class Generation:
    """One configuration in force: its settings, the gate made of them, and what must be closed."""

    settings: Settings
    gate: Gate
    tailchat: TailchatClient
    forwarder: Forwarder
    metrics: Metrics
    audit: Audit
    access_log: AccessLog | None

    def start(self) -> None:
        """Begin to serve; needs a running event loop."""
        self.gate.pages.start()
        self.forwarder.start()

    async def close(self) -> None:
        """Close every connection and write what is still to be logged."""
        self.forwarder.close()
        await self.tailchat.close()
        if self.access_log is not None:
            await self.access_log.close()


def redirect_uri(settings: Settings) -> str:
    """Return the exact redirect_uri to register in Tailchat."""
    return f"{settings.server.public_url}{settings.server.prefix}/callback"


def route_table(settings: Settings) -> RouteTable:
    """Return the routes and rules of a configuration."""
    confined = {token.name: token.routes for token in settings.token if token.routes is not None}
    return RouteTable(settings.route, settings.groups, settings.access.deny, confined)


def request_headers(settings: Settings, reader: CookieReader) -> RequestHeaders:
    """Return what makes the heads of requests for tools."""
    return RequestHeaders(
        reader,
        {name for route in settings.route for name in route.headers},
        via=settings.server.via,
        forwarded=settings.server.forwarded,
    )


def build(
    settings: Settings,
    *,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    log_descriptor: int = 1,
) -> Generation:
    """Return the generation for `settings`.

    `clock` gives Unix seconds, `monotonic` seconds that never go back. The access log goes to
    `log_descriptor` (standard output). Reads the pages' files, so it belongs outside of what an
    event loop serves.
    """
    server = settings.server
    names = CookieNames.for_origin(server.public_url)
    routes = route_table(settings)
    sites = Sites(server.public_url, routes.hosts)
    sessions = _sessions(settings, sites, names, clock)
    reader = sessions.reader
    headers = request_headers(settings, reader)
    forwarder = Forwarder(routes.routes, reader, headers, clock)
    access_log = AccessLog(log_descriptor, clock) if settings.log.access else None
    metrics = _metrics(forwarder, access_log)
    tailchat = _tailchat(settings, metrics, clock)
    tokens = Tokens(settings.token, clock)
    assertions = _assertions(settings, PublishedKeys(), clock)
    identity = IdentityHeaders(settings.groups, assertions)
    answers = Answers(
        Pages(contact=settings.pages.contact, prefix=server.prefix, public_url=server.public_url),
        sites=sites,
        prefix=server.prefix,
        sign_in_page=settings.pages.sign_in == "page",
        clock=clock,
    )
    audit = Audit(clock)
    login = LoginEndpoints(
        answers=answers,
        tailchat=tailchat,
        sessions=sessions,
        sites=sites,
        used_states=UsedStates(clock=clock),
        used_passes=UsedStates(clock=clock),
        states=_key_ring(settings, "state"),
        passes=_key_ring(settings, "pass"),
        notes=_key_ring(settings, "note"),
        metrics=metrics,
        audit=audit,
        prefix=server.prefix,
    )
    authorizer = Authorizer(routes, sessions, tokens, audit)
    endpoints = Endpoints(
        login=login,
        sign_out=SignOut(
            answers=answers,
            sessions=sessions,
            sites=sites,
            forms=_key_ring(settings, "form"),
            audit=audit,
            prefix=server.prefix,
        ),
        userinfo=UserInfo(answers=answers, sessions=sessions, tokens=tokens, identity=identity),
        forward_auth=ForwardAuth(
            answers=answers,
            authorizer=authorizer,
            identity=identity,
            path=f"{server.prefix}/auth",
            clock=clock,
        ),
        key_set=KeySet(answers=answers, key_set=assertions.key_set if assertions else None),
        answers=answers,
        prefix=server.prefix,
    )
    gate = Gate(
        clients=ClientResolver(
            server.trusted_proxies, default_scheme=server.public_url.partition(":")[0]
        ),
        endpoints=endpoints,
        authorizer=authorizer,
        headers=headers,
        identity=identity,
        forwarder=forwarder,
        local=_local_backends(settings, clock),
        pages=PageServer(),
        answers=answers,
        metrics=metrics,
        access_log=access_log,
        request_ids=RequestIds(os.urandom),
        monotonic=monotonic,
    )
    return Generation(settings, gate, tailchat, forwarder, metrics, audit, access_log)


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


def _assertions(
    settings: Settings, published: PublishedKeys, clock: Callable[[], float]
) -> Assertions | None:
    """Return what signs identities, None where no key is configured. Raises KeyFileError.

    `published` outlives a configuration, so that a new key is known before it signs.
    """
    keys = [SigningKey(read_key(path)) for path in settings.assertion.key_files]
    if not keys:
        published.publish((), clock())
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
    settings: Settings, sites: Sites, names: CookieNames, clock: Callable[[], float]
) -> SiteSessions:
    return SiteSessions(
        _secrets(settings),
        sites,
        names=names,
        lifetimes=Lifetimes(settings.session.lifetime, settings.session.idle),
        clock=clock,
    )


def _metrics(forwarder: Forwarder, access_log: AccessLog | None) -> Metrics:
    return Metrics(
        (
            ("gate_websockets_open", "WebSockets open.", lambda: forwarder.open_tunnels),
            (
                "gate_log_lines_dropped",
                "Access log lines lost because nobody read them.",
                lambda: access_log.dropped if access_log else 0,
            ),
        )
    )


def _tailchat(settings: Settings, metrics: Metrics, clock: Callable[[], float]) -> TailchatClient:
    tailchat = settings.tailchat
    return TailchatClient(
        api_url=tailchat.api_url,
        client_id=tailchat.client_id,
        client_secret=tailchat.client_secret,
        redirect_uri=redirect_uri(settings),
        scope=tailchat.scope,
        issuer=tailchat.issuer,
        timeout=tailchat.timeout,
        clock=clock,
        observe=metrics.tailchat_call,
    )
