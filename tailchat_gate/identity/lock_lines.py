"""The lines of the locks' file: a checksum, a space, JSON."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Final, NamedTuple
from zlib import crc32

from tailchat_gate.config.word import SUB, TOKEN, is_sub, is_token_name
from tailchat_gate.identity.locks import (
    ALL,
    EndedSession,
    Entry,
    Lock,
    SignedOut,
    Unlock,
)
from tailchat_gate.syntax import COMPACT, SESSION_ID, UNFIT_FOR_A_LINE

#: Longest line; what is longer was not written by the gate.
MAX_LINE: Final = 4096
#: Longest message of a lock, in characters: a page shows no more.
MAX_MESSAGE: Final = 300

_CHECKSUM: Final = 8
#: A second of the year 9999 or before, which every calendar can name.
_MAX_SECOND: Final = 253_402_300_799

_KINDS: Final[Mapping[str, type[Entry]]] = MappingProxyType(
    {"lock": Lock, "unlock": Unlock, "ended": EndedSession, "signed-out": SignedOut}
)
_NAMES: Final = MappingProxyType({kind: name for name, kind in _KINDS.items()})


class ReadLine(NamedTuple):
    """What a line says, None where it says nothing; `whole`: its checksum is right."""

    entry: Entry | None
    whole: bool


def to_line(entry: Entry) -> bytes:
    """Return an entry as a line, with its end."""
    fields = {"kind": _NAMES[type(entry)], **asdict(entry)}
    body = json.dumps(fields, ensure_ascii=False, separators=COMPACT).encode()
    return b"%08x %b\n" % (crc32(body), body)


def read_line(line: bytes) -> ReadLine:
    """Read a line without its end.

    A damaged line that can still be read is believed where it keeps somebody out, and not where
    it lets somebody in: of the two mistakes only the first can be put right by a new line.
    """
    body = line[_CHECKSUM + 1 :]
    entry = _entry(body) if len(line) <= MAX_LINE else None
    whole = entry is not None and line[: _CHECKSUM + 1] == b"%08x " % crc32(body)
    return ReadLine(None if isinstance(entry, Unlock) and not whole else entry, whole)


def is_target(text: str) -> bool:
    """Tell whether a text names what can be locked: `sub:ID`, `token:NAME` or `all`."""
    if text.startswith(TOKEN):
        return is_token_name(text.removeprefix(TOKEN))
    return is_person(text)


def is_person(text: str) -> bool:
    """Tell whether a text names persons: `sub:ID` or `all`."""
    return text == ALL or (text.startswith(SUB) and is_sub(text.removeprefix(SUB)))


def is_message(text: str) -> bool:
    """Tell whether a text can be the message of a lock: one line that is not too long."""
    return len(text) <= MAX_MESSAGE and UNFIT_FOR_A_LINE.search(text) is None


def _is_second(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_SECOND


def _is_text(check: Callable[[str], object]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and bool(check(value))


_CHECKS: Final[Mapping[str, Callable[[object], bool]]] = MappingProxyType(
    {
        "target": _is_text(is_target),
        "message": _is_text(is_message),
        "sid": _is_text(SESSION_ID.fullmatch),
        "sub": _is_text(is_sub),
        "at": _is_second,
        "until": _is_second,
        "revoked": lambda value: isinstance(value, bool),
    }
)


def _entry(body: bytes) -> Entry | None:
    """Return the entry in the JSON of a line, None for any other shape."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    kind = _KINDS.get(str(fields.pop("kind", ""))) if isinstance(fields, dict) else None
    if kind is None or fields.keys() != set(kind.__match_args__):
        return None
    open_ended = kind is Lock and fields["until"] is None
    checked = fields.keys() - {"until"} if open_ended else fields.keys()
    if not all(_CHECKS[name](fields[name]) for name in checked):
        return None
    entry = kind(**fields)
    return None if isinstance(entry, SignedOut) and not is_person(entry.target) else entry
