"""Builds a gate from its settings: the one place where all parts meet."""

from tailchat_gate.authorizer import Authorizer
from tailchat_gate.config.model import Settings
from tailchat_gate.endpoints.router import Endpoints
from tailchat_gate.gate import Gate
from tailchat_gate.proxy.client.connection import Service, Timeouts
from tailchat_gate.request.client import ClientResolver
from tailchat_gate.request.fields import Limits
from tailchat_gate.request.head import RequestReader
from tailchat_gate.serving.endpoint_wiring import Parts, wire_endpoints
from tailchat_gate.serving.generations import Generation
from tailchat_gate.serving.process_state import ProcessState
from tailchat_gate.serving.rooms import (
    StaticRoutes,
    wire_access,
    wire_identity,
    wire_proxy,
    wire_responses,
    wire_static,
)


def build(settings: Settings, process_state: ProcessState | None = None) -> Generation:
    """Return the generation for `settings`; call its `start` before it serves.

    `process_state` is the previous generation's, None for the first. This changes nothing in it
    that the event loop uses, so a thread can build while the loop serves: reading the pages' and
    the routes' files is slow. Raises PemError for a file that changed since it was checked, and
    KeyFileError for one with a signing key.
    """
    process_state = (
        ProcessState(state_path=settings.state.path) if process_state is None else process_state
    )
    access = wire_access(settings)
    identity = wire_identity(settings, access.routes, process_state)
    proxy = wire_proxy(settings, access, identity.sessions, process_state)
    responses = wire_responses(settings, identity.sites, proxy.recorder, process_state)
    authorizer = Authorizer(
        access.routes, identity.sites, identity.sessions, identity.tokens, process_state.audit
    )
    parts = Parts(settings, process_state, access, identity, proxy, responses, authorizer)
    gate = _gate(parts, wire_endpoints(parts), wire_static(settings, process_state))
    return Generation(
        settings,
        gate,
        _service(settings, gate),
        identity.tailchat,
        proxy.forwarder,
        proxy.assertions,
        process_state,
    )


def request_limits(settings: Settings) -> Limits:
    """Return the limits of a request."""
    limits = settings.limits
    return Limits(
        limits.target_bytes, limits.header_bytes, limits.header_count, limits.cookie_bytes
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
        monotonic=parts.process_state.monotonic,
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
