"""Reads header sections: plain ones fast, by a pattern of their names, all others with care."""

import re
from collections.abc import Callable
from sys import getsizeof
from typing import Final

from tailchat_gate.bounded import ENTRY_BYTES, BoundedCache
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.fields import FieldSection, HeadLimits, read_length, split_fields
from tailchat_gate.request.shapes import Shape, Values, are_plain

#: How often a shape has to come until there is a pattern for it: to make one takes as long as to
#: read dozens of sections with care.
OFTEN: Final = 64
#: A shape with more lines or more bytes of names gets no pattern; at most so many shapes with the
#: same number of lines have one.
_MOST_LINES: Final = 40
_MOST_NAME_BYTES: Final = 1024
_MOST_ALIKE: Final = 8
#: The most bytes of cached sections, shapes, and meanings of values.
_KEPT_SECTIONS = 32 << 20
_KEPT_SHAPES = 1 << 20
_KEPT_KNOWN = 4 << 20
#: The most bytes of one cached section, or one shape, including all objects.
_LARGEST_SECTION: Final = 24 << 10
_LARGEST_SHAPE: Final = 16 << 10


#: Reads a section of any lines, as `read_carefully` does.
Careful = Callable[[bytes, HeadLimits, Callable[[Values], Shape]], FieldSection]


class SectionReader:
    """Reads header sections; caches whole ones that come again.

    `careful` reads those that are not known to be plain.
    """

    def __init__(
        self, limits: HeadLimits, often: int = OFTEN, careful: Careful | None = None
    ) -> None:
        self._limits = limits
        self._careful: Final[Careful] = careful or read_carefully
        self._sections: BoundedCache[bytes, FieldSection] = BoundedCache(
            _KEPT_SECTIONS, cost=_cost_of_section, largest=_LARGEST_SECTION, twice=True
        )
        self.plain: Final = PlainSections(limits, often)

    def known(self, raw: bytes) -> FieldSection | None:
        """Return the section whose lines are `raw`, each with CRLF, if it is cached or plain.

        Returns None if it must be read carefully, also if `raw` is no valid section.
        """
        section = self._sections.get(raw)
        if section is None and (section := self.plain.read(raw)) is not None:
            self._sections.keep(raw, section)
        return section

    def read(self, raw: bytes) -> FieldSection:
        """Return the section whose lines are `raw`, each with CRLF. Raises RefusedError."""
        section = self.known(raw)
        if section is None:
            section = self._careful(raw, self._limits, self.plain.shape)
            self.plain.learn(section)
            self._sections.keep(raw, section)
        return section

    def forget(self) -> None:
        """Clear the caches, because no further section will be read."""
        self._sections.clear()
        self.plain.forget()


