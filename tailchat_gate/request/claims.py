"""Methods and paths that a request names besides its request line; tools may obey them."""

import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import unquote_plus

from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.field_names import fold
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.target import Host, Target, read_host, read_target
from tailchat_gate.syntax import HTTP_URL_OCTETS, SCHEME

#: Fields by which frameworks let a POST claim another method.
_FIELDS: Final = frozenset((b"x-http-method", b"x-http-method-override", b"x-method-override"))
#: The parameter that does the same, each of its letters plain or escaped. PHP drops spaces before
#: a name, takes a dot or a space in it for "_" and ends it at a NUL.
_PARAMETER: Final = re.compile(
    r"(?i)[?&;](?:\+|%20)*(?:[_.]|%5f|%2e)"
    + "".join(f"(?:{one}|%{ord(one):02x}|%{ord(one.upper()):02x})" for one in "method")
    # What is taken for a name is passed over even where no "=" follows: looked at again from each
    # ";" in it, a query of such names would take time that grows with its square.
    + "(?:%00[^=&]*+)?(?:=([^&;]*+))?"
)


_NOTHING: Final[frozenset[str]] = frozenset()


def claimed_methods(fields: FieldSection, query: str) -> frozenset[str]:
    """Return the methods, in capitals, that a request claims beside the one of its request line.

    `query` begins with "?" or is "". Some tools take a method from a form's field as well, which
    nobody sees without reading bodies.
    """
    claimed = fields.claimed
    if claimed is None:
        claimed = fields.claimed = _in_fields(fields)
    found = [match[1] for match in _PARAMETER.finditer(query) if match[1] is not None]
    return claimed.union(unquote_plus(value).upper() for value in found) if found else claimed


def _in_fields(fields: FieldSection) -> frozenset[str]:
    shape = fields.shape
    if shape.claims_methods is None:
        shape.claims_methods = any(fold(name) in _FIELDS for name in shape.names)
    if not shape.claims_methods:
        return _NOTHING
    values = [value.decode("latin-1") for name, value in fields.pairs if fold(name) in _FIELDS]
    methods = (method.strip().upper() for value in values for method in value.split(","))
    return frozenset(filter(None, methods))


class Purpose(Enum):
    """A tool's action on a path that a field names."""

    WRITE = "write"
    READ = "read"
    MOVE = "move"
    #: What the request itself does: it names the state that has to be in force.
    SAME = "same"


class Claim(NamedTuple):
    """A path that a field names: `name` is the field's, in lower case.

    `authority` is that of a URL, None for a path alone; `scheme` in lower case then. `target` is
    the path, with a query if there is one. `relative`: it is a name within the tool's own space,
    which begins at its root, or with `in_account` at the account of the request. `start` and
    `end` are where it stands in the field's value.
    """

    name: bytes
    purpose: Purpose
    target: Target
    authority: Host | None
    scheme: str
    relative: bool
    in_account: bool
    start: int
    end: int


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
    """Yield the uploads that a final one is put together of (tus, concatenation)."""
    match = _FINAL.match(value)
    if match is not None:
        yield from (_Spot(*word.span()) for word in _WORD.finditer(value, match.end()))


class _Field(NamedTuple):
    purpose: Purpose
    spots: Callable[[bytes], Iterator[_Spot]] = _whole
    #: A path without a host is one within the tool's space, and one of its own view.
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
#: Fields that put a name of FIELDS into another account, of which no path tells.
ELSEWHERE: Final = frozenset(
    (b"destination-account", b"x-copy-from-account", b"x-symlink-target-account")
)
#: Those that a tool reads as addresses of its own, which are put into its view.
REWRITTEN: Final = frozenset((b"destination", b"if", b"upload-concat"))
NAMES: Final = frozenset(FIELDS) | ELSEWHERE
#: More in one request are no honest client's; each is judged as a path of a request is.
MAX_CLAIMS: Final = 16


def claimed_paths(fields: FieldSection) -> tuple[Claim, ...]:
    """Return the paths that a request names in its fields. Raises RefusedError.

    What cannot be read is refused, and so is a field that came twice: tools differ on which of
    the two counts.
    """
    found = fields.paths
    if found is None:
        found = fields.paths = _read(fields) if _has_any(fields) else ()
    return found


def _has_any(fields: FieldSection) -> bool:
    shape = fields.shape
    if shape.claims_paths is None:
        names = [name.lower().replace(b"_", b"-") for name in shape.names]
        shape.claims_paths = not NAMES.isdisjoint(names)
    return shape.claims_paths


def _read(fields: FieldSection) -> tuple[Claim, ...]:
    claims: list[Claim] = []
    seen: set[bytes] = set()
    for sent, value in fields.pairs:
        name = sent.lower().replace(b"_", b"-")
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
