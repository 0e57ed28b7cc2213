"""In what the gate and nginx differ, and why: every kind of difference that there may be."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from differkit import Difference, Seen

from fuzz.reference.request import Request, stays
from fuzz.reference.syntax import elements, is_text, is_token, values

UNKNOWN: Final = "unknown"


class Kind(NamedTuple):
    """A kind of difference: why there is one, and whether a request is of that kind.

    `holds` is given the bytes from where the two part.
    """

    why: str
    holds: Callable[[bytes], bool]


def _head(data: bytes) -> bytes:
    """Return the head that begins data, by the line ends that either takes."""
    return re.split(rb"\r?\n\r*\n", data.lstrip(b"\r\n"), maxsplit=1)[0]


def _lines(data: bytes) -> list[bytes]:
    return re.split(rb"\r*\n", _head(data))[1:]


def _line(data: bytes) -> bytes:
    return re.split(rb"\r*\n", _head(data))[0]


def _body(data: bytes) -> bytes:
    return data[data.find(_head(data)) + len(_head(data)) :]


def _target(data: bytes) -> bytes:
    return [*_line(data).split(b" "), b"", b""][1]


def _any_line(holds: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
    return lambda data: any(holds(line) for line in _lines(data))


def _found(pattern: bytes) -> Callable[[bytes], bool]:
    compiled = re.compile(pattern, re.DOTALL)
    return lambda data: compiled.search(data) is not None


#: Fields that nginx looks into.
_JUDGED: Final = (b"host:", b"content-length:", b"transfer-encoding:")

#: The gate refuses what nginx forwards.
STRICTER: Final[Mapping[str, Kind]] = {
    "lone LF": Kind(
        "RFC 9112 section 2.2 lets a recipient end a line at a lone LF; two that differ on it can"
        " be played against each other, and no client sends it",
        _found(rb"(?<!\r)\n"),
    ),
    "CR before CRLF": Kind(
        "nginx drops the CR; RFC 9112 section 2.2 calls it invalid", _found(rb"\r\r\n")
    ),
    "empty lines first": Kind(
        "RFC 9112 section 2.2 asks to ignore at least one empty line; nginx ignores any number",
        _found(rb"^[\r\n]*(?:\r*\n){2}"),
    ),
    "no version": Kind(
        "nginx takes it for HTTP/0.9, and passes on what is no request to a strict reader",
        lambda data: len(_line(data).split()) < 3,
    ),
    "a version beyond 1.1": Kind(
        "nginx takes each 1.x for its own; the gate answers 505 to what it does not speak",
        lambda data: re.search(rb" HTTP/1\.([2-9]|[0-9]{2,3}) *$", _line(data)) is not None,
    ),
    "spaces in the line": Kind(
        "nginx takes several spaces; RFC 9112 section 3 has one",
        lambda data: _line(data).endswith(b" ") or b"  " in _line(data),
    ),
    "a long method": Kind(
        "the gate bounds methods at 32 letters",
        lambda data: len(_line(data).split(b" ")[0]) > 32,
    ),
    "bytes of no URL in the target": Kind(
        "nginx passes raw bytes, fragments and backslashes on, as they were sent",
        lambda data: re.search(rb"[^!-~]|#|\\", _target(data)) is not None,
    ),
    "another host in the target": Kind(
        "nginx decides by the URL's host and passes the Host field on; where they differ the gate"
        " decides by neither (RFC 9112 section 3.2.2)",
        lambda data: b"://" in _target(data),
    ),
    "a Host that is none": Kind(
        "nginx passes on what RFC 9110 section 7.2 has no reading for",
        _any_line(lambda line: line.lower().startswith(b"host:")),
    ),
    "a control byte in a value": Kind(
        "nginx refuses NUL alone; RFC 9110 section 5.5 calls them all invalid",
        _any_line(lambda line: not is_text(line.partition(b":")[2].rstrip(b"\r"))),
    ),
    "a line without a colon": Kind(
        "nginx passes it on as a field without a value",
        _any_line(lambda line: b":" not in line),
    ),
    "a name that is no token": Kind(
        "nginx drops the field in silence, and so judges another request than was sent",
        _any_line(lambda line: not is_token(line.partition(b":")[0])),
    ),
    "chunks by the letter": Kind(
        "nginx takes white space behind a size, any byte in an extension and a lone LF as an end",
        _found(rb"(?i)transfer-encoding:"),
    ),
    "trailers": Kind(
        "nginx throws trailers away unread, broken and endless ones too",
        _found(rb"(?i)transfer-encoding:"),
    ),
    "a lone CR first": Kind("nginx ignores any number of them", _found(rb"^(\r\n)?\r[^\n]")),
    "too many fields": Kind("nginx bounds bytes, not fields", lambda data: len(_lines(data)) > 128),
}

#: By what a plain reader stumbles over, the kinds that it can be.
BY_FAULT: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("no version", "lone LF"),
    "a request line": (
        *("no version", "spaces in the line", "bytes of no URL in the target", "empty lines first"),
        *("a lone CR first", "lone LF"),
    ),
    "a target": ("no version", "bytes of no URL in the target"),
    "neither a path nor a URL": ("another host in the target",),
    "another host": ("another host in the target",),
    "a version": ("no version", "a version beyond 1.1", "lone LF", "CR before CRLF"),
    "a method": ("a long method", "a lone CR first", "lone LF"),
    "a Host": ("a Host that is none",),
    "a field line": (
        *("lone LF", "CR before CRLF", "a control byte in a value", "a line without a colon"),
        "a name that is no token",
    ),
    "no Host": ("lone LF",),
    "a size line": ("lone LF",),
    "a size": ("chunks by the letter",),
    "an extension": ("chunks by the letter",),
    "no CRLF behind a chunk": ("chunks by the letter",),
    "trailers": ("trailers",),
    "too many fields": ("too many fields",),
}

#: The gate forwards what nginx refuses.
LOOSER: Final[Mapping[str, Kind]] = {
    "a method of other letters": Kind(
        "nginx takes capitals, `_` and `-`; RFC 9110 section 9.1 takes any token, and the tool's"
        " own server decides",
        lambda data: re.fullmatch(rb"[A-Z_-]+", _line(data).split(b" ")[0]) is None,
    ),
    "an escape that is none": Kind(
        "nginx decodes paths to choose a location; the gate passes bytes, and judges each reading",
        lambda data: (
            re.search(rb"%(?![0-9A-Fa-f]{2})", _target(data).partition(b"?")[0]) is not None
        ),
    ),
    "a tab around a value": Kind(
        "nginx takes it for a part of the value; RFC 9110 section 5.5 has it stripped",
        _any_line(lambda line: line.lower().startswith(_JUDGED) and b"\t" in line),
    ),
    "a path above the root": Kind(
        "nginx resolves dots to choose a location; the gate judges each reading, and here every"
        " reading meets one rule",
        lambda data: b".." in _target(data) or b"%2e" in _target(data).lower(),
    ),
}

#: Both forward, in other forms.
FORMS: Final[Mapping[str, str]] = {
    "no Host in HTTP/1.0": "the gate sends an empty Host on, as RFC 9112 section 3.2 asks; nginx as"
    " it is set up here sends none with HTTP/1.1, which a strict reader refuses",
    "the end of the connection": "nginx looks for the letters of `close` and `keep-alive`, wherever"
    " they stand, and the last line counts; the gate reads options (RFC 9110 section 7.6.1)",
    "an empty Cookie": "the gate sends none where no cookie is in it",
    "Expect": "nginx answers it itself, the gate leaves the answer to the tool",
    "listed in Connection": "nginx passes on what RFC 9110 section 7.6.1 says a proxy must remove",
    "a name of other characters": "nginx drops names with other characters than letters, digits and"
    " `-` in silence",
}


def explain(difference: Difference) -> Iterator[str]:
    """Yield the kinds of one difference; they begin with UNKNOWN where it is of none."""
    if difference.gate.garbled:
        yield f"{UNKNOWN}: the gate sent what is no request"
        return
    whole = [one for one in difference.read if one.complete]
    if len(difference.gate.arrived) != len(whole):
        yield f"{UNKNOWN}: the gate forwards other requests than there are"
        return
    theirs, garbled, place = list(difference.nginx.arrived), difference.nginx.garbled, 0
    before: Request | None = None
    for sent, mine in zip(whole, difference.gate.arrived, strict=True):
        if not sent.host[0] and garbled:
            yield "no Host in HTTP/1.0"
            garbled = False
        elif not theirs:
            yield _end(before) or _first(LOOSER, LOOSER, difference.data[place:])
            return
        elif mine != (other := theirs.pop(0)):
            yield from _forms(sent, mine, other)
        place += sent.size
        before = sent
    if theirs or garbled:
        names = BY_FAULT.get(difference.fault, ())
        yield _end(before) or _first(STRICTER, names, difference.data[place:])


def _first(kinds: Mapping[str, Kind], names: Iterable[str], data: bytes) -> str:
    found = next((name for name in names if kinds[name].holds(data)), None)
    return found or f"{UNKNOWN}: one of them goes on"


def _end(before: Request | None) -> str:
    """Return the kind where the two read the end of a connection out of a request, "" for none."""
    if before is None:
        return ""
    said = b" ".join(values(before.fields, b"connection")).lower()
    last = b"close" if stays(before) else b"keep-alive"
    return "the end of the connection" if last in said else ""


def _forms(sent: Request, mine: Seen, theirs: Seen) -> Iterator[str]:
    """Yield the kinds of a request that arrived in two forms."""
    if mine._replace(fields=()) != theirs._replace(fields=()):
        yield f"{UNKNOWN}: line, Host or content differ"
        return
    listed = set(elements(sent.fields, b"connection"))
    more = [pair for pair in theirs.fields if pair not in mine.fields]
    less = [pair for pair in mine.fields if pair not in theirs.fields]
    if more and all(name.lower() in listed for name, _ in more):
        yield "listed in Connection"
        more = []
    if any(name.lower() == b"cookie" and not value for name, value in more):
        yield "an empty Cookie"
        more = [pair for pair in more if pair[0].lower() != b"cookie"]
    if any(name.lower() == b"expect" for name, _ in less):
        yield "Expect"
        less = [pair for pair in less if pair[0].lower() != b"expect"]
    if less and all(re.fullmatch(rb"[A-Za-z0-9-]+", name) is None for name, _ in less):
        yield "a name of other characters"
        less = []
    if more or less:
        yield f"{UNKNOWN}: the fields differ"
