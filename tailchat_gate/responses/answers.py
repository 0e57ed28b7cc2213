"""Makes the gate's own responses: a page for a person, JSON for a program."""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from aiohttp import web

from tailchat_gate.config.values.url import is_secure
from tailchat_gate.identity.revocation.state import Lock
from tailchat_gate.identity.sites import Sites
from tailchat_gate.pages.language import choose_language
from tailchat_gate.pages.render import Pages
from tailchat_gate.reasons import BLOCKED, BUSY, STATUS, Reason, RefusedError
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.intent import (
    Intent,
    glimpse,
    is_from_elsewhere,
    is_own_form,
    read_intent,
    shown_in,
    wants_html,
)
from tailchat_gate.request.target import read_host
from tailchat_gate.responses.chosen_language import chosen_language, switched, way_back
from tailchat_gate.responses.details import lock_detail
from tailchat_gate.responses.plain import JSON, SERVER, PlainAnswers

#: Retry-After if there is no room for a request (RFC 9110 section 10.2.3).
RETRY_LATER: Final = MappingProxyType({"Retry-After": "5"})
#: Lets any page frame the response; for pages that reveal nothing and do nothing.
ANY_PAGE: Final = ("*",)
#: Clears all cookies of the registrable domain, also HttpOnly ones (Clear Site Data, 3.1); browsers
#: obey it only over https and on loopback.
_CLEAR: Final = MappingProxyType({"Clear-Site-Data": '"cookies"'})
#: The longest Location, in characters.
_LONGEST_LOCATION: Final = 2048
#: The details that are about the visitor.
_PERSONAL: Final = frozenset(("discriminator", "nickname", "notice", "sub"))

#: Refusals of requests that would be refused again.
_GO_BACK: Final = frozenset(
    (
        *(Reason.BODY_TOO_LARGE, Reason.BODY_NOT_STORED, Reason.METHOD_REFUSED),
        *(Reason.CLAIM_REFUSED, Reason.ORIGIN_REFUSED),
    )
)
#: The page links to the start, because the intended address is unknown.
_WRONG_ADDRESS: Final = frozenset((Reason.BAD_REQUEST, Reason.TARGET_TOO_LONG))
#: Faults that may be gone in a moment, so the page retries by itself.
_PASSES: Final = frozenset((Reason.UPSTREAM_DOWN, Reason.UPSTREAM_SLOW))
#: Pages without a link to the launcher: the person has no tools for now, or the page leads there
#: anyway.
_NO_TOOLS: Final = BLOCKED | {
    *(Reason.LOCKED, Reason.MAINTENANCE, Reason.NOT_SIGNED_IN, Reason.NO_ROUTE)
}


