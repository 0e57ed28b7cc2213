"""Whether a request is a page that a person opens, a call by a program, or an upgrade."""

from collections.abc import Mapping
from enum import Enum
from typing import Final

_HTML: Final = frozenset(("text/html", "application/xhtml+xml"))

#: Fields by which browsers say that they fetch or render a page before anybody asks for it.
_LOOKS_AHEAD: Final = ("Sec-Purpose", "Purpose", "X-Purpose", "X-Moz")


class Intent(Enum):
    """Who waits for the answer: a person's browser tab, a program, or an upgraded connection."""

    NAVIGATION = "navigation"
    CALL = "call"
    UPGRADE = "upgrade"


def read_intent(method: str, headers: Mapping[str, str]) -> Intent:
    """Return what a request is for; `headers` looks names up without regard to case.

    Only a page navigation may be redirected to a login: a fetch, an image or a frame that is
    redirected fails in a way its page cannot see, a POST would lose or repeat its body. Fetch
    Metadata (Sec-Fetch-*) decides where the browser sends it; for others the Accept field must
    ask for HTML by name, so that curl and scripts (`*/*`) get a plain 401.
    """
    if "Upgrade" in headers:
        return Intent.UPGRADE
    if method not in {"GET", "HEAD"} or "X-Requested-With" in headers:
        return Intent.CALL
    mode = headers.get("Sec-Fetch-Mode")
    if mode is not None:
        top = headers.get("Sec-Fetch-Dest", "document") == "document"
        return Intent.NAVIGATION if mode == "navigate" and top else Intent.CALL
    if wants_html(headers):
        return Intent.NAVIGATION
    return Intent.CALL


def opens_page(headers: Mapping[str, str]) -> bool:
    """Tell whether a browser goes to an address to show it in a tab, or does not say what for.

    A script, a frame, a service worker that passes a navigation on (`empty`) and a page that looks
    ahead at a link (Sec-Purpose, or the older Purpose and X-Moz) do not.
    """
    if headers.get("Sec-Fetch-Mode", "navigate") != "navigate":
        return False
    if headers.get("Sec-Fetch-Dest", "document") != "document":
        return False
    return not any("pre" in headers.get(name, "").lower() for name in _LOOKS_AHEAD)


def is_form(method: str, headers: Mapping[str, str]) -> bool:
    """Tell whether a person's browser tab sent a form, and shows whatever is answered.

    It is a call to `read_intent`, for a redirect to the login would lose what was sent.
    """
    if method != "POST" or read_intent("GET", headers) is not Intent.NAVIGATION:
        return False
    return wants_html(headers)


def wants_html(headers: Mapping[str, str]) -> bool:
    """Tell whether the Accept field names an HTML type, with a quality above 0."""
    for entry in headers.get("Accept", "")[:1024].split(","):
        media_type, _, parameters = entry.partition(";")
        if media_type.strip().lower() in _HTML and not _refused(parameters):
            return True
    return False


def _refused(parameters: str) -> bool:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            return value.strip() in {"0", "0.", "0.0", "0.00", "0.000"}
    return False
