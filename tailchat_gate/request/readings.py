"""Every plausible way in which a server behind the gate may read a path."""

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from tailchat_gate.reasons import RefusedError

#: A path that every server reads alike: no escape, no parameters, no empty or dot segment, no
#: segment with a dot at its end, no "$" that may name a stream of a file.
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
#: UTF-8 written longer than needed, which old decoders took for ASCII (CVE-2000-0884).
_OVERLONG: Final = re.compile(
    rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f][\x80-\xbf]|\xf0[\x80-\x8f][\x80-\xbf]{2}"
    rb"|\xf8[\x80-\x87][\x80-\xbf]{3}|\xfc[\x80-\x83][\x80-\xbf]{4}"
)
#: UTF-8 by its first byte alone, as decoders read it that do not look whether the bytes behind
#: go on with it: "%c1%1c" was a backslash to them (CVE-2000-0884 again).
_UNCHECKED: Final = re.compile(
    rb"[\xc0-\xdf].|[\xe0-\xef]..|[\xf0-\xf7].{3}|[\xf8-\xfb].{4}|[\xfc\xfd].{5}", re.DOTALL
)
#: What decoding left of bytes that are no UTF-8. Without one, every decoder reads a text alike.
_UNDECODED: Final = re.compile("[\udc80-\udcff]")
#: A stream of a file on NTFS: "page.asp::$DATA" is the file itself (CVE-1999-0278), and
#: "folder:$i30:$INDEX_ALLOCATION" the folder (CVE-2010-2731).
_STREAM: Final = re.compile(r":[^/:]*+:\$[A-Za-z0-9_]++")
#: The name of a script in the midst of a path: what is behind it is the path that its application
#: is asked for (CGI's PATH_INFO). "index" is one without an ending too (Apache's MultiViews).
_SCRIPT: Final = re.compile(
    r"(?i)/(?:[^/]*\.(?:ph(?:p[0-9]?|tml|ar)|f?cgi|p[ly]|rb|lua|as(?:p|px|hx|mx)|cf[mc]|dll|exe)|index)"
    r"(?=/)"
)
_FOREIGN_WEIGHT: Final = 4
_BROKEN_WEIGHT: Final = 16
#: Marks upon one letter in a row; normalising takes time that grows with their square. Honest text
#: has a few, and Unicode's own limit for streams is 30 (UAX 15, section 13).
_MAX_MARKS: Final = 30
_LEAD_BITS: Final = {2: 0x1F, 3: 0x0F, 4: 0x07, 5: 0x03, 6: 0x01}
#: Honest paths have a handful of readings; more is an attempt to make the gate work.
MAX_READINGS: Final = 64
#: The characters of all readings together: bounds the work for a long path.
MAX_CHARACTERS: Final = 65_536


#: Characters and sequences of bytes of which is kept what they are read as: 200 bytes each.
_KEPT_SIGNS: Final = 1024

_NOTHING: Final[frozenset[str]] = frozenset()
_Step = Callable[[str], str]


class TooManyReadingsError(RefusedError):
    """A path that can be read in so many ways that no honest client wrote it."""

    def __init__(self) -> None:
        super().__init__("a path that can be read in too many ways")


def is_plain(path: str) -> bool:
    """Whether every server reads a path alike, so that it has one reading: itself."""
    return _ONE_READING.fullmatch(path) is not None


def names_script(path: str) -> bool:
    """Whether a plain path names a script in its midst, so that `shortened` finds more readings."""
    may = "." in path or "index" in path.lower()
    return may and _SCRIPT.search(path) is not None


def readings(path: str, most: int = MAX_READINGS) -> frozenset[str]:
    """Return all readings of a raw path, the path itself among them.

    Servers differ in what they undo and in which order: percent-encoding (once or twice, all of
    it or all but slashes or nothing but letters), `;parameters` (Tomcat), repeated slashes
    (nginx), a host behind two slashes (WHATWG URL), dot segments, backslashes and dots at a
    segment's end (Windows), look-alike and overlong characters. So every step is tried on every
    result until nothing new comes up. Letter case is kept: code that looks a reading up has to do
    so with it and without. Raises TooManyReadingsError past `most`, or that part of MAX_CHARACTERS.
    """
    if is_plain(path):
        return frozenset((path,))
    return _all_of((path,), _STEPS, len(path), most)


