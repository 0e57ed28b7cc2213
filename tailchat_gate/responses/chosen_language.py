"""The language that a visitor chose: its cookie, and the way back to the page."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import web

from tailchat_gate.identity.oauth.login import safe_return_to
from tailchat_gate.identity.sessions.cookie_fields import set_cookie
from tailchat_gate.pages.language import LANGUAGES
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.target import query_pairs
from tailchat_gate.responses.plain import NO_STORE
from tailchat_gate.syntax import HOST_PREFIX, LANGUAGE_COOKIE, READ_METHODS

#: Seconds for which a choice is stored; browsers store no cookie for longer than 400 days.
_KEPT: Final = 365 * 86_400
#: The longest way back in characters; each page has it once for each language.
_LONGEST: Final = 2048
#: Sec-Fetch-Site of a link on a page of this host or a typed URL; browsers omit it over plain http.
_OWN_LINKS: Final = frozenset(("", "none", "same-origin"))


def language_cookie(*, secure: bool) -> str:
    """Return the cookie's name; on https only the host itself can set it (`__Host-`)."""
    return f"{HOST_PREFIX if secure else ''}{LANGUAGE_COOKIE}"


def chosen_language(cookies: Iterable[bytes], *, secure: bool) -> str:
    """Return the language in the Cookie fields of a request, "" if it is missing or unknown."""
    wanted = language_cookie(secure=secure).encode("ascii")
    for field in cookies:
        for pair in field.split(b";"):
            name, _, value = pair.strip().partition(b"=")
            if name == wanted and (language := value.decode("latin-1")) in LANGUAGES:
                return language
    return ""


def keep(answer: web.StreamResponse, language: str, *, secure: bool) -> None:
    """Set the cookie of a chosen language, for the host of the response alone."""
    name = language_cookie(secure=secure)
    cookie = set_cookie(name, language, max_age=_KEPT, secure=secure)
    answer.headers.add("Set-Cookie", cookie)


def switched(headers: Mapping[str, str], query: str, *, secure: bool) -> web.Response:
    """Return the response to a link of the language switch: the cookie, and a redirect back.

    `query` has the language as `to`, and the page as `rd`, a path on this host. Links on other
    hosts set no cookie.
    """
    parameters = dict(query_pairs(query))
    back = safe_return_to(
        parameters.get("rd", "/"),
        public_origin="",
        allowed_origins=(),
        pages=(),
        longest=3 * _LONGEST,
    )
    answer = web.Response(status=HTTPStatus.SEE_OTHER, headers={**NO_STORE, "Location": back})
    language = parameters.get("to", "")
    if language in LANGUAGES and headers.get("Sec-Fetch-Site", "") in _OWN_LINKS:
        keep(answer, language, secure=secure)
    return answer


def way_back(context: RequestContext, origin: str, *, is_own: bool) -> str:
    """Return the path and query that show a page again, "" if there is none.

    `is_own`: it is a page of the gate itself, which GET shows even after a POST.
    """
    path, query = context.target.path, context.target.query
    if not path:
        return ""
    if context.method not in READ_METHODS and not is_own:
        # The path may not allow GET, but the form was on a page.
        came_from = context.head.fields.headers.get("Referer", "")
        mine = came_from.startswith(f"{origin}/")
        path, query = came_from.removeprefix(origin) if mine else "/", ""
    return fitting(path, query)


def fitting(path: str, query: str) -> str:
    """Return a path that is short enough for the switch, without its query if necessary."""
    return next((target for target in (path + query, path) if len(target) <= _LONGEST), "/")
