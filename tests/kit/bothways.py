"""Reads header sections by the fast and the careful reader, and fails if they differ."""

from collections.abc import Callable
from inspect import isdatadescriptor
from typing import Any

from tailchat_gate.request.fields import FieldSection, HeadLimits
from tailchat_gate.request.head import RequestReader
from tailchat_gate.request.sections import PlainSections, read_carefully
from tailchat_gate.request.shapes import Shape, Values

#: The names of a section's slots and properties, which look alike in a compiled class.
_FACTS = [
    name
    for name, member in vars(FieldSection).items()
    if isdatadescriptor(member) and not name.startswith("__") and name != "shape"
]
#: No section is received this often, so the reader of requests itself never learns one.
_NEVER = 1 << 60


def facts(section: FieldSection) -> dict[str, Any]:
    """Return all properties of a section, also the cached ones."""
    told = {name: getattr(section, name) for name in _FACTS}
    host = told.pop("host")
    return {**told, "host": (host.raw, host.name, host.port)}


def learned(raw: bytes, limits: HeadLimits) -> PlainSections:
    """Return a fast reader that has seen `raw` twice. Raises RefusedError."""
    sections = PlainSections(limits, often=1)
    for _ in range(2):
        sections.learn(read_carefully(raw, limits, sections.shape))
    return sections


class BothWays:
    """Lets the fast reader read plain sections that are new to it.

    `plain_sections` counts those that it could read.
    """

    def __init__(self) -> None:
        self.plain_sections = 0

    def reader(self, limits: HeadLimits) -> RequestReader:
        """Return a reader of requests that reads their sections by both readers."""
        return RequestReader(limits, _NEVER, self._read)

    def _read(
        self, raw: bytes, limits: HeadLimits, shape: Callable[[Values], Shape]
    ) -> FieldSection:
        """Return the section that the fast reader reads, else the careful reader's."""
        wanted = read_carefully(raw, limits, Shape)
        found = learned(raw, limits).read(raw)
        if found is None:
            return wanted
        assert facts(found) == facts(wanted), raw
        self.plain_sections += 1
        return found
