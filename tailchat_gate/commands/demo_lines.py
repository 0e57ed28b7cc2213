"""Formats the events of the demo as sentences for people."""

import logging
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tailchat_gate.observe.log import AUDIT_LOGGER_NAME
from tailchat_gate.observe.text_lines import shown

#: The sentence for each audit event, with fields of its record.
_SENTENCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "signed-in": "{sub} signed in",
        "signed-out": "{sub} signed out",
        "sign-in-refused": "a sign-in was refused: {reason}",
        "refused": "{sub} was refused by {route}: {reason}",
        "access-requested": "{sub} asks for {route}: “{why}”",
        "access-approved": "{by} approved the request of {sub} for {route}",
        "access-declined": "{by} declined the request of {sub} for {route}",
        "granted": "{sub} may enter {route} for a while",
        "grant-ended": "{sub} may no longer enter {route} by a grant",
        "session-ended": "a session of {sub} has ended: {reason}",
        "account-kept-out": "{sub} is kept out: {reason}",
        "account-let-in": "{sub} may come in again",
        "group-joined": "{sub} is in the group {group} now",
        "group-left": "{sub} is no longer in the group {group}",
        "admin-order": "{by} on the admin page: {order}",
    }
)


class DemoLines(logging.Formatter):
    """Formats records as sentences; `names` has people by their subs and tools by their routes."""

    def __init__(self, names: Mapping[str, str]) -> None:
        super().__init__()
        self._names = names

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`, with less of it than the log of a gate has."""
        details = getattr(record, "details", {})
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"  {at}  {shown(self._said(record, details))}"

    def _said(self, record: logging.LogRecord, details: Mapping[str, object]) -> str:
        event = str(details.get("event", ""))
        if record.name != AUDIT_LOGGER_NAME or event not in _SENTENCES:
            further = (f"{name}={value}" for name, value in details.items() if name != "event")
            level = "" if event else f"{record.levelname.lower()}: "
            return f"{level}{event or record.getMessage()} {' '.join(further)}".rstrip()
        members = {name: self._names.get(str(one), one) for name, one in details.items()}
        return _SENTENCES[event].format_map({"why": "", "by": "", **members})