def shortened(found: frozenset[str], most: int = MAX_READINGS) -> frozenset[str]:
    """Return the further readings of a path, whose readings are `found`, without names of scripts.

    "/index.php/admin" is "/admin" to the application of the script, and so is
    "/public/index.php/admin", whatever stands before the name. Raises TooManyReadingsError.
    """
    if not any(map(_SCRIPT.search, found)):
        return _NOTHING
    return _all_of(found, _ALL_STEPS, min(map(len, found)), most) - found


def _all_of(
    start: Iterable[str], steps: Sequence[Sequence[_Step]], length: int, most: int
) -> frozenset[str]:
    """Return what steps make of texts in any order; `length` is what each counts for at least."""
    found = set(start)
    waiting = list(found)
    characters = sum(map(_weight, found))
    longest = most * (MAX_CHARACTERS // MAX_READINGS)
    while waiting:
        current = waiting.pop()
        # Most of a path made to be read in many ways is ASCII, and soon without an escape.
        for step in steps[("%" in current) + 2 * (not current.isascii())]:
            result = step(current)
            if result not in found:
                found.add(result)
                waiting.append(result)
                # Counted as made: normalising makes eighteen characters of one (U+FDFA).
                characters += _weight(result)
                if characters > longest:
                    raise TooManyReadingsError
        if len(found) > most or len(found) * length > longest:
            raise TooManyReadingsError
    return frozenset(found)


def _weight(text: str) -> int:
    """Return the cost of a text; characters that have to be normalised or reread cost more."""
    if text.isascii():
        return len(text)
    return len(text) * (_FOREIGN_WEIGHT if _UNDECODED.search(text) is None else _BROKEN_WEIGHT)


def _decode(path: str) -> str:
    if "%" not in path:
        return path
    # A path that was decoded before may hold bytes that are no UTF-8, as surrogate escapes.
    octets = unquote_to_bytes(path.encode("utf-8", "surrogateescape"))
    return octets.decode("utf-8", "surrogateescape")


def _shorten_overlong(path: str) -> str:
    """Read UTF-8 that is longer than needed; apart from decoding, because few servers do it."""
    return _reread(_OVERLONG, path)


def _decode_unchecked(path: str) -> str:
    """Read UTF-8 as decoders do that swallow whatever is behind a first byte."""
    return _reread(_UNCHECKED, path)


def _reread(sequence: re.Pattern[bytes], path: str) -> str:
    if path.isascii() or _UNDECODED.search(path) is None:
        return path
    octets = sequence.sub(_character, path.encode("utf-8", "surrogateescape"))
    return octets.decode("utf-8", "surrogateescape")


def _character(match: re.Match[bytes]) -> bytes:
    return _spelled(match[0])


# Kept, because all readings of a path spell the same few.
@lru_cache(_KEPT_SIGNS)
def _spelled(octets: bytes) -> bytes:
    """Return the character that a sequence spells, in UTF-8; what spells none as it is."""
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
    _check_file_states(path)
    return unicodedata.normalize("NFKC", path)


def _check_file_states(path: str) -> None:
    """Raise TooManyReadingsError for more marks upon one letter than any text has."""
    if sum(map(bool, map(unicodedata.combining, path))) <= _MAX_MARKS:
        return
    marks = 0
    for sign in path:
        marks = marks + 1 if unicodedata.combining(sign) else 0
        if marks > _MAX_MARKS:
            raise TooManyReadingsError


def _best_fit(path: str) -> str:
    """Fold as Windows' best-fit tables and comparisons by upper case do (U+00E1, U+0131)."""
    if path.isascii():
        return path
    parts = unicodedata.normalize("NFKD", path)
    # By the distinct characters, which are few even in a long path.
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
    """Take "//name/path" for a reference to another host (RFC 3986 section 4.2)."""
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
    """Leave the name of a script out: a front controller beside what it stands for."""
    return _SCRIPT.sub("", path, count=1)


def _without_script_folder(path: str) -> str:
    """Leave out the folder that a script is in: what is behind its name begins at the root."""
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
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)


#: Steps that change nothing of a text without "%", and of one in ASCII.
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