class PlainSections:
    """Reads sections with plain values whose names came often in the same order.

    It caches such names (a shape) with a pattern that proves a section plain and finds its values,
    and what the values of its telling fields mean. All other values may differ from request to
    request; they are not cached. The result is the same as that of `read_carefully`, or none.
    `often` is how often a shape must come.
    """

    def __init__(self, limits: HeadLimits, often: int = OFTEN) -> None:
        self._often = often
        # Longer sections are read carefully, which checks the limits.
        self._longest = min(limits.header_bytes, limits.cookie_bytes)
        self._shapes: BoundedCache[Values, Shape] = BoundedCache(
            _KEPT_SHAPES, cost=_cost_of_shape, largest=_LARGEST_SHAPE
        )
        self._known: BoundedCache[tuple[Shape, Values], FieldSection] = BoundedCache(
            _KEPT_KNOWN, cost=_cost_of_known, largest=_LARGEST_SHAPE, twice=True
        )
        #: Shapes with a pattern by their number of lines, the last used first.
        self._patterns: dict[int, list[Shape]] = {}
        #: The shape of the section that was read last.
        self._last = Shape(())

    def read(self, raw: bytes) -> FieldSection | None:
        """Return the section whose lines are `raw`, None if it is not known to be plain.

        Raises RefusedError for an invalid Content-Length.
        """
        match = self._last.match(raw) or self._match(raw)
        if match is None:
            return None
        shape, values = self._last, match.groups()
        known = self._known.get((shape, shape.telling(values)))
        if known is None or len(raw) > self._longest or not are_plain(values):
            return None
        if shape.length is None:
            return known.with_values(values)
        return known.with_values(values, read_length((values[shape.length],)))

    def _match(self, raw: bytes) -> re.Match[bytes] | None:
        """Return the match of a section, None if no pattern matches.

        The matching shape becomes `_last`, which `read` tries first.
        """
        alike = self._patterns.get(raw.count(b"\n"), ())
        for place, shape in enumerate(alike):
            match = shape.match(raw)
            if match is not None:
                self._last = shape
                if place:
                    self._prefer(shape, place)
                return match
        return None

    def shape(self, names: Values) -> Shape:
        """Return the shape of these names: the cached one, or a new one."""
        for shape in self._patterns.get(len(names), ()):
            # `read` finds it by its pattern and never looks it up: rare shapes may have pushed it
            # out of `_shapes`.
            if shape.names == names:
                return shape
        return self._shapes.get(names) or Shape(names)

    def learn(self, section: FieldSection) -> None:
        """Cache the shape of a section and its meaning; compile a pattern if it comes often."""
        shape = section.shape
        if not shape.is_plain:
            return
        if not shape.uses:
            self._shapes.keep(shape.names, shape)
        key = (shape, shape.telling(section.sent_values))
        if self._known.get(key) is None:
            self._known.keep(key, section.with_values(()))
        shape.uses += 1
        if shape.uses == self._often and _is_small(shape):
            shape.compile()
            self._patterns.setdefault(len(shape.names), [])[_MOST_ALIKE - 1 :] = [shape]

    def forget(self) -> None:
        """Drop the caches."""
        self._shapes.clear()
        self._known.clear()
        self._patterns.clear()
        self._last = Shape(())

    def _prefer(self, shape: Shape, place: int) -> None:
        """Try a shape first among those with as many lines from now on."""
        alike = self._patterns[len(shape.names)]
        alike.insert(0, alike.pop(place))


def read_carefully(
    raw: bytes, limits: HeadLimits, shape: Callable[[Values], Shape]
) -> FieldSection:
    """Return the section of any lines, each with CRLF; `shape` returns the shape of names.

    Raises RefusedError.
    """
    if len(raw) > limits.header_bytes:
        raise RefusedError("a header section that is too long", Reason.HEAD_TOO_LARGE)
    pairs = split_fields(raw)
    if len(pairs) > limits.header_count:
        raise RefusedError("too many header fields", Reason.HEAD_TOO_LARGE)
    section = FieldSection(pairs, shape(tuple([name for name, _ in pairs])))
    if sum(map(len, section.cookies)) > limits.cookie_bytes:
        raise RefusedError("cookies that are too long", Reason.HEAD_TOO_LARGE)
    return section


def _is_small(shape: Shape) -> bool:
    """Whether the pattern of a shape needs little memory, and little time to compile."""
    return len(shape.names) <= _MOST_LINES and sum(map(len, shape.names)) <= _MOST_NAME_BYTES


def _cost_of_section(raw: bytes, section: FieldSection) -> int:
    """Return about how many bytes a section takes, with the fields made for a tool."""
    return 2048 + 256 * len(section.shape.names) + 3 * len(raw) + _cost_of_meaning(section)


def _cost_of_shape(names: tuple[bytes, ...], _shape: Shape) -> int:
    """Return about how many bytes a shape takes."""
    return 2048 + sum([256 + 2 * len(name) for name in names])


def _cost_of_known(key: tuple[Shape, Values], section: FieldSection) -> int:
    """Return about how many bytes the values of telling fields take, with their shape."""
    shape, values = key
    cost_of_values = sum([64 + 2 * len(value) for value in values]) + _cost_of_meaning(section)
    return 1536 + ENTRY_BYTES + cost_of_values + _cost_of_shape(shape.names, shape)


def _cost_of_meaning(section: FieldSection) -> int:
    """Return about how many bytes a section takes for what can be larger than its values."""
    # A set of short options takes fifty times as much as the field, and one emoji makes each
    # character of a text take four bytes.
    return ENTRY_BYTES * len(section.connection) + getsizeof(section.agent)
