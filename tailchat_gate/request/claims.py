"""Methods and paths that a request names outside its request line, and that tools may obey."""

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import unquote_plus

from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.field_names import fold
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.target import Claim, Purpose, read_host, read_target
from tailchat_gate.syntax import HTTP_URL_OCTETS, SCHEME

#: Fields by which frameworks let a POST claim another method.
_FIELDS: Final = frozenset((b"x-http-method", b"x-http-method-override", b"x-method-override"))
#: The parameter that does the same, each of its letters plain or escaped. PHP drops spaces before a
#: name, replaces a dot or a space in it by "_" and ends it at a NUL.
_PARAMETER: Final = re.compile(
    r"(?i)[?&;](?:\+|%20)*(?:[_.]|%5f|%2e)"
    + "".join(f"(?:{letter}|%{ord(letter):02x}|%{ord(letter.upper()):02x})" for letter in "method")
    # A name is skipped even if no "=" follows; trying again at each ";" in it would take quadratic
    # time.
    + "(?:%00[^=&]*+)?(?:=([^&;]*+))?"
)


_NOTHING: Final[frozenset[str]] = frozenset()
#: The most methods that are cached on a section: the cache of sections does not count their bytes.
_MOST_CACHED: Final = 16


def claimed_methods(fields: FieldSection, query: str) -> frozenset[str]:
    """Return the methods, in capitals, that a request claims beside that of its request line.

    `query` begins with "?" or is "". Methods that some tools read from a form's field are not
    found, because the gate reads no bodies.
    """
    claimed = fields.claimed
    if claimed is None:
        claimed = _in_fields(fields)
        if len(claimed) <= _MOST_CACHED:
            fields.claimed = claimed
    values = [match[1] for match in _PARAMETER.finditer(query) if match[1] is not None]
    return claimed.union(unquote_plus(value).upper() for value in values) if values else claimed


def _in_fields(fields: FieldSection) -> frozenset[str]:
    shape = fields.shape
    if shape.claims_methods is None:
        shape.claims_methods = any(fold(name) in _FIELDS for name in shape.names)
    if not shape.claims_methods:
        return _NOTHING
    values = [value.decode("latin-1") for name, value in fields.pairs if fold(name) in _FIELDS]
    methods = (method.strip().upper() for value in values for method in value.split(","))
    return frozenset(filter(None, methods))


class _Spot(NamedTuple):
    start: int
    end: int


_SCHEME: Final = re.compile(b"%b:" % SCHEME.encode("ascii"))
#: One part of an If field (RFC 4918 section 10.4): a resource in angle brackets, or a list of
#: conditions in parentheses, in which tokens and entity tags may hold anything.
_IF_PART: Final = re.compile(
    rb'[ \t]*+(?:<([^<>]*+)>|\((?:[^()<>"]++|<[^<>]*+>|"[^"]*+")*+\))[ \t]*+'
)
_FINAL: Final = re.compile(rb"(?i)final[ \t]*+;")
_WORD: Final = re.compile(rb"[^ \t]++")


def _whole(value: bytes) -> Iterator[_Spot]:
    yield _Spot(0, len(value))


def _tags(value: bytes) -> Iterator[_Spot]:
    """Yield the tagged resources of an If field."""
    position = 0
    while position < len(value):
        match = _IF_PART.match(value, position)
        if match is None:
            raise _refused("an If field that is malformed")
        if match[1] is not None:
            yield _Spot(*match.span(1))
        position = match.end()


def _parts(value: bytes) -> Iterator[_Spot]:
    """Yield the parts of a final upload (tus, concatenation)."""
    match = _FINAL.match(value)
    if match is not None:
        yield from (_Spot(*word.span()) for word in _WORD.finditer(value, match.end()))


class _Field(NamedTuple):
    purpose: Purpose
    spots: Callable[[bytes], Iterator[_Spot]] = _whole
    #: Whether a path without a host is a name within the tool's own space.
    relative: bool = True
    in_account: bool = False


