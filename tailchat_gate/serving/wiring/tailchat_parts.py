"""Wires the parts that call Tailchat: sign-ins, rechecks and background calls."""

import math
import ssl
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from aiohttp.abc import AbstractResolver

from tailchat_gate.config.files import authorities_context
from tailchat_gate.config.model import Settings
from tailchat_gate.config.values.address import OwnAddress, upstream_address
from tailchat_gate.config.values.url import proxy_for
from tailchat_gate.identity.oauth.back_channel import BackChannel
from tailchat_gate.identity.oauth.client import TailchatClient
from tailchat_gate.identity.oauth.login import ClientRegistration
from tailchat_gate.identity.oauth.reachability import Reachability
from tailchat_gate.identity.oauth.sign_in_check import SignInCheck
from tailchat_gate.identity.oauth.sign_in_watch import SignInWatch
from tailchat_gate.identity.recheck import RecheckTerms
from tailchat_gate.identity.rechecker import Rechecker
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.stored import SessionVault
from tailchat_gate.identity.token_refresh import RefreshTokens
from tailchat_gate.people.api import TailchatApi
from tailchat_gate.people.bot import Bot
from tailchat_gate.people.groups.memberships import Members
from tailchat_gate.people.groups.watch import GroupTerms, fill
from tailchat_gate.people.inquiry import Inquiry
from tailchat_gate.people.panel import Notices, Panel
from tailchat_gate.people.registration import RegistrationCheck
from tailchat_gate.people.watch import PeopleWatch, WatchTerms
from tailchat_gate.proxy.upstream.resolver import NamesResolver
from tailchat_gate.serving.process_state import ProcessState


class TailchatParts(NamedTuple):
    """The parts of one configuration that call Tailchat, over shared connections.

    `client` makes the calls of sign-ins, `bot` those that need the app's own token.
    """

    client: TailchatClient
    rechecker: Rechecker
    sign_in: SignInWatch
    api: TailchatApi
    bot: Bot
    people: PeopleWatch
    registration: RegistrationCheck
    groups: GroupTerms
    panel: Panel
    notices: Notices


def wire_tailchat(
    settings: Settings, members: Members, process_state: ProcessState
) -> TailchatParts:
    """Return the parts that call Tailchat. Raises FileError.

    Fills `members` with what is already known about Tailchat's groups.
    """
    tailchat, clock = settings.tailchat, process_state.clock
    channel = back_channel(
        settings, NamesResolver(process_state.names), process_state.tailchat.reachability
    )
    client = _client(settings, process_state, channel)
    api = TailchatApi(channel, clock=clock, observe=process_state.metrics.tailchat_call)
    bot = Bot(
        api,
        tailchat.client_id,
        tailchat.client_secret,
        clock,
        server=tailchat.api_url,
        sign_in=process_state.tailchat.bot_sign_in,
    )
    panel = Panel(
        bot,
        settings.access.panel,
        process_state.tailchat.panel_pace,
        max_bytes=tailchat.groups_max_bytes,
        store=process_state.store,
    )
    return TailchatParts(
        client,
        _rechecker(settings, process_state, client),
        SignInWatch(
            sign_in_check(settings, channel).run, process_state.tailchat.sign_in, clock=clock
        ),
        api,
        bot,
        _people(settings, process_state, api, bot),
        RegistrationCheck(settings, api, process_state.tailchat.told_of_registration),
        _groups(settings, process_state, members, api, bot),
        panel,
        _notices(settings, panel, process_state),
    )


def _groups(
    settings: Settings, process_state: ProcessState, members: Members, api: TailchatApi, bot: Bot
) -> GroupTerms:
    tailchat = settings.tailchat
    terms = GroupTerms(
        tailchat.api_url,
        settings.groups,
        members,
        api,
        bot,
        tailchat.groups_refresh,
        tailchat.groups_max_age,
        tailchat.groups_max_bytes,
    )
    fill(terms, process_state.tailchat.group_watch, process_state.clock())
    return terms


def _rechecker(
    settings: Settings, process_state: ProcessState, tailchat: TailchatClient
) -> Rechecker:
    session = settings.session
    return Rechecker(
        RecheckTerms(session.recheck or math.inf, session.recheck_outage),
        tailchat,
        sign_ins=process_state.tailchat.sign_ins,
        tokens=_refresh_tokens(settings, process_state, tailchat),
        end=partial(process_state.locks.revoke, lifetime=session.lifetime),
        timeout=settings.tailchat.timeout,
        clock=process_state.clock,
        observe=process_state.metrics.recheck,
        audit=process_state.audit,
        faults=process_state.faults,
    )


