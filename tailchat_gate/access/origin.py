"""Whether a page of one origin may open a WebSocket to a route (RFC 6455 section 10.2)."""

import re
from collections.abc import Sequence
from typing import Final

ANY: Final = "*"
_ORIGIN: Final = re.compile(r"(https?)://([^/?#@\s]+)", re.ASCII)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def may_connect(origins: Sequence[str], host: str, allowed: Sequence[str]) -> bool:
    """Tell whether a request with these Origin fields may open a WebSocket.

    Browsers send cookies with a WebSocket of any page, so that a foreign page could act as the
    visitor. `host` is the Host field; a page of the same host and port may, as may those in
    `allowed` (origins in lower case; "*" allows any). A program sends no Origin and may.
    """
    if not origins or ANY in allowed:
        return True
    if len(origins) > 1:
        return False
    origin = origins[0].lower()
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return False
    default = _DEFAULT_PORTS[match[1]]
    if origin in allowed or origin.removesuffix(default) in allowed:
        return True
    return match[2].removesuffix(default) == host.lower().removesuffix(default)
