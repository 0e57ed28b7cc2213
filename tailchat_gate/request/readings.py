"""Every plausible way in which a server behind the gate may read a path; pure."""

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from tailchat_gate.reasons import RefusedError

#: A path that every server reads alike: without escapes, parameters, empty or dot segments,
#: segments with a dot at their end, and "$", which may name a stream of a file.
_ONE_READING: Final = re.compile(r"(?:/[A-Za-z0-9\-._~!&'()*+,=:@]*[A-Za-z0-9\-_~!&'()*+,=:@])*/?")
_SLASHES: Final = re.compile("/{2,}")
_PARAMETERS: Final = re.compile(r";[^/]*")
_CUT: Final = re.compile(r"[?#\x00].*", re.DOTALL)
_AUTHORITY: Final = re.compile(r"/{2,}[^/]*")
_UNSEEN: Final = re.compile(r"[\t\r\n]")
#: RFC 3986 section 2.3.
_UNRESERVED: Final = re.compile("(?i)%(2[de]|5f|7e|3[0-9]|[46][1-9a-f]|[57][0-9a])")
_ENCODED_SLASH: Final = re.compile("(?i)%(?=2f|5c)")
#: What JavaScript's escape() writes and IIS reads; surrogates stay as they are.
_WIDE_ESCAPE: Final = re.compile("(?i)%u(?!d[89a-f])([0-9a-f]{4})")
#: Overlong UTF-8, which old decoders took for ASCII (CVE-2000-0884).
_OVERLONG: Final = re.compile(
    rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f][\x80-\xbf]|\xf0[\x80-\x8f][\x80-\xbf]{2}"
    rb"|\xf8[\x80-\x87][\x80-\xbf]{3}|\xfc[\x80-\x83][\x80-\xbf]{4}"
)
#: UTF-8 as read by decoders that do not check continuation bytes: "%c1%1c" was a backslash to them
#: (CVE-2000-0884 again).
_UNCHECKED: Final = re.compile(
    rb"[\xc0-\xdf].|[\xe0-\xef]..|[\xf0-\xf7].{3}|[\xf8-\xfb].{4}|[\xfc\xfd].{5}", re.DOTALL
)
#: Surrogate escapes of bytes that are no UTF-8. Without any, all decoders read a text alike.
_UNDECODED: Final = re.compile(r"[\udc80-\udcff]")
#: A stream of a file on NTFS: "page.asp::$DATA" is the file itself (CVE-1999-0278), and
#: "folder:$i30:$INDEX_ALLOCATION" the folder (CVE-2010-2731).
_STREAM: Final = re.compile(r":[^/:]*+:\$[A-Za-z0-9_]++")
#: The name of a script inside a path; what follows is the path for its application (CGI's
#: PATH_INFO). "index" counts without an ending too (Apache's MultiViews).
_SCRIPT: Final = re.compile(
    r"(?i)/(?:[^/]*\.(?:ph(?:p[0-9]?|tml|ar)|f?cgi|p[ly]|rb|lua|as(?:p|px|hx|mx)|cf[mc]|dll|exe)|index)"
    r"(?=/)"
)
_FOREIGN_WEIGHT: Final = 4
_BROKEN_WEIGHT: Final = 16
#: The most combining marks in a row, because normalising takes quadratic time. Honest text has a
#: few, and Unicode's own limit for streams is 30 (UAX 15, section 13).
_MAX_MARKS: Final = 30
_LEAD_BITS: Final = {2: 0x1F, 3: 0x0F, 4: 0x07, 5: 0x03, 6: 0x01}
#: Honest paths have a handful of readings; many are an attack on the gate's CPU time.
MAX_READINGS: Final = 64
#: The most characters of all readings together, which bounds the work for a long path.
MAX_CHARACTERS: Final = 65_536


#: Cached characters and byte sequences, 200 bytes each.
_KEPT_SIGNS: Final = 1024

_NOTHING: Final[frozenset[str]] = frozenset()
_Step = Callable[[str], str]


class TooManyReadingsError(RefusedError):
    """A path has so many readings that no honest client wrote it."""

    def __init__(self) -> None:
        super().__init__("a path that can be read in too many ways")


def is_plain(path: str) -> bool:
    """Whether every server reads a path alike, so that it has one reading: itself."""
    return _ONE_READING.fullmatch(path) is not None


def names_script(path: str) -> bool:
    """Whether a plain path has a script's name inside, so that `shortened` finds more readings."""
    may = "." in path or "index" in path.lower()
    return may and _SCRIPT.search(path) is not None


