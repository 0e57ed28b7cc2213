"""Whether a request is a page that a person opens, a call by a program, or an upgrade; pure.

Also reads some fields of bytes that are no valid request. They only decide the form of the refusal
(page or JSON, and the language), and whether a head that is too large is the order to clear
cookies.
"""

import re
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.target import query_pairs
from tailchat_gate.syntax import HOST_PREFIX, LANGUAGE_COOKIE, QVALUE, READ_METHODS

#: The most bytes that are searched.
_MOST: Final = 65_536
_WANTED: Final = re.compile(
    rb"\n(accept|accept-language|host|origin|sec-fetch-(?:dest|mode|site)):[ \t]*([^\r\n]{1,1024})",
    re.IGNORECASE,
)
#: The cookie of the chosen language, anywhere among the cookies.
_CHOSEN: Final = re.compile(
    rf"[ ;:]((?:{HOST_PREFIX})?{LANGUAGE_COOKIE}=[A-Za-z-]{{2,16}})(?=[;\r])".encode("ascii")
)
#: Every browser has one of these in its User-Agent, those for text one of the second line.
_BROWSER: Final = re.compile(
    "mozilla|opera|webkit|gecko|chrom|safari|trident|lynx|links|w3m|dillo|netsurf|browsh|emacs",
    re.IGNORECASE,
)
#: Fields that browsers add and other programs do not send.
_OF_BROWSERS: Final = (
    *("Cookie", "Origin", "Referer", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site"),
    *("Sec-Purpose", "Upgrade-Insecure-Requests", "X-Requested-With"),
)
#: Methods of WebDAV and CalDAV, whose clients start with them (RFC 4918, 3253, 4791).
_WEBDAV: Final = frozenset(
    (
        *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK"),
        *("REPORT", "SEARCH", "MKCALENDAR", "ACL"),
    )
)
_HTML: Final = frozenset(("text/html", "application/xhtml+xml"))
_QUALITY: Final = re.compile(QVALUE)

#: Fields by which browsers say that they prefetch or prerender a page.
_LOOKS_AHEAD: Final = ("Sec-Purpose", "Purpose", "X-Purpose", "X-Moz")


def glimpse(sent: bytes) -> Mapping[str, str]:
    """Return some fields of the first head in `sent`, repeated ones joined.

    They say how to answer, which host was requested and which page sent the request. Of the
    cookies, only that of the language is returned.
    """
    head = sent[:_MOST].partition(b"\r\n\r\n")[0]
    fields: dict[str, str] = {}
    for raw, value in _WANTED.findall(head):
        name, text = raw.decode("ascii").title(), value.decode("latin-1")
        fields[name] = f"{fields[name]}, {text}" if name in fields else text
    if (chosen := _CHOSEN.search(head)) is not None:
        fields["Cookie"] = chosen[1].decode("ascii")
    return fields


#: Parameters of requests that wait for news: Engine.IO, CouchDB, Kubernetes, Consul.
_WAITS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "transport": frozenset(("polling",)),
        "feed": frozenset(("longpoll", "continuous", "eventsource")),
        "watch": frozenset(("1", "true")),
    }
)
_WAIT: Final = "wait"


class Intent(Enum):
    """Who gets the response: a person's tab, a frame in a page, a program, or an upgrade."""

    NAVIGATION = "navigation"
    FRAME = "frame"
    CALL = "call"
    UPGRADE = "upgrade"


def is_long_poll(headers: Mapping[str, str], query: str) -> bool:
    """Whether a request waits for news (RFC 7240 section 4.3, and common parameters).

    Nothing else distinguishes it from a request to a slow tool.
    """
    if "wait=" in headers.get("Prefer", ""):
        return True
    return any(name == _WAIT or value in _WAITS.get(name, ()) for name, value in query_pairs(query))


def read_intent(method: str, headers: Mapping[str, str]) -> Intent:
    """Return who gets a request's response; `headers` ignores the case of names.

    Only a page navigation may be redirected to a login: a redirected fetch or image fails in a way
    that its page cannot see, a frame must not show Tailchat's pages, and a POST would lose or
    repeat its body. Fetch Metadata (Sec-Fetch-*) decides if the browser sends it; otherwise Accept
    must prefer HTML, so that curl and scripts (`*/*`) get a plain 401.
    """
    if "Upgrade" in headers:
        return Intent.UPGRADE
    if method not in READ_METHODS or "X-Requested-With" in headers:
        return Intent.CALL
    mode = headers.get("Sec-Fetch-Mode")
    if mode is not None:
        intent = _DESTINATIONS.get(headers.get("Sec-Fetch-Dest", "document"), Intent.CALL)
        return intent if mode == "navigate" else Intent.CALL
    if wants_html(headers):
        return Intent.NAVIGATION
    return Intent.CALL


