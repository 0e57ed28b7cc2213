"""Whether a request presents a token of the gate's own (RFC 6750 section 2.1)."""

import re
from collections.abc import Sequence
from typing import Final

from tailchat_gate.request.refusal import RefusedError

#: What every token of the gate begins with, so that one is known wherever it turns up.
PREFIX: Final = "tg_"
#: Wider than the grammar: what was meant as a token of the gate must not reach a tool.
_MEANT: Final = re.compile(rb"(?i:\bbearer)[ \t\"':=]*" + PREFIX.encode("ascii"))
_PRESENTED: Final = re.compile(rb"(?i:bearer) +(" + PREFIX.encode("ascii") + rb"[A-Za-z0-9_-]+)")


def read_bearer(values: Sequence[bytes]) -> bytes | None:
    """Return the token of the gate's own in the Authorization values of a request.

    None where there is none: any other credentials are between the client and the tool. b"" for
    one that is malformed; whether any other is good is not asked here. Raises RefusedError where
    such a token stands beside another Authorization field, because then there is no telling
    which of the two a tool would read.
    """
    if not any(map(_MEANT.search, values)):
        return None
    if len(values) > 1:
        raise RefusedError("more than one Authorization, one of them with a token of the gate")
    match = _PRESENTED.fullmatch(values[0])
    return match[1] if match else b""
