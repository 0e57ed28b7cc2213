"""The parts that depend on the configuration alone, not on the state of a process."""

from urllib.parse import urlsplit

from tailchat_gate.access.policy import NO_GRANTS, Rule, make_rule
from tailchat_gate.access.routes import RouteTable
from tailchat_gate.config.files import read_picture
from tailchat_gate.config.model import Pages as PagesTable
from tailchat_gate.config.model import Server, Settings
from tailchat_gate.config.tables.admin_page import takes_grants
from tailchat_gate.config.values.identifier import PUBLIC, SIGNED_IN
from tailchat_gate.identity.grants import GrantState
from tailchat_gate.identity.sessions.cookie_fields import CookieNames, CookieReader
from tailchat_gate.pages.brand import Brand
from tailchat_gate.people.groups.memberships import Members
from tailchat_gate.proxy.message.request_headers import RequestHeaders
from tailchat_gate.request.fields import HeadLimits
from tailchat_gate.responses.plain import HSTS


def route_table(
    settings: Settings, members: Members | None = None, grants: GrantState = NO_GRANTS
) -> RouteTable:
    """Return the routes and rules of a configuration.

    `members` knows who is in the groups that Tailchat defines; without it, that is unknown.
    """
    members = Members(settings.groups) if members is None else members
    confined = {token.name: token.routes for token in settings.token if token.routes is not None}
    hsts = hsts_value(settings.server)
    return RouteTable(
        settings.route,
        settings.groups,
        settings.access.deny,
        confined,
        members,
        grants,
        added=f"{HSTS}: {hsts}\r\n".encode("ascii") if hsts else b"",
    )


def hsts_value(server: Server) -> str:
    """Return the value of Strict-Transport-Security, "" for none (RFC 6797 section 6.1)."""
    return f"max-age={int(server.hsts)}" if server.hsts else ""


def cookie_names(settings: Settings) -> CookieNames:
    """Return the names of a gate's cookies."""
    return CookieNames.for_origin(
        settings.server.public_url,
        settings.session.cookie_name,
        tailchat_url=settings.tailchat.api_url,
    )


def request_headers(settings: Settings, reader: CookieReader) -> RequestHeaders:
    """Return the writer of request headers for tools."""
    return RequestHeaders(
        reader,
        settings.route,
        via=settings.server.via,
        authority=urlsplit(settings.server.public_url).netloc,
        forwarded=settings.server.forwarded,
        real_ip=settings.server.real_ip,
        certificate=settings.server.pass_client_certificate,
    )


def askable(settings: Settings) -> frozenset[str]:
    """Return the names of the routes for which people may request access."""
    open_to_all = {PUBLIC, SIGNED_IN}
    return frozenset(
        route.name
        for route in settings.route
        if settings.access.requests and takes_grants(route) and open_to_all.isdisjoint(route.allow)
    )


def request_limits(settings: Settings) -> HeadLimits:
    """Return the limits of a request."""
    limits = settings.limits
    return HeadLimits(
        limits.target_bytes, limits.header_bytes, limits.header_count, limits.cookie_bytes
    )


def approvers(settings: Settings, members: Members) -> Rule:
    """Return the rule that lets approvers in; without approvers it lets nobody in."""
    listed = settings.access.approvers
    return make_rule(listed, settings.groups, members=members) if listed else Rule()


def brand_of(pages: PagesTable) -> Brand:
    """Return the brand of the gate's pages. Raises FileError if the logo cannot be read."""
    return Brand(
        pages.title,
        read_picture("logo", pages.logo),
        pages.accent,
        pages.accent_dark,
        pages.footer,
        pages.texts,
    )
