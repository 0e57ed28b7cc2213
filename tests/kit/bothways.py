"""Reads header sections in both ways, and fails where they differ."""

from collections.abc import Callable
from inspect import isdatadescriptor
from typing import Any

from tailchat_gate.request.fields import FieldSection, HeadLimits
from tailchat_gate.request.head import RequestReader
from tailchat_gate.request.sections import PlainSections, read_carefully
from tailchat_gate.request.shapes import Shape, Values

#: What a section has: slots and properties, which look alike where the class is compiled.
_FACTS = [
    name
    for name, member in vars(FieldSection).items()
    if isdatadescriptor(member) and not name.startswith("__") and name != "shape"
]
#: No section comes so often.
_NEVER = 1 << 60


def facts(section: FieldSection) -> dict[str, Any]:
    """Return all that a section says, and what is kept on it."""
    told = {name: getattr(section, name) for name in _FACTS}
    host = told.pop("host")
    return {**told, "host": (host.raw, host.name, host.port)}


def learned(raw: bytes, limits: HeadLimits) -> PlainSections:
    """Return a reader of plain sections that saw one twice. Raises RefusedError."""
    sections = PlainSections(limits, often=1)
    for _ in range(2):
        sections.learn(read_carefully(raw, limits, sections.shape))
    return sections


class BothWays:
    """Reads what is plain the plain way, although it comes for the first time.

    `plain_sections` is how many it read so.
    """

    def __init__(self) -> None:
        self.plain_sections = 0

    def reader(self, limits: HeadLimits) -> RequestReader:
        """Return a reader of requests that reads their sections in both ways."""
        return RequestReader(limits, _NEVER, self._read)

    def _read(
        self, raw: bytes, limits: HeadLimits, shape: Callable[[Values], Shape]
    ) -> FieldSection:
        """Return the section that the plain way reads, or else the careful one's."""
        wanted = read_carefully(raw, limits, Shape)
        found = learned(raw, limits).read(raw)
        if found is None:
            return wanted
        assert facts(found) == facts(wanted), raw
        self.plain_sections += 1
        return found
