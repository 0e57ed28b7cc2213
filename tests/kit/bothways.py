"""A reader of header sections that reads each in both ways, and fails where they differ."""

from contextlib import suppress
from typing import Any

from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.fields import FieldSection, HeadLimits
from tailchat_gate.request.sections import OFTEN, PlainSections, SectionReader, read_carefully
from tailchat_gate.request.shapes import Shape


def facts(section: FieldSection) -> dict[str, Any]:
    """Return all that a section says, and what is kept on it."""
    told = {name: getattr(section, name) for name in FieldSection.__slots__ if name != "shape"}
    host = told.pop("host")
    return {**told, "pairs": section.pairs, "host": (host.raw, host.name, host.port)}


def learned(raw: bytes, limits: HeadLimits) -> PlainSections:
    """Return a reader of plain sections that saw one twice. Raises RefusedError."""
    sections = PlainSections(limits, often=1)
    for _ in range(2):
        sections.learn(read_carefully(raw, limits, sections.shape))
    return sections


class BothWays(SectionReader):
    """Reads what is plain the plain way, although it comes for the first time."""

    #: How many sections were read the plain way, by all such readers.
    plain_sections = 0

    def __init__(self, limits: HeadLimits, often: int = OFTEN) -> None:
        super().__init__(limits, often)
        self._bounds = limits

    def known(self, raw: bytes) -> FieldSection | None:
        """Return the section if it is one."""
        with suppress(RefusedError):
            return self.read(raw)
        return None

    def read(self, raw: bytes) -> FieldSection:
        """Return the section that the plain way reads, or else the careful one's."""
        wanted = read_carefully(raw, self._bounds, Shape)
        found = learned(raw, self._bounds).read(raw)
        if found is None:
            return wanted
        assert facts(found) == facts(wanted), raw
        type(self).plain_sections += 1
        return found