class Answers(PlainAnswers):
    """Makes the responses of one configuration."""

    def __init__(
        self,
        pages: Pages,
        *,
        sites: Sites,
        prefix: str,
        titles: Mapping[str, str],
        clock: Callable[[], float],
    ) -> None:
        """`titles` maps the names of routes to their titles for people."""
        super().__init__(clock)
        self._pages = pages
        self._sites = sites
        self._prefix = prefix
        self._titles = titles
        self._home: Final = f"{sites.public_url}{prefix}/"
        self._clear_line: Final = f"POST {prefix}/clear_cookies HTTP/1.1\r\n".encode("ascii")
        #: The path at which visitors choose their language.
        self.switch: Final = f"{prefix}/language"
        self._secure: Final = sites.public_url.startswith("https:")

    def title(self, route: str) -> str:
        """Return the title of a route, by its name."""
        return self._titles.get(route, route)

    def page(
        self,
        context: RequestContext,
        name: str,
        *,
        code: int = 200,
        headers: Mapping[str, str] | None = None,
        ancestors: Sequence[str] = (),
        **values: object,
    ) -> web.Response:
        """Return a page in the visitor's language; `values` are for its template.

        `code` is its status; `ancestors` are the origins whose pages may frame it, "*" for any.
        """
        is_own = context.path.startswith(f"{self._prefix}/")
        here = way_back(context, self._sites.origin(context.host), is_own=is_own)
        language = self.language(context)
        return self._page(name, language, code, headers or {}, ancestors, here=here, **values)

    def language(self, context: RequestContext) -> str:
        """Return the visitor's languages, as an Accept-Language value."""
        fields = context.head.fields
        chosen = chosen_language(fields.cookies, secure=self._secure)
        return chosen or fields.headers.get("Accept-Language", "")

    def language_switched(self, context: RequestContext) -> web.Response:
        """Return the response to a link of the pages' language switch."""
        return switched(context.head.fields.headers, context.target.query, secure=self._secure)

    def _page(
        self,
        name: str,
        accept_language: str,
        code: int,
        headers: Mapping[str, str],
        ancestors: Sequence[str] = (),
        here: str = "",
        **values: object,
    ) -> web.Response:
        language = choose_language(accept_language)
        return web.Response(
            status=code,
            text=self._pages.render(name, accept_language=accept_language, here=here, **values),
            headers={
                **SERVER,
                **self._pages.headers(language, ancestors=ancestors),
                **headers,
            },
        )

    def problem(
        self,
        context: RequestContext,
        reason: Reason,
        *,
        detail: Mapping[str, str] | None = None,
        retry_url: str = "",
        headers: Mapping[str, str] | None = None,
        ask: Mapping[str, str] | None = None,
    ) -> web.Response:
        """Return the response that says why a request is refused; sets the context's reason."""
        context.reason = reason
        status = STATUS[reason]
        if shown_in(context.method, context.head.fields.headers) is Intent.FRAME:
            # In a tab, a tool's own URL is better; a failed step of a login cannot be repeated.
            again = "" if context.route else retry_url
            url = again or self.in_a_tab(context)
            return self.in_frame(context, reason, url, headers=headers)
        if wants_html(context.head.fields.headers):
            return self.page(
                context,
                "problem",
                code=status,
                headers=headers,
                reason=reason.value,
                request_id=context.request_id,
                trace_id=context.trace_id,
                time=self._clock(),
                status=status.value,
                retry_url=retry_url or self._way_on(context, reason),
                home_url="" if reason in _NO_TOOLS else self._home,
                retries=reason in _PASSES and context.method == "GET",
                detail=self._titled(detail or {}),
                ask=dict(ask or {}),
                elsewhere=_elsewhere(context, reason),
            )
        if reason is Reason.NO_ROUTE and not context.token:
            detail = {**(detail or {}), "tools": self._home}
        return self.problem_json(context, reason, detail or {}, headers or {})

    def _titled(self, detail: Mapping[str, str]) -> dict[str, str]:
        tool = detail.get("tool", "")
        return {**detail, "tool": self.title(tool)} if tool else dict(detail)

    def maintenance(self, context: RequestContext, lock: Lock) -> web.Response:
        """Return the response to every request while `lock` locks everybody out."""
        return self.problem(
            context,
            Reason.MAINTENANCE,
            detail=lock_detail(lock),
            retry_url=self.in_a_tab(context),
            headers={"Retry-After": str(lock.retry_after(self._clock()))},
        )

    def _way_on(self, context: RequestContext, reason: Reason) -> str:
        """Return the URL of a problem page's link, "" for none."""
        if reason is Reason.NO_ROUTE:
            return self._home
        if reason in _GO_BACK:
            origin = self._sites.origin(context.host)
            came_from = context.head.fields.headers.get("Referer", "")
            fits = len(came_from) <= _LONGEST_LOCATION and came_from.isprintable()
            return came_from if fits and came_from.startswith(f"{origin}/") else f"{origin}/"
        return self.same_again(context) if context.method == "GET" else ""

    def in_frame(
        self,
        context: RequestContext,
        reason: Reason,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> web.Response:
        """Return the small page for a frame, with a link that opens `url` in a new tab.

        Any page may frame it, because it says nothing about the visitor and does nothing.
        """
        context.reason = reason
        return self.page(
            context,
            "frame",
            code=STATUS[reason],
            headers=headers,
            ancestors=ANY_PAGE,
            reason=reason.value,
            open_url=url,
            elsewhere=_elsewhere(context, reason),
        )

    def problem_json(
        self,
        context: RequestContext,
        reason: Reason,
        detail: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> web.Response:
        """Return a problem as JSON, which pages of all the gate's tools may read.

        Pages of other tools do not get the details about the visitor.
        """
        shared = {"Vary": "Origin"}
        origin = context.head.fields.headers.get("Origin", "")
        if origin and (origin == self._sites.public_url or origin in self._sites):
            shared["Access-Control-Allow-Origin"] = origin
            shared["Access-Control-Allow-Credentials"] = "true"
            if origin != self._sites.origin(context.host):
                detail = {name: text for name, text in detail.items() if name not in _PERSONAL}
        body = self._pages.problem_json(
            reason.value, context.request_id, context.trace_id, **detail
        )
        return web.Response(status=STATUS[reason], body=body, headers={**JSON, **shared, **headers})

    def unreadable(self, context: RequestContext, problem: str, sent: bytes) -> web.Response:
        """Return the response to `sent`, which could not be read as a request.

        It is a page if the bytes look like a browser's. A browser with too many cookies can send
        no readable request to this host, so the order to clear them is recognised here.
        """
        reason, seen = context.reason, glimpse(sent)
        clears = reason is Reason.HEAD_TOO_LARGE and self.may_clear(_host_of(seen))
        if clears and sent.startswith(self._clear_line):
            origin = self._sites.origin(_host_of(seen))
            if is_own_form(seen, origin):
                context.reason = Reason.OWN_PATH
                return self.cookies_cleared(self._wanted(seen))
        status, later = STATUS[reason], RETRY_LATER if reason in BUSY else {}
        if wants_html(seen):
            wrong_address = reason in _WRONG_ADDRESS
            return self._page(
                "problem",
                self._wanted(seen),
                status,
                later,
                reason=reason.value,
                request_id=context.request_id,
                time=self._clock(),
                status=status.value,
                retry_url=f"{self._sites.public_url}/" if wrong_address else "",
                home_url="" if wrong_address or clears else self._home,
                detail={"problem": problem},
                clears=clears,
            )
        body = self._pages.problem_json(reason.value, context.request_id, problem=problem)
        return web.Response(status=status, body=body, headers={**JSON, **later})

    def _wanted(self, seen: Mapping[str, str]) -> str:
        cookie = seen.get("Cookie", "").encode("latin-1")
        chosen = chosen_language((cookie,), secure=self._secure)
        return chosen or seen.get("Accept-Language", "")

    def may_clear(self, host: str) -> bool:
        """Whether browsers obey Clear-Site-Data from a host."""
        return is_secure(self._sites.origin(host))

    def cookies_cleared(self, accept_language: str) -> web.Response:
        """Return the page that makes the browser delete all cookies of this host's domain."""
        return self._page("clear_cookies", accept_language, HTTPStatus.OK, _CLEAR, done=True)

    def onward(self, context: RequestContext, location: str) -> web.Response:
        """Redirect to a URL; a long one by a page, because proxies limit the size of headers.

        By default nginx turns a response whose head is over 4 KiB into a 502.
        """
        if len(location) <= _LONGEST_LOCATION:
            return self.redirect(location, status=303)
        framed = read_intent(context.method, context.head.fields.headers) is Intent.FRAME
        ancestors = ANY_PAGE if framed else ()
        return self.page(context, "onward", ancestors=ancestors, next_url=location)

    def same_again(self, context: RequestContext) -> str:
        """Return the requested URL, for a link."""
        # Absolute, because a path that begins with "//" alone would name another host.
        return f"{self._sites.origin(context.host)}{context.target.path}{context.target.query}"

    def in_a_tab(self, context: RequestContext) -> str:
        """Return the URL for a tab in place of a frame; "/" after a form, which may be no page."""
        if context.method == "POST":
            return f"{self._sites.origin(context.host)}/"
        return self.same_again(context)

    def start_url(self, return_to: str, *, prompt: str = "", again: bool = False) -> str:
        """Return the path that begins a login, which then returns to `return_to`.

        `again`: it replaces a login that this browser could not finish.
        """
        prompt_query = f"&prompt={prompt}" if prompt else ""
        once_more = "&again=1" if again else ""
        return f"{self._prefix}/start?rd={quote(return_to, safe='/')}{prompt_query}{once_more}"


def is_unknown_elsewhere(reason: Reason, headers: Mapping[str, str]) -> bool:
    """Whether a request lacks a session because another site's page sent it."""
    return reason is Reason.NOT_SIGNED_IN and is_from_elsewhere(headers)


def _elsewhere(context: RequestContext, reason: Reason) -> str:
    """Return "form" or "frame" if another site's page has it and it lacks a session, else ""."""
    headers = context.head.fields.headers
    if not is_unknown_elsewhere(reason, headers):
        return ""
    if context.method == "POST":
        return "form"
    return "frame" if read_intent(context.method, headers) is Intent.FRAME else ""


def _host_of(seen: Mapping[str, str]) -> str:
    """Return the host of an unreadable request, "" if the host is unreadable too."""
    try:
        return read_host((seen.get("Host", ""),)).name
    except RefusedError:
        return ""
