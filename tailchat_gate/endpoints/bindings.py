"""Binds logins to browsers: reads and sets the login cookies of one configuration."""

import os
from dataclasses import dataclass

from aiohttp import web

from tailchat_gate.identity.cookie import set_cookie
from tailchat_gate.identity.login_cookie import LoginCookie, choose, surplus
from tailchat_gate.identity.login_state import STATE_LIFETIME
from tailchat_gate.identity.site import SiteSessions
from tailchat_gate.request.query import cookie_fields


@dataclass(frozen=True, slots=True)
class Bindings:
    """The login cookies of requests and answers."""

    sessions: SiteSessions

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
