"""Judges the origins of requests, of pages that frame tools, and the scopes of service workers.

Origins: RFC 6454 and Fetch Metadata. A service worker answers every navigation whose path begins
with its scope and can read its URL, which may hold a code or a handoff token. The scope is at most
the directory of the worker's script, or what Service-Worker-Allowed in the response to the script
allows (Service Workers, "Path restriction").
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from tailchat_gate.config.model import RouteSettings
from tailchat_gate.request.target import HostPatterns
from tailchat_gate.syntax import DEFAULT_PORTS, PREFIX, SAFE_METHODS

ANY: Final = "*"
#: After the scheme of an application: any page of it, whatever its host.
_ANY_HOST: Final = "://*"
#: An origin that names the default port of its scheme.
_WITH_PORT: Final = re.compile(
    "|".join(
        rf"({scheme}://(?:[^:\[]+|\[[^\]]+\])):{port}" for scheme, port in DEFAULT_PORTS.items()
    )
)
#: Sec-Fetch-Site of a page of the same origin, and of a person's own request.
_OWN_SITES: Final = (["same-origin"], ["none"])

#: An absolute path that all URL parsers read alike: without escapes, empty or dot segments, and
#: backslashes, which browsers take for slashes. No other value is proven harmless.
_PLAIN_SCOPE: Final = re.compile(f"{PREFIX}/?".encode("ascii"))

#: Runs in place of a refused worker. It ends a worker that the browser already has, which a 4xx
#: would leave in force, and makes the registration fail with this message.
REFUSING_SCRIPT: Final = b"""\
// A service worker over this whole site would also take the steps of the sign-in, so Tailchat Gate
// refuses it and ends one that is there from before.
self.registration.unregister();
throw new Error("Tailchat Gate: no service worker may cover the paths of the gate; "
  + "put its script into a directory of the tool.");
"""


def changes_something(method: str, claimed: frozenset[str], *, has_origin: bool) -> bool:
    """Whether a request may change something by its method or one that it claims.

    `method` is "" if a forward-auth proxy does not name it; then `has_origin` decides, because
    browsers send Origin with every method but GET and HEAD.
    """
    unsafe = method not in SAFE_METHODS if method else has_origin
    return unsafe or not claimed <= SAFE_METHODS


def is_foreign(
    sites: Sequence[str], origins: Sequence[str], own: Collection[str], allowed: Sequence[str]
) -> bool:
    """Whether a request was sent by a page of an origin that is neither its own nor allowed.

    `sites` and `origins` are its Sec-Fetch-Site and Origin fields, `own` the origins of the URL
    that was requested, `allowed` origins in lower case, "*" for any. Sec-Fetch-Site takes
    precedence: the browser knows the URL that the visitor sees, which a proxy in front may have
    changed, and no page can set the field. A request with neither field was sent by no page.
    """
    if ANY in allowed or (len(origins) == 1 and _is_listed(origins[0].lower(), allowed)):
        return False
    if sites:
        return sites not in _OWN_SITES
    if not origins:
        return False
    return len(origins) > 1 or _plain(origins[0].lower()) not in {
        _plain(origin.lower()) for origin in own
    }


def _is_listed(origin: str, allowed: Sequence[str]) -> bool:
    scheme, mark, _ = origin.partition("://")
    return _plain(origin) in allowed or bool(mark and f"{scheme}{_ANY_HOST}" in allowed)


def _plain(origin: str) -> str:
    """Return an origin without the default port of its scheme."""
    match = _WITH_PORT.fullmatch(origin)
    return (match[1] or match[2]) if match else origin


class Embedders:
    """The origins whose pages may show a tool in a frame, by route and by host."""

    def __init__(self, routes: Iterable[RouteSettings]) -> None:
        embedded = [route for route in routes if route.embed]
        self._by_route = {route.name: route.embed for route in embedded}
        self._everywhere = _union(route.embed for route in embedded if route.host is None)
        hosts = {route.host for route in embedded if route.host is not None}
        self._by_host = HostPatterns(
            {
                host: _union(route.embed for route in embedded if route.host in {None, host})
                for host in hosts
            }
        )

    def of_route(self, name: str) -> tuple[str, ...]:
        """Return the origins for a route, () for "" and an unknown name."""
        return self._by_route.get(name, ())

    def of_host(self, host: str) -> tuple[str, ...]:
        """Return the origins for all routes on a host (lower-case, without port)."""
        return self._by_host.get(host) or self._everywhere


def framing_field(origins: Sequence[str]) -> bytes:
    """Return the response field that lets pages of these origins frame a tool, b"" for none.

    Browsers then ignore a tool's X-Frame-Options (CSP Level 3 section 6.4.2.1), and obey the tool's
    own Content-Security-Policy as well.
    """
    if not origins:
        return b""
    listed = " ".join(("'self'", *origins))
    return f"Content-Security-Policy: frame-ancestors {listed}\r\n".encode("ascii")


def _union(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(origin for group in groups for origin in group))


class WorkerScopes:
    """Judges scripts and scopes of service workers; `prefix` is that of the gate's paths."""

    def __init__(self, prefix: str) -> None:
        self._own = f"{prefix}/"

    def script_takes_in(self, path: str) -> bool:
        """Whether a worker whose script has this raw path could control the gate's own paths."""
        return self._own.startswith(path[: path.rfind("/") + 1])

    def may_allow(self, scope: bytes) -> bool:
        """Whether a value of Service-Worker-Allowed surely keeps workers off the gate's paths."""
        own = self._own.encode("ascii")
        if _PLAIN_SCOPE.fullmatch(scope) is None:
            return False
        # Scopes are compared letter by letter, not by segments: "/oa" covers "/oauth2/callback".
        return not own.startswith(scope) and not scope.startswith(own)