_WEBDAV: Final = _Field(Purpose.WRITE, relative=False, in_account=True)
#: The fields by their names in lower case.
FIELDS: Final[Mapping[bytes, _Field]] = MappingProxyType(
    {
        b"destination": _WEBDAV,
        b"if": _Field(Purpose.SAME, _tags, relative=False),
        b"upload-concat": _Field(Purpose.READ, _parts, relative=False),
        **dict.fromkeys(
            (
                *(b"x-amz-copy-source", b"x-goog-copy-source", b"x-oss-copy-source"),
                *(b"x-obs-copy-source", b"x-cos-copy-source", b"x-bce-copy-source"),
                b"x-ms-copy-source",
            ),
            _Field(Purpose.READ),
        ),
        **dict.fromkeys(
            (b"x-copy-from", b"x-object-manifest", b"x-symlink-target"),
            _Field(Purpose.READ, in_account=True),
        ),
        **dict.fromkeys(
            (
                *(b"x-amz-rename-source", b"x-ms-rename-source", b"x-ms-file-rename-source"),
                b"x-oss-rename-source",
            ),
            _Field(Purpose.MOVE),
        ),
    }
)
#: Fields that move a name of FIELDS to another account, which no path shows.
ELSEWHERE: Final = frozenset(
    (b"destination-account", b"x-copy-from-account", b"x-symlink-target-account")
)
#: Fields with URLs or paths of the tool, which are rewritten as the tool sees them.
REWRITTEN: Final = frozenset((b"destination", b"if", b"upload-concat"))
NAMES: Final = frozenset(FIELDS) | ELSEWHERE
#: The most claims of an honest client; each is judged like a request's path.
MAX_CLAIMS: Final = 16


def claimed_paths(fields: FieldSection) -> tuple[Claim, ...]:
    """Return the paths that a request names in its fields.

    Raises RefusedError for a malformed field, and for one that came twice, because tools differ on
    which of them counts.
    """
    paths = fields.paths
    if paths is None:
        paths = fields.paths = _read(fields) if _has_any(fields) else ()
    return paths


def _has_any(fields: FieldSection) -> bool:
    shape = fields.shape
    if shape.claims_paths is None:
        shape.claims_paths = not NAMES.isdisjoint(map(fold, shape.names))
    return shape.claims_paths


def _read(fields: FieldSection) -> tuple[Claim, ...]:
    claims: list[Claim] = []
    seen: set[bytes] = set()
    for sent, value in fields.pairs:
        name = fold(sent)
        if name in ELSEWHERE:
            raise _refused("a path in another account")
        field = FIELDS.get(name)
        if field is None:
            continue
        if name in seen:
            raise _refused("a field with a path that came twice")
        seen.add(name)
        for spot in field.spots(value):
            if len(claims) >= MAX_CLAIMS:
                raise _refused("too many paths in fields")
            claims.append(_claim(name, field, value, spot))
    return tuple(claims)


def _claim(name: bytes, field: _Field, value: bytes, spot: _Spot) -> Claim:
    named = value[spot.start : spot.end]
    authority, scheme, raw = None, "", named
    match = HTTP_URL_OCTETS.fullmatch(named)
    if not named:
        raise _refused("a field with a path that is empty")
    try:
        if match is not None:
            scheme, raw = match[1].decode("ascii").lower(), match[3] or b"/"
            authority = read_host([match[2].decode("latin-1")])
        elif _SCHEME.match(named) is not None or named.startswith(b"//"):
            raise _refused("a path of another host in a field")
        relative = authority is None and (field.relative or not raw.startswith(b"/"))
        path = raw if raw.startswith(b"/") else b"/" + raw
        target = read_target(path.decode("latin-1"), None)
    except RefusedError as error:
        raise _refused(f"a field with a path: {error}") from None
    return Claim(name, field.purpose, target, authority, scheme, relative, field.in_account, *spot)


def _refused(text: str) -> RefusedError:
    return RefusedError(text, Reason.CLAIM_REFUSED)
