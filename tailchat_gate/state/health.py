"""The store's present faults: logged once, counted each time, shown by /readyz."""

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from tailchat_gate.observe.log import LOGGER_NAME

_log: Final = logging.getLogger(LOGGER_NAME)


class FaultKind(StrEnum):
    """The kinds of faults, as the metric's label names them."""

    UNWRITABLE = "unwritable"
    UNREADABLE = "unreadable"
    DAMAGED = "damaged"
    REPLACED = "replaced"
    NEWER = "newer"
    UNCOPIED = "uncopied"


def _tell(fault: FaultKind, problem: str) -> None:
    details = {"error": str(fault), "problem": problem}
    _log.error("the state store has a fault", extra={"details": details})


class Health:
    """The faults of one store; calls `count` for each occurrence and `tell` for each new fault."""

    def __init__(
        self,
        count: Callable[[str], None] = lambda _: None,
        tell: Callable[[FaultKind, str], None] = _tell,
    ) -> None:
        self._count = count
        self._tell = tell
        self._present: dict[FaultKind, str] = {}

    @property
    def faults(self) -> tuple[str, ...]:
        """The present faults, one sentence each."""
        return tuple(f"{fault}: {problem}" for fault, problem in self._present.items())

    def report(self, fault: FaultKind, problem: str) -> None:
        """Note a lasting fault; it is logged when it begins and when its text changes."""
        self._count(fault)
        if self._present.get(fault) != problem:
            self._present[fault] = problem
            self._tell(fault, problem)

    def happened(self, fault: FaultKind, problem: str) -> None:
        """Note a fault that was repaired at once."""
        self._count(fault)
        self._tell(fault, problem)

    def clear(self, *faults: FaultKind) -> None:
        """Note that faults have ended."""
        ended = [fault for fault in faults if self._present.pop(fault, None) is not None]
        if ended:
            _log.info("the state store works again", extra={"details": {"ended": ended}})