#: The destinations of navigations; any other one is a script's (Fetch Metadata).
_DESTINATIONS: Final = MappingProxyType(
    {"document": Intent.NAVIGATION, "frame": Intent.FRAME, "iframe": Intent.FRAME}
)


def is_sibling(headers: Mapping[str, str]) -> bool:
    """Whether a page of the same site sent it; browsers send Lax cookies only to its frames."""
    return headers.get("Sec-Fetch-Site", "") in {"same-origin", "same-site"}


def is_from_elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether a page of another site sent it; Lax cookies only go to tabs that it opens.

    Unknown, and so False, for a browser without Fetch Metadata.
    """
    return headers.get("Sec-Fetch-Site", "") == "cross-site"


def is_own_form(headers: Mapping[str, str], origin: str) -> bool:
    """Whether a page of `origin` sent a form from a tab, which no other page can forge.

    Without Fetch Metadata, the Origin field decides.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is None:
        return headers.get("Origin") == origin
    return site == "same-origin" and opens_page(headers)


def opens_page(headers: Mapping[str, str], *, framed: bool = False) -> bool:
    """Whether a browser opens a URL in a tab, or does not say what for.

    `framed`: also in a frame of a page of the same site. False for scripts, for service workers
    that pass on a navigation (`empty`), and for prefetches (Sec-Purpose, or the older Purpose and
    X-Moz).
    """
    if headers.get("Sec-Fetch-Mode", "navigate") != "navigate":
        return False
    shown = _DESTINATIONS.get(headers.get("Sec-Fetch-Dest", "document"))
    if shown is None or (shown is Intent.FRAME and not (framed and is_sibling(headers))):
        return False
    return not any("pre" in headers.get(name, "").lower() for name in _LOOKS_AHEAD)


def is_frame(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser requests the content of a frame."""
    return method == "GET" and read_intent(method, headers) is Intent.FRAME


def is_page(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser shows the response as a page, in a tab or a frame."""
    return read_intent(method, headers) in {Intent.NAVIGATION, Intent.FRAME}


def is_preflight(method: str, fields: FieldSection) -> bool:
    """Whether it is a CORS preflight (Fetch, section 4.8), which has no credentials and no body."""
    if method != "OPTIONS" or fields.has_body or fields.cookies or fields.upgrade:
        return False
    own = fields.values(b"origin"), fields.values(b"access-control-request-method")
    return all(len(values) == 1 for values in own) and not fields.values(b"authorization")


def is_form(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a person's browser tab sent a form and shows the response.

    `read_intent` calls it a CALL, because a redirect to the login would lose the form.
    """
    if method != "POST" or shown_in(method, headers) is not Intent.NAVIGATION:
        return False
    return wants_html(headers)


def shown_in(method: str, headers: Mapping[str, str]) -> Intent:
    """Return who shows the response: as `read_intent`, but a form's tab or frame counts too."""
    return read_intent("GET" if method == "POST" else method, headers)


def is_program(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a request was certainly sent by no browser, so that it may be asked for Basic.

    A browser would show its own dialog and remember the input. A request without User-Agent may
    come from one. Thunderbird and Nextcloud's client call themselves Mozilla, but use WebDAV
    methods without Origin, which pages cannot (Fetch, section 3.2).
    """
    agent = headers.get("User-Agent", "")
    if not agent or (_BROWSER.search(agent) is not None and method not in _WEBDAV):
        return False
    return not any(name in headers for name in _OF_BROWSERS)


def wants_html(headers: Mapping[str, str]) -> bool:
    """Whether the Accept field names an HTML type, and no other type with a higher quality.

    pip, uv and feed readers name HTML too, as the last that they can read.
    """
    html = other = 0.0
    for entry in headers.get("Accept", "")[:1024].split(","):
        media_type, _, parameters = entry.partition(";")
        if media_type.strip().lower() in _HTML:
            html = max(html, _quality(parameters))
        elif "*" not in media_type:
            other = max(other, _quality(parameters))
    return html > 0 and html >= other


def _quality(parameters: str) -> float:
    """Return the quality in the parameters of a type (RFC 9110 section 12.4.2), 1 without one."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q" and _QUALITY.fullmatch(value.strip()) is not None:
            return float(value)
    return 1.0
