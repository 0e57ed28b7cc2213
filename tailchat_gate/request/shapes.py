"""The names of a header section, which a client repeats although the values change."""

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final, TypeVar

from tailchat_gate.bounded import keep_in
from tailchat_gate.request.authorization import TOKEN_FIELD

#: Fields about the message itself or its sender. Cookie and Content-Length are not among them,
#: because they differ from request to request and are read each time.
TELLING: Final = (
    *(b"authorization", b"connection", b"expect", b"host", b"origin", b"sec-fetch-dest"),
    *(b"sec-fetch-site", b"service-worker", b"transfer-encoding", b"upgrade", b"user-agent"),
    *(b"cdn-loop", b"via", TOKEN_FIELD),
)
#: Fields that identify a request, for request/trace_context.py.
IDENTIFYING: Final = (b"x-request-id", b"traceparent", b"tracestate")
#: A value after the colon and one space, without other spaces around it; an empty one is none.
_VALUE: Final = rb"([^ \r][^\r]*+)(?<! )"
#: Replaces all bytes but visible ASCII by spaces, which leaves a plain value unchanged.
_PLAIN: Final = bytes([octet if octet in range(0x20, 0x7F) else 0x20 for octet in range(256)])
#: The most routes for which a shape caches the lines that they pass, and the most bytes of these
#: lines, which the cache of sections does not count: long names are cached for one route.
_MAX_ROUTES: Final = 16
_MAX_PASSED: Final = 4096

Values = tuple[bytes, ...]
_R = TypeVar("_R")


class Picked:
    """Some lines of a shape, which `write` fills with values.

    `but_cookies` are the same lines without the Cookie fields, None if there are none.
    """

    __slots__ = ("_form", "_pick", "but_cookies")

    def __init__(self, shape: "Shape", places: Sequence[int]) -> None:
        names = [shape.names[place].replace(b"%", b"%%") for place in places]
        self._form: Final = b"".join([b"%b: %%b\r\n" % name for name in names])
        self._pick: Final = picker(places)
        others = [place for place in places if place not in shape.cookies]
        # Not itself, which only the garbage collector would free.
        self.but_cookies: Final = None if len(others) == len(places) else Picked(shape, others)

    @property
    def size(self) -> int:
        """The bytes of the lines without values."""
        return len(self._form)

    def write(self, values: Sequence[bytes]) -> bytes:
        """Return the lines, each with CRLF; `values` are those of the whole section."""
        return self._form % self._pick(values)


class Shape:
    """The names of a header section in their order, and what follows from them alone.

    `places` has the positions of each name, by lower-case names; `cookies` those of Cookie,
    `length` that of the first Content-Length or None. `telling` picks the values of TELLING out of
    those of a section, `pick_cookies` those of Cookie.
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
        #: Whether the framing and the host of a section with these names are unambiguous.
        self.is_plain: Final = (
            len(places.get(b"host", ())) == 1
            and len(lengths) <= 1
            and b"transfer-encoding" not in places
        )
        identifying = tuple([tuple(places.get(name, ())) for name in IDENTIFYING])
        #: The positions of IDENTIFYING, None if there is none.
        self.identifies: Final = identifying if any(identifying) else None
        telling = [place for name in TELLING for place in places.get(name, ())]
        self.telling: Final = picker(telling)
        #: Matches the bytes of a section with these names; the groups are the values.
        self.match: Callable[[bytes], re.Match[bytes] | None] = _never
        #: How many sections had this shape.
        self.uses = 0
        #: Whether a name is one that claims methods or paths, None if unknown; request/claims.py.
        self.claims_methods: bool | None = None
        self.claims_paths: bool | None = None
        self._passed: dict[object, Picked] = {}

    def compile(self) -> None:
        """Compile the pattern that `match` uses from now on."""
        lines = [b"%b: %b\r\n" % (re.escape(name), _VALUE) for name in self.names]
        self.match = re.compile(b"".join(lines)).fullmatch

    def passed(self, rules: _R, passes: Callable[[_R, bytes], bool]) -> Picked:
        """Return the lines that a route's `rules` pass; `passes` judges a name by them."""
        picked = self._passed.get(rules)
        if picked is None:
            places = [place for place, name in enumerate(self.names) if passes(rules, name)]
            picked = Picked(self, places)
            most = min(_MAX_PASSED // (picked.size + 1), _MAX_ROUTES) or 1
            keep_in(self._passed, rules, picked, most)
        return picked


def are_plain(values: Values) -> bool:
    """Whether all values are visible ASCII and spaces."""
    # Several times as fast as a character class in the section's pattern.
    octets = b"".join(values)
    return octets.translate(_PLAIN) == octets


def picker(places: Sequence[int]) -> Callable[[Sequence[bytes]], Values]:
    """Return a function that picks the values at some positions."""
    if len(places) > 1:
        return itemgetter(*places)
    if not places:
        return lambda _: ()
    place = places[0]
    return lambda values: (values[place],)


def _never(_raw: bytes) -> None:
    """Match nothing."""
