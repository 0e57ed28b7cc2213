"""Whether whoever is refused may be asked for Basic credentials (RFC 7617)."""

from collections.abc import Sequence
from typing import Final

from tailchat_gate.access.policy import Rule, takes_tokens
from tailchat_gate.request.bearer import Way
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.intent import is_program

#: What git, docker and WebDAV clients answer from what their user or their store knows.
BASIC: Final = 'Basic realm="tailchat", charset="UTF-8"'
#: Who presents nothing may be asked for a password, and whose password was none, again.
_WITH_PASSWORD: Final = frozenset((None, Way.BASIC))


def asks_for_password(method: str, fields: FieldSection, rules: Sequence[Rule]) -> bool:
    """Tell whether a password could let a program in; a browser, which would show a dialog, never.

    `rules` are those of what was asked for.
    """
    if not takes_tokens(rules) or fields.token_way not in _WITH_PASSWORD:
        return False
    return is_program(method, fields.headers)