def readings(path: str, most: int = MAX_READINGS) -> frozenset[str]:
    """Return all readings of a raw path, the path itself among them.

    Servers differ in what they decode and normalise, and in which order: percent-encoding (once or
    twice, all of it, all but slashes, or only letters), `;parameters` (Tomcat), repeated slashes
    (nginx), a host after two slashes (WHATWG URL), dot segments, backslashes and dots at a
    segment's end (Windows), look-alike and overlong characters. So every step is tried on every
    result until nothing new comes up. The case of letters stays; callers must look readings up
    with and without it. Raises TooManyReadingsError beyond `most` readings, or beyond the
    corresponding part of MAX_CHARACTERS.
    """
    if is_plain(path):
        return frozenset((path,))
    return _all_of((path,), _STEPS, len(path), most)


def shortened(paths: frozenset[str], most: int = MAX_READINGS) -> frozenset[str]:
    """Return the further readings of a path, with readings `paths`, without names of scripts.

    To the script's application, "/index.php/admin" and "/public/index.php/admin" are "/admin".
    Raises TooManyReadingsError.
    """
    if not any(map(_SCRIPT.search, paths)):
        return _NOTHING
    return _all_of(paths, _ALL_STEPS, min(map(len, paths)), most) - paths


def _all_of(
    start: Iterable[str], steps: Sequence[Sequence[_Step]], length: int, most: int
) -> frozenset[str]:
    """Return all results of steps on texts, in any order; `length` is the least cost of each."""
    paths = set(start)
    waiting = list(paths)
    characters = sum(map(_weight, paths))
    longest = most * (MAX_CHARACTERS // MAX_READINGS)
    while waiting:
        current = waiting.pop()
        # Most results are ASCII without escapes, for which fewer steps have an effect.
        for step in steps[("%" in current) + 2 * (not current.isascii())]:
            result = step(current)
            if result not in paths:
                paths.add(result)
                waiting.append(result)
                # Counted at once, because normalising turns one character into up to 18 (U+FDFA).
                characters += _weight(result)
                if characters > longest:
                    raise TooManyReadingsError
        if len(paths) > most or len(paths) * length > longest:
            raise TooManyReadingsError
    return frozenset(paths)


def _weight(text: str) -> int:
    """Return the cost of a text; characters that must be normalised or decoded again cost more."""
    if text.isascii():
        return len(text)
    return len(text) * (_FOREIGN_WEIGHT if _UNDECODED.search(text) is None else _BROKEN_WEIGHT)


def _decode(path: str) -> str:
    if "%" not in path:
        return path
    # After earlier decoding, a path may have surrogate escapes for bytes that are no UTF-8.
    octets = unquote_to_bytes(path.encode("utf-8", "surrogateescape"))
    return octets.decode("utf-8", "surrogateescape")


def _shorten_overlong(path: str) -> str:
    """Decode overlong UTF-8; a separate step, because few servers do it."""
    return _reread(_OVERLONG, path)


def _decode_unchecked(path: str) -> str:
    """Decode UTF-8 like decoders that do not check continuation bytes."""
    return _reread(_UNCHECKED, path)


def _reread(sequence: re.Pattern[bytes], path: str) -> str:
    if path.isascii() or _UNDECODED.search(path) is None:
        return path
    octets = sequence.sub(_character, path.encode("utf-8", "surrogateescape"))
    return octets.decode("utf-8", "surrogateescape")


def _character(match: re.Match[bytes]) -> bytes:
    return _spelled(match[0])


# Cached, because all readings of a path have the same few sequences.
@lru_cache(_KEPT_SIGNS)
def _spelled(octets: bytes) -> bytes:
    """Return a sequence's character in valid UTF-8; any other sequence unchanged."""
    code = octets[0] & _LEAD_BITS[len(octets)]
    for octet in octets[1:]:
        code = (code << 6) | (octet & 0x3F)
    is_one = code <= sys.maxunicode and not 0xD800 <= code <= 0xDFFF  # noqa: PLR2004 - surrogates
    return chr(code).encode("utf-8") if is_one else octets


def _decode_all_but_slashes(path: str) -> str:
    """Decode as Apache's `AllowEncodedSlashes NoDecode` and Tomcat's `passthrough` do."""
    return _decode(_ENCODED_SLASH.sub("%25", path))


def _decode_unreserved(path: str) -> str:
    """Decode what a URL library does: RFC 3986 section 6.2.2.2."""
    return _UNRESERVED.sub(lambda match: chr(int(match[1], 16)), path)


def _decode_wide(path: str) -> str:
    return _WIDE_ESCAPE.sub(lambda match: chr(int(match[1], 16)), path)


def _fold_lookalikes(path: str) -> str:
    if path.isascii():
        return path
    _check_marks(path)
    return unicodedata.normalize("NFKC", path)


def _check_marks(path: str) -> None:
    """Raise TooManyReadingsError for more combining marks in a row than any text has."""
    if sum(map(bool, map(unicodedata.combining, path))) <= _MAX_MARKS:
        return
    marks = 0
    for sign in path:
        marks = marks + 1 if unicodedata.combining(sign) else 0
        if marks > _MAX_MARKS:
            raise TooManyReadingsError


def _best_fit(path: str) -> str:
    """Fold like Windows' best-fit tables and case-insensitive comparisons (U+00E1, U+0131)."""
    if path.isascii():
        return path
    parts = unicodedata.normalize("NFKD", path)
    # For the distinct characters, which are few even in a long path.
    fitting = {ord(sign): _fitting(sign) for sign in set(parts) if not sign.isascii()}
    return parts.translate(fitting)


@lru_cache(_KEPT_SIGNS)
def _fitting(sign: str) -> str | None:
    return None if unicodedata.combining(sign) else sign.upper().lower()


def _backslashes(path: str) -> str:
    return path.replace("\\", "/")


def _without_parameters(path: str) -> str:
    return _PARAMETERS.sub("", path)


def _cut_at_query(path: str) -> str:
    """Cut where a decoded "?" or "#" ends a path, or a NUL ends a C string."""
    return _CUT.sub("", path) or "/"


def _merge_slashes(path: str) -> str:
    return _SLASHES.sub("/", path)


def _without_authority(path: str) -> str:
    """Read "//name/path" as a reference to another host (RFC 3986 section 4.2)."""
    return _AUTHORITY.sub("", path, count=1) or "/" if path.startswith("//") else path


def _without_unseen(path: str) -> str:
    """Drop what URL parsers drop unseen: tab, CR, LF (WHATWG URL section 4.4)."""
    return _UNSEEN.sub("", path)


def _trim_segments(path: str) -> str:
    """Drop dots and spaces from the ends of segments, as Windows does with file names."""
    return "/".join(segment.rstrip(" .") or segment.rstrip(" ") for segment in path.split("/"))


def _without_streams(path: str) -> str:
    return _STREAM.sub("", path)


def _without_script(path: str) -> str:
    """Leave out the name of a script, such as a front controller."""
    return _SCRIPT.sub("", path, count=1)


def _without_script_folder(path: str) -> str:
    """Leave out the folder of a script, whose application sees a path from the root."""
    match = _SCRIPT.search(path)
    if match is None:
        return path
    return (
        path[: path.rfind("/", 0, match.start())] + path[match.start() :] if match.start() else path
    )


def _resolve_dots(path: str) -> str:
    """Remove dot segments as RFC 3986 section 5.2.4 does."""
    if "/." not in path:
        return path
    segments = path.split("/")[1:]
    resolved: list[str] = []
    for segment in segments:
        if segment == "..":
            del resolved[-1:]
        elif segment != ".":
            resolved.append(segment)
    if segments[-1] in {".", ".."}:
        resolved.append("")
    return "/" + "/".join(resolved)


#: Steps that only change a text with "%", and steps that only change a non-ASCII text.
_OF_ESCAPES: Final = (_decode, _decode_all_but_slashes, _decode_unreserved, _decode_wide)
_OF_FOREIGN: Final = (_shorten_overlong, _decode_unchecked, _fold_lookalikes, _best_fit)
_OF_ALL: Final = (
    *(_backslashes, _without_parameters, _cut_at_query, _merge_slashes, _without_authority),
    *(_without_unseen, _trim_segments, _without_streams, _resolve_dots),
)


def _by_kind(*steps: _Step) -> tuple[tuple[_Step, ...], ...]:
    """Return the steps for texts that are neither, with "%", not in ASCII, and both."""
    escaped, foreign = (*_OF_ESCAPES, *steps), (*_OF_FOREIGN, *steps)
    return (steps, escaped, foreign, (*_OF_ESCAPES, *foreign))


_STEPS: Final = _by_kind(*_OF_ALL)
_ALL_STEPS: Final = _by_kind(*_OF_ALL, _without_script, _without_script_folder)
