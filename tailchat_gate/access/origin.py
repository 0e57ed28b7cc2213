"""Whether a page of another origin sent a request, and may (RFC 6454, Fetch Metadata)."""

import re
from collections.abc import Collection, Sequence
from typing import Final

from tailchat_gate.syntax import DEFAULT_PORTS

ANY: Final = "*"
#: Behind the scheme of an application: any page of it, whatever its host.
_ANY_HOST: Final = "://*"
#: An origin that names the port that its scheme has anyway.
_WITH_PORT: Final = re.compile(
    "|".join(
        rf"({scheme}://(?:[^:\[]+|\[[^\]]+\])):{port}" for scheme, port in DEFAULT_PORTS.items()
    )
)
#: What browsers say of a page of the same origin, and of what a person asked for without a page.
_OWN_SITES: Final = (["same-origin"], ["none"])
#: Methods that are not meant to change anything (RFC 9110 section 9.2.1).
_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))


def changes_something(method: str, claimed: frozenset[str], *, has_origin: bool) -> bool:
    """Tell whether a request may change something by its method or one that it claims.

    `method` is "" where a proxy that asks does not tell it: browsers send Origin with every
    request whose method is not GET or HEAD.
    """
    unsafe = method not in _SAFE if method else has_origin
    return unsafe or not claimed <= _SAFE


def is_foreign(
    sites: Sequence[str], origins: Sequence[str], own: Collection[str], allowed: Sequence[str]
) -> bool:
    """Tell whether a request was sent by a page of an origin that is neither its own nor allowed.

    `sites` and `origins` are its Sec-Fetch-Site and Origin fields, `own` the origins by which what
    it was sent to is known, `allowed` origins in lower case, "*" for any. Where the browser sends
    Sec-Fetch-Site, that counts: it knows the address that the visitor sees, which a proxy in front
    may have changed, and no page can set it. A request with neither field is no page's.
    """
    if ANY in allowed or (len(origins) == 1 and _is_listed(origins[0].lower(), allowed)):
        return False
    if sites:
        return sites not in _OWN_SITES
    if not origins:
        return False
    return len(origins) > 1 or _plain(origins[0].lower()) not in {
        _plain(one.lower()) for one in own
    }


def _is_listed(origin: str, allowed: Sequence[str]) -> bool:
    scheme, mark, _ = origin.partition("://")
    return _plain(origin) in allowed or bool(mark and f"{scheme}{_ANY_HOST}" in allowed)


def _plain(origin: str) -> str:
    """Return an origin without the port that its scheme has anyway."""
    match = _WITH_PORT.fullmatch(origin)
    return (match[1] or match[2]) if match else origin
