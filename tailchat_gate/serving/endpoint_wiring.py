"""Wires the handlers of the gate's own paths from the parts of all rooms below."""

from typing import NamedTuple
from urllib.parse import urlsplit

from tailchat_gate.authorizer import Authorizer
from tailchat_gate.config.model import Settings
from tailchat_gate.endpoints.forward_auth import ForwardAuth
from tailchat_gate.endpoints.login import LoginEndpoints, outcome_codec
from tailchat_gate.endpoints.login_refusals import LoginRefusals
from tailchat_gate.endpoints.login_targets import Bindings, Targets
from tailchat_gate.endpoints.router import Endpoints
from tailchat_gate.endpoints.sign_out import FormTokens, SignOut
from tailchat_gate.endpoints.userinfo import KeySet, UserInfo
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.serving.process_state import ProcessState
from tailchat_gate.serving.rooms import Access, Identity, Proxy, Responses, secrets


class Parts(NamedTuple):
    """The parts that the handlers are built from."""

    settings: Settings
    process_state: ProcessState
    access: Access
    identity: Identity
    proxy: Proxy
    responses: Responses
    authorizer: Authorizer


def wire_endpoints(parts: Parts) -> Endpoints:
    """Return the handlers of the gate's own paths."""
    settings, answers = parts.settings, parts.responses.answers
    prefix, assertions = settings.server.prefix, parts.proxy.assertions
    forms = FormTokens(_key_ring(settings, "form"))
    targets = Targets(
        answers,
        parts.identity.sites,
        parts.responses.returns,
        prefix,
        settings.limits.target_bytes,
    )
    return Endpoints(
        login=_login(parts, targets),
        targets=targets,
        sign_out=_sign_out(parts, forms),
        userinfo=_userinfo(parts, forms),
        forward_auth=_forward_auth(parts),
        key_set=KeySet(answers=answers, key_set=assertions.key_set if assertions else None),
        answers=answers,
        prefix=prefix,
    )


def _login(parts: Parts, targets: Targets) -> LoginEndpoints:
    settings, process_state, identity = parts.settings, parts.process_state, parts.identity
    bindings = Bindings(identity.sessions)
    return LoginEndpoints(
        answers=parts.responses.answers,
        refusals=parts.responses.refusals,
        tailchat=identity.tailchat,
        sessions=identity.sessions,
        bindings=bindings,
        targets=targets,
        sites=identity.sites,
        used_states=process_state.used_states,
        used_passes=process_state.used_passes,
        login_queue=process_state.login_queue,
        states=_key_ring(settings, "state"),
        passes=_key_ring(settings, "pass"),
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
        has_tool=lambda host: routes.match(host, "/", "GET") is not None,
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


def _key_ring(settings: Settings, purpose: str) -> KeyRing:
    return KeyRing(secrets(settings), purpose)
