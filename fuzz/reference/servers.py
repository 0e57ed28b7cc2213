"""How servers behind a proxy read a path, each by its documentation."""

import posixpath
import re
import unicodedata
from collections.abc import Callable
from urllib.parse import unquote, unquote_to_bytes


def _dots(path: str) -> str:
    """Resolve dot segments one character after another, as RFC 3986 section 5.2.4 is written."""
    out: list[str] = []
    while path:
        if path.startswith("/./"):
            path = path[2:]
        elif path == "/.":
            path = "/"
        elif path.startswith("/../"):
            path = path[3:]
            del out[-1:]
        elif path == "/..":
            path = "/"
            del out[-1:]
        else:
            end = path.find("/", 1)
            end = len(path) if end < 0 else end
            out.append(path[:end])
            path = path[end:]
    return "".join(out) or "/"


def _once(path: str) -> str:
    return unquote_to_bytes(path).decode("utf-8", "replace")


def _merged(path: str) -> str:
    while "//" in path:
        path = path.replace("//", "/")
    return path


def nginx(path: str) -> str:
    """Decode once, merge slashes, resolve dots."""
    return _dots(_merged(_once(path)))


def nginx_unmerged(path: str) -> str:
    """The same with `merge_slashes off`."""
    return _dots(_once(path))


def tomcat(path: str) -> str:
    """Drop ;parameters of each raw segment, decode, take a backslash for a slash, normalise."""
    plain = "/".join(segment.partition(";")[0] for segment in path.split("/"))
    return _dots(_merged(_once(plain).replace("\\", "/")))


def tomcat_passthrough(path: str) -> str:
    """The same with `encodedSolidusHandling = passthrough`, which leaves %2f as it is."""
    plain = "/".join(segment.partition(";")[0] for segment in path.split("/"))
    return _dots(_merged("%2f".join(map(_once, re.split("(?i)%2f", plain)))))


def decoded_parameters(path: str) -> str:
    """Decode, then drop ;parameters: `..%3b` is a dot segment too."""
    return _dots(re.sub(";[^/]*", "", _once(path)))


def apache_nodecode(path: str) -> str:
    """Decode all but %2f, merge, resolve dots (`AllowEncodedSlashes NoDecode`)."""
    return _dots(_merged("%2F".join(map(_once, re.split("(?i)%2f", path)))))


def iis(path: str) -> str:
    """Decode twice, %u too; backslashes; file names without case and without dots at the end."""
    for _ in range(2):
        wide = re.sub("(?i)%u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), path)
        path = unquote(wide, errors="replace")
    segments = [part.rstrip(" ") for part in path.replace("\\", "/").split("/")]
    resolved = _dots(_merged("/".join(segments)))
    return "/".join(part.rstrip(". ") for part in resolved.split("/")).lower()


def python(path: str) -> str:
    """`posixpath.normpath(unquote(path))`, as in many a file server."""
    return posixpath.normpath(unquote(path)).replace("//", "/")


def python_thrice(path: str) -> str:
    """Decode as long as there is something to decode, at most three times; then normpath."""
    return python(unquote(unquote(path)))


def python_unicode(path: str) -> str:
    """Decode, then NFKC, then normpath: a framework that normalises text."""
    return posixpath.normpath(unicodedata.normalize("NFKC", unquote(path))).replace("//", "/")


def whatwg(path: str) -> str:
    """`new URL(path, base).pathname`: no decoding, but %2e counts as a dot."""
    path = re.sub("[\t\r\n]", "", path).replace("\\", "/")
    if path.startswith("//"):
        path = "/" + path.lstrip("/").partition("/")[2]
    segments: list[str] = []
    parts = path[1:].split("/")
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        kind = part.lower().replace("%2e", ".")
        if kind == "..":
            del segments[-1:]
        elif kind != ".":
            segments.append(part)
            continue
        if last:
            segments.append("")
    return "/" + "/".join(segments)


def node(path: str) -> str:
    """`decodeURI(new URL(path, base).pathname)`: what an application compares."""
    return _once(whatwg(path))


def node_decode_first(path: str) -> str:
    """`new URL(decodeURI(path), base).pathname`, the same in the other order; it cuts at ?#."""
    return whatwg(re.split("[?#]", _once(path))[0] or "/")


def yarl(path: str) -> str:
    """Decode unreserved characters only, then resolve dots: what URL libraries call safe."""
    safe = re.sub(
        "%([0-9a-fA-F]{2})",
        lambda found: (
            chr(int(found[1], 16))
            if re.match("[A-Za-z0-9._~-]", chr(int(found[1], 16)))
            else found[0]
        ),
        path,
    )
    return _dots(safe)


def old_utf8(path: str) -> str:
    """Decode UTF-8 without asking for its shortest form, then resolve dots."""
    octets, text = unquote_to_bytes(path), ""
    while octets:
        more = 1 if octets[0] >> 5 == 6 else 2 if octets[0] >> 4 == 14 else 3
        if octets[0] < 0xC0 or octets[0] >> 3 > 30:
            more = 0
        bits = "".join(f"{octet & 0x3F:06b}" for octet in octets[1 : 1 + more])
        lead = f"{octets[0]:08b}"[more + 2 :] if more else f"{octets[0]:08b}"
        text += chr(min(int(lead + bits, 2), 0x10FFFF))
        octets = octets[1 + more :]
    return _dots(_merged(text))


def c_string(path: str) -> str:
    """Decode twice and stop at NUL."""
    return _dots(unquote(unquote(path)).partition("\0")[0] or "/")


def case_blind(path: str) -> str:
    """Compare in upper case after decoding: a dotless i is an I."""
    return _dots(_once(path).upper().lower())


def raw(path: str) -> str:
    """Look at the bytes as they are."""
    return path


SERVERS: tuple[Callable[[str], str], ...] = (
    *(nginx, nginx_unmerged, tomcat, tomcat_passthrough, decoded_parameters, apache_nodecode),
    *(iis, python, python_thrice, python_unicode, whatwg, node, node_decode_first, yarl),
    *(old_utf8, c_string, case_blind, raw),
)
