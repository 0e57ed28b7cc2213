"""Every plausible way in which a server behind the gate may read a path."""

import re
import unicodedata
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

#: A path that every server reads alike: no escape, no parameters, no empty or dot segment.
_ONE_READING: Final = re.compile(r"(?:/(?!\.{0,2}(?:/|$))[a-z0-9\-._~!$&'()*+,=:@]+)*/?")
_SLASHES: Final = re.compile("/{2,}")
_PARAMETERS: Final = re.compile(r";[^/]*")
_CUT: Final = re.compile(r"[?#].*", re.DOTALL)
#: UTF-8 written longer than needed, which old decoders took for ASCII (CVE-2000-0884).
_OVERLONG: Final = re.compile(rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f][\x80-\xbf]")
#: Honest paths have a handful of readings; more is an attempt to make the gate work.
MAX_READINGS: Final = 128
#: The characters of all readings together: bounds the work for a long path.
MAX_CHARACTERS: Final = 65_536


class TooManyReadingsError(ValueError):
    """A path that can be read in so many ways that no honest client wrote it."""


def readings(path: str) -> frozenset[str]:
    """Return all readings of a raw path, in lower case, the path itself among them.

    Servers differ in what they undo and in which order: percent-encoding (once or twice),
    `;parameters` (Tomcat), repeated slashes (nginx), dot segments, backslashes (IIS), look-alike
    and overlong characters, and letter case. So every step is tried on every result until
    nothing new comes up. Raises TooManyReadingsError past MAX_READINGS or MAX_CHARACTERS.
    """
    folded = path.lower()
    if _ONE_READING.fullmatch(folded):
        return frozenset((folded,))
    found = {folded}
    waiting = [folded]
    while waiting:
        current = waiting.pop()
        for step in _STEPS:
            result = step(current)
            if result not in found:
                found.add(result)
                waiting.append(result)
        if len(found) > MAX_READINGS or len(found) * len(folded) > MAX_CHARACTERS:
            raise TooManyReadingsError("a path that can be read in too many ways")
    return frozenset(found)


def _decode(path: str) -> str:
    if "%" not in path:
        return path
    octets = unquote_to_bytes(path)
    octets = _OVERLONG.sub(_shorten, octets)
    return octets.decode("utf-8", "surrogateescape").lower()


def _shorten(match: re.Match[bytes]) -> bytes:
    octets = match[0]
    code = octets[0] & 0x1F
    for octet in octets[1:]:
        code = (code << 6) | (octet & 0x3F)
    return bytes((code & 0x7F,))


def _fold_lookalikes(path: str) -> str:
    return path if path.isascii() else unicodedata.normalize("NFKC", path).lower()


def _backslashes(path: str) -> str:
    return path.replace("\\", "/")


def _without_parameters(path: str) -> str:
    return _PARAMETERS.sub("", path)


def _cut_at_query(path: str) -> str:
    return _CUT.sub("", path) or "/"


def _merge_slashes(path: str) -> str:
    return _SLASHES.sub("/", path)


def _resolve_dots(path: str) -> str:
    """Remove dot segments as RFC 3986 section 5.2.4 does."""
    if "/." not in path:
        return path
    segments = path.split("/")[1:]
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)


_STEPS: Final[tuple[Callable[[str], str], ...]] = (
    _decode,
    _fold_lookalikes,
    _backslashes,
    _without_parameters,
    _cut_at_query,
    _merge_slashes,
    _resolve_dots,
)
