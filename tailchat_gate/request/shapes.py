"""The names of a header section: a client's repeat from request to request, whatever they say."""

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final, TypeVar

from tailchat_gate.request.authorization import TOKEN_FIELD

#: Fields that say something about the message itself, or about who sent it. Cookies and a length
#: are not among them: they differ from request to request, and are read each time.
TELLING: Final = (
    *(b"authorization", b"connection", b"expect", b"host", b"origin", b"sec-fetch-dest"),
    *(b"sec-fetch-site", b"service-worker", b"transfer-encoding", b"upgrade", b"user-agent"),
    *(b"via", TOKEN_FIELD),
)
#: Fields that name a request, for request/trace_context.py to judge.
IDENTIFYING: Final = (b"x-request-id", b"traceparent", b"tracestate")
#: A plain value: visible ASCII, with spaces inside and not around it. What stands before it is the
#: space behind the colon, so that an empty value is not plain.
_VALUE: Final = rb"(?! )([ -~]*+)(?<! )"
#: Of how many routes it is kept which lines they pass.
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

    def write(self, values: Values) -> bytes:
        """Return the lines, each with its CRLF; `values` are those of the whole section."""
        return self._form % self._pick(values)


class Shape:
    """The names of a header section in their order, and what follows from them alone.

    `places` are where each name stands, by lower-case names; `cookies` where the Cookie fields do,
    `length` where the one Content-Length does, None where there is none. `telling` picks out of
    the values those of TELLING.
    """

    __slots__ = (
        "_passed", "claims_methods", "claims_paths", "cookies", "identifies", "is_plain", "length",
        "match", "names", "places", "telling", "uses",
    )  # fmt: skip

    def __init__(self, names: Values) -> None:
        self.names: Final = names
        places: dict[bytes, list[int]] = {}
        for place, name in enumerate(names):
            places.setdefault(name.lower(), []).append(place)
        self.places: Final = places
        self.cookies: Final = tuple(places.get(b"cookie", ()))
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
        #: Matches a section of these names whose values are plain, which are its groups.
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
            if len(self._passed) >= _MAX_ROUTES:
                self._passed.clear()
            self._passed[rules] = found
        return found


def picker(places: Sequence[int]) -> Callable[[Values], Values]:
    """Return what picks the values of some places out of those of a section."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple([values[place] for place in places])


def _never(_raw: bytes) -> None:
    """Match nothing."""