def _refresh_tokens(
    settings: Settings, process_state: ProcessState, tailchat: TailchatClient
) -> RefreshTokens:
    vault = SessionVault(
        process_state.stored_sessions,
        KeyRing(secrets(settings), "stored"),
        settings.session.lifetime,
        holds_sessions=settings.session.store,
    )
    return RefreshTokens(
        tailchat,
        process_state.store,
        keys=KeyRing(secrets(settings), "refresh"),
        vault=vault,
        clock=process_state.clock,
    )


def secrets(settings: Settings) -> list[bytes]:
    """Return the session secrets, from which every key is derived."""
    return [secret.get_secret_value().encode() for secret in settings.session.secrets]


def _people(
    settings: Settings, process_state: ProcessState, api: TailchatApi, bot: Bot
) -> PeopleWatch:
    tailchat = settings.tailchat
    keeps_emails = any(route.uses_email for route in settings.route)
    terms = WatchTerms(
        tailchat.people_refresh,
        guests=settings.access.guests,
        keeps_emails=keeps_emails,
        unverified=tailchat.unverified_email,
    )
    return PeopleWatch(
        terms,
        Inquiry(api, bot, api_url=tailchat.api_url, keeps_emails=keeps_emails),
        process_state.tailchat.people,
        set_blocked=partial(process_state.set_blocked, lifetime=settings.session.lifetime),
        clock=process_state.clock,
        monotonic=process_state.monotonic,
        blocked=process_state.revocation.blocked,
        heard=process_state.tailchat.heard_of_people,
    )


def _notices(settings: Settings, panel: Panel, process_state: ProcessState) -> Notices:
    routes: dict[str, list[str]] = {}
    for route in settings.route:
        for address in map(upstream_address, route.backends):
            if isinstance(address, OwnAddress):
                continue
            routes.setdefault(str(address), []).append(route.shown_name)
    kinds = settings.access.panel_notices if settings.access.panel else ()
    return Notices(panel, kinds, routes, process_state.clock, process_state.tailchat.tools_down)


def sign_in_check(
    settings: Settings, channel: BackChannel, clock: Callable[[], float] | None = None
) -> SignInCheck:
    """Return the check of whether people can sign in; `clock` is compared with Tailchat's."""
    tailchat = settings.tailchat
    return SignInCheck(
        channel,
        ClientRegistration(tailchat.client_id, settings.redirect_uri, tailchat.scope),
        tailchat.client_secret,
        api_url=tailchat.api_url,
        is_direct=not tailchat.internal_url,
        issuer=tailchat.issuer,
        clock=clock,
    )


def back_channel(
    settings: Settings,
    resolver: AbstractResolver | None = None,
    reachability: Reachability | None = None,
) -> BackChannel:
    """Return the connections to Tailchat. Raises FileError."""
    tailchat = settings.tailchat
    back_url = tailchat.internal_url or tailchat.api_url
    return BackChannel(
        back_url,
        timeout=tailchat.timeout,
        resolver=resolver,
        tls=_tailchat_tls(back_url, tailchat.ca_file or None),
        proxy=proxy_for(tailchat.proxy, back_url),
        reachability=reachability,
    )


def _client(
    settings: Settings, process_state: ProcessState, channel: BackChannel
) -> TailchatClient:
    tailchat = settings.tailchat
    return TailchatClient(
        api_url=tailchat.api_url,
        client_id=tailchat.client_id,
        client_secret=tailchat.client_secret,
        redirect_uri=settings.redirect_uri,
        scope=tailchat.scope,
        issuer=tailchat.issuer,
        clock=process_state.clock,
        observe=process_state.metrics.tailchat_call,
        channel=channel,
    )


def _tailchat_tls(url: str, authorities: str | None) -> ssl.SSLContext | None:
    """Return the TLS context for Tailchat, None if no connection uses TLS.

    Reading the system's certificate authorities takes longer than the rest of a reload.
    """
    if authorities is None and not url.startswith("https:"):
        return None
    return authorities_context("ca_file", authorities)
