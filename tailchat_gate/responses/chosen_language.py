"""The language that a visitor chose: the cookie that keeps it, and the way back to the page."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import web

from tailchat_gate.identity.oauth.login import safe_return_to
from tailchat_gate.identity.sessions.cookies import set_cookie
from tailchat_gate.pages.language import LANGUAGES
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.target import query_pairs
from tailchat_gate.responses.plain import NO_STORE
from tailchat_gate.syntax import HOST_PREFIX, LANGUAGE_COOKIE, READ_METHODS

#: Seconds for which a choice is stored; browsers store no cookie for longer than 400 days.
_KEPT: Final = 365 * 86_400
#: The longest way back, in characters: a page has it once for each language.
_LONGEST: Final = 2048
#: What browsers say of a link on a page of this host, or of a typed address (Fetch Metadata). Over
#: plain http they say nothing.
_OWN_LINKS: Final = frozenset(("", "none", "same-origin"))


def language_cookie(*, secure: bool) -> str:
    """Return the cookie's name, on https one that only the host itself can set."""
    return f"{HOST_PREFIX if secure else ''}{LANGUAGE_COOKIE}"


def chosen_language(cookies: Iterable[bytes], *, secure: bool) -> str:
    """Return the language in the Cookie fields of a request, "" without a known one."""
    wanted = language_cookie(secure=secure).encode("ascii")
    for field in cookies:
        for pair in field.split(b";"):
            name, _, value = pair.strip().partition(b"=")
            if name == wanted and (language := value.decode("latin-1")) in LANGUAGES:
                return language
    return ""


def keep(answer: web.StreamResponse, language: str, *, secure: bool) -> None:
    """Let the browser keep a choice, on the host of the answer alone."""
    name = language_cookie(secure=secure)
    cookie = set_cookie(name, language, max_age=_KEPT, secure=secure)
    answer.headers.add("Set-Cookie", cookie)


def switched(headers: Mapping[str, str], query: str, *, secure: bool) -> web.Response:
    """Return the answer to a link of the switch: the cookie, and the way back to the page.

    `query` has the language as `to`, and the page as `rd`, a path on this host. A page of another
    host only leads there: what it links to sets nothing.
    """
    asked = dict(query_pairs(query))
    back = safe_return_to(
        asked.get("rd", "/"), public_origin="", allowed_origins=(), pages=(), longest=3 * _LONGEST
    )
    answer = web.Response(status=HTTPStatus.SEE_OTHER, headers={**NO_STORE, "Location": back})
    language = asked.get("to", "")
    if language in LANGUAGES and headers.get("Sec-Fetch-Site", "") in _OWN_LINKS:
        keep(answer, language, secure=secure)
    return answer


def way_back(context: RequestContext, origin: str, *, is_own: bool) -> str:
    """Return the path at which a page is seen again, "" where there is none.

    `is_own`: it is a page of the gate itself, which a GET shows whatever showed it.
    """
    path, query = context.target.path, context.target.query
    if not path:
        return ""
    if context.method not in READ_METHODS and not is_own:
        # A GET there need not be a page; the form was on one.
        came_from = context.head.fields.headers.get("Referer", "")
        mine = came_from.startswith(f"{origin}/")
        path, query = came_from.removeprefix(origin) if mine else "/", ""
    return fitting(path, query)


def fitting(path: str, query: str) -> str:
    """Return an address that is short enough for the switch, without its query if need be."""
    return next((one for one in (path + query, path) if len(one) <= _LONGEST), "/")
