"""What a login belongs to: the browser that began it, and the address it returns to."""

import os
from dataclasses import dataclass

from aiohttp import web

from tailchat_gate.identity.host_sessions import HostSessions, Sites, read_handoff_target
from tailchat_gate.identity.oauth.login import MAX_RETURN_TO, safe_return_to
from tailchat_gate.identity.oauth.login_state import STATE_LIFETIME, LoginCookie, choose, surplus
from tailchat_gate.identity.oauth.return_targets import ReturnTargets
from tailchat_gate.identity.sessions.cookies import set_cookie
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.target import cookie_fields, query_pairs
from tailchat_gate.responses.answers import Answers


@dataclass(frozen=True, slots=True)
class Bindings:
    """The login cookies of requests and answers."""

    sessions: HostSessions

    def of(self, request: web.BaseRequest) -> list[LoginCookie]:
        """Return the login cookies that a browser sent."""
        reader = self.sessions.reader
        return [
            cookie
            for field in cookie_fields(request.raw_headers)
            for cookie in reader.login_cookies(field)
        ]

    def values(self, request: web.BaseRequest) -> list[str]:
        """Return the values of the login cookies that a browser sent."""
        return [cookie.value for cookie in self.of(request)]

    def for_login(self, request: web.BaseRequest) -> LoginCookie:
        """Return the cookie for a login that begins."""
        return choose(
            self.of(request),
            prefix=self.sessions.names.login,
            now=self.sessions.clock(),
            random_bytes=os.urandom,
        )

    def set(
        self, request: web.BaseRequest, answer: web.StreamResponse, cookie: LoginCookie
    ) -> None:
        """Set a login cookie for as long as a login may take, and delete surplus ones."""
        self._add(answer, cookie.name, cookie.value, STATE_LIFETIME)
        self.prune(request, answer, cookie.name)

    def prune(self, request: web.BaseRequest, answer: web.StreamResponse, kept: str = "") -> None:
        """Delete the surplus of a browser's login cookies, but not the one called `kept`."""
        for name in surplus(self.of(request), kept):
            self._add(answer, name, "", 0)

    def _add(self, answer: web.StreamResponse, name: str, value: str, max_age: int) -> None:
        secure = self.sessions.names.secure
        answer.headers.add("Set-Cookie", set_cookie(name, value, max_age=max_age, secure=secure))


@dataclass(frozen=True, slots=True)
class Targets:
    """The return targets of one configuration; `longest` is how long one may be."""

    answers: Answers
    sites: Sites
    returns: ReturnTargets
    prefix: str
    longest: int

    def asked(self, context: RequestContext) -> str:
        """Return where a login is to return to, short enough to travel with it."""
        wanted = dict(query_pairs(context.target.query)).get("rd", "/")
        found = self.safe(wanted, context.host)
        if len(found) <= MAX_RETURN_TO and self.is_handoff(found):
            # It was made short where it began, and is for another host.
            return found
        origin = self.sites.origin(context.host)
        return self.returns.short(found, origin=origin, visitor=context.client)

    def safe(self, return_to: str, host: str = "") -> str:
        """Return a target on a host as it is, "/" where it is not surely the gate's."""
        return safe_return_to(
            return_to,
            longest=self.longest,
            public_origin=self.sites.origin(host),
            allowed_origins=self.sites,
            prefix=self.prefix,
        )

    def is_handoff(self, return_to: str) -> bool:
        """Whether a target is the arrival of a sign-in at a tool's host."""
        return read_handoff_target(return_to, self.sites, self.prefix) is not None

    def at_last(self, return_to: str) -> str:
        """Return the address that a login is to return to at last, for a link."""
        arrival = read_handoff_target(return_to, self.sites, self.prefix)
        if arrival is None:
            return return_to
        return f"{self.sites.origin(arrival.host)}{self.safe(arrival.return_to, arrival.host)}"

    def shown(self, return_to: str) -> str:
        """Return what a person is told of a target."""
        return self.returns.shown(return_to)

    async def back(self, _request: web.BaseRequest, context: RequestContext) -> web.StreamResponse:
        """Lead to a return target that was too long to travel with a login."""
        origin = self.sites.origin(context.host)
        found, instead = self.returns.find(dict(query_pairs(context.target.query)), origin)
        if found is not None:
            return self.answers.onward(context, self.safe(found, context.host))
        path = self.safe(instead, context.host)
        url = f"{origin}{path if path.startswith('/') else '/'}"
        return self.answers.problem(context, Reason.LOGIN_TARGET_LOST, retry_url=url)
