"""The names of a header section: a client's repeat from request to request, whatever they say."""

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final, TypeVar

from tailchat_gate.bounded import keep_in
from tailchat_gate.request.authorization import TOKEN_FIELD

#: Fields that say something about the message itself, or about who sent it. Cookies and a length
#: are not among them: they differ from request to request, and are read each time.
TELLING: Final = (
    *(b"authorization", b"connection", b"expect", b"host", b"origin", b"sec-fetch-dest"),
    *(b"sec-fetch-site", b"service-worker", b"transfer-encoding", b"upgrade", b"user-agent"),
    *(b"cdn-loop", b"via", TOKEN_FIELD),
)
#: Fields that name a request, for request/trace_context.py to judge.
IDENTIFYING: Final = (b"x-request-id", b"traceparent", b"tracestate")
#: Where a value is: a line without its name, and without spaces around it. What stands before it
#: is the space behind the colon, and an empty value is none.
_VALUE: Final = rb"([^ \r][^\r]*+)(?<! )"
#: Leaves the bytes of a plain value, visible ASCII and spaces, as they are, and no other byte.
_PLAIN: Final = bytes([octet if octet in range(0x20, 0x7F) else 0x20 for octet in range(256)])
#: For how many routes it is cached which lines they pass.
_MAX_ROUTES: Final = 16

Values = tuple[bytes, ...]
_R = TypeVar("_R")


class Picked:
    """Some lines of a shape: `write` puts values into their places, and the names before them.

    `but_cookies` are the same without the Cookie fields.
    """

    __slots__ = ("_form", "_pick", "but_cookies")

    def __init__(self, shape: "Shape", places: Sequence[int]) -> None:
        names = [shape.names[place].replace(b"%", b"%%") for place in places]
        self._form: Final = b"".join([b"%b: %%b\r\n" % name for name in names])
        self._pick: Final = picker(places)
        others = [place for place in places if place not in shape.cookies]
        self.but_cookies: Final = self if len(others) == len(places) else Picked(shape, others)

    def write(self, values: Sequence[bytes]) -> bytes:
        """Return the lines, each with its CRLF; `values` are those of the whole section."""
        return self._form % self._pick(values)


class Shape:
    """The names of a header section in their order, and what follows from them alone.

    `places` are where each name stands, by lower-case names; `cookies` where the Cookie fields do,
    `length` where the one Content-Length does, None where there is none. `telling` picks out of
    the values those of TELLING, `pick_cookies` those of Cookie fields.
    """

    __slots__ = (
        "_passed", "claims_methods", "claims_paths", "cookies", "identifies", "is_plain", "length",
        "match", "names", "pick_cookies", "places", "telling", "uses",
    )  # fmt: skip

    def __init__(self, names: Values) -> None:
        self.names: Final = names
        places: dict[bytes, list[int]] = {}
        for place, name in enumerate(names):
            places.setdefault(name.lower(), []).append(place)
        self.places: Final = places
        self.cookies: Final = tuple(places.get(b"cookie", ()))
        self.pick_cookies: Final = picker(self.cookies)
        lengths = places.get(b"content-length", ())
        self.length: Final = lengths[0] if lengths else None
        #: Whether the framing of a section with these names is in no doubt, nor is its host.
        self.is_plain: Final = (
            len(places.get(b"host", ())) == 1
            and len(lengths) <= 1
            and b"transfer-encoding" not in places
        )
        identifying = tuple([tuple(places.get(name, ())) for name in IDENTIFYING])
        #: Where IDENTIFYING stand, None where none does.
        self.identifies: Final = identifying if any(identifying) else None
        telling = [place for name in TELLING for place in places.get(name, ())]
        self.telling: Final = picker(telling)
        #: Matches a section of these names; its groups are the values, if they are plain.
        self.match: Callable[[bytes], re.Match[bytes] | None] = _never
        #: How often it came.
        self.uses = 0
        #: Whether a name is one by which requests claim methods or paths; see request/claims.py.
        self.claims_methods: bool | None = None
        self.claims_paths: bool | None = None
        self._passed: dict[object, Picked] = {}

    def compile(self) -> None:
        """Make the pattern that `match` asks from now on."""
        lines = [b"%b: %b\r\n" % (re.escape(name), _VALUE) for name in self.names]
        self.match = re.compile(b"".join(lines)).fullmatch

    def passed(self, rules: _R, passes: Callable[[_R, bytes], bool]) -> Picked:
        """Return the lines that pass by the rules of a route; `passes` judges a name by them."""
        found = self._passed.get(rules)
        if found is None:
            kept = [place for place, name in enumerate(self.names) if passes(rules, name)]
            found = Picked(self, kept)
            keep_in(self._passed, rules, found, _MAX_ROUTES)
        return found


def are_plain(values: Values) -> bool:
    """Whether values are visible ASCII and spaces alone."""
    # Several times faster than a class of characters in the pattern of the section.
    octets = b"".join(values)
    return octets.translate(_PLAIN) == octets


def picker(places: Sequence[int]) -> Callable[[Sequence[bytes]], Values]:
    """Return a function that picks the values of some places out of those of a section."""
    if len(places) > 1:
        return itemgetter(*places)
    if not places:
        return lambda _: ()
    place = places[0]
    return lambda values: (values[place],)


def _never(_raw: bytes) -> None:
    """Match nothing."""
