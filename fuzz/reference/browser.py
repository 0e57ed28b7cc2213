"""Where a browser goes with a reference, by the URL standard (WHATWG), for http and https."""

from urllib.parse import urlsplit

_SPECIAL = ("http:", "https:")
#: Stripped from both ends: C0 controls and space.
_EDGES = "".join(map(chr, range(0x21)))


def origin_of(reference: str, base: str) -> str | None:
    """Return the origin that a browser asks, for a reference found on a page of `base`.

    None for one that is not http, or that no browser would follow. User information and ports
    are part of what is returned, as they stand.
    """
    text = reference.strip(_EDGES)
    text = text.replace("\t", "").replace("\n", "").replace("\r", "")
    here = urlsplit(base)
    lower = text.lower()
    for scheme in _SPECIAL:
        if lower.startswith(scheme):
            rest = text[len(scheme) :].replace("\\", "/")
            if scheme == here.scheme + ":" and not rest.startswith("//"):
                # "http:x" is a path of the page's own host, "http:/x" too.
                return f"{here.scheme}://{here.netloc}"
            return _origin(scheme, rest.lstrip("/"))
    if ":" in text and _is_scheme(text.partition(":")[0]):
        return None
    slashed = text.replace("\\", "/")
    if slashed.startswith("//"):
        return _origin(here.scheme + ":", slashed.lstrip("/"))
    return f"{here.scheme}://{here.netloc}"


def _is_scheme(text: str) -> bool:
    return text[:1].isalpha() and all(sign.isalnum() or sign in "+-." for sign in text)


def _origin(scheme: str, rest: str) -> str:
    end = next((i for i, sign in enumerate(rest) if sign in "/?#"), len(rest))
    return f"{scheme}//{rest[:end].lower()}"
