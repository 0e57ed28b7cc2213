"""Knows texts that only an example or a template has in the place of a value."""

import re

_SIGNS = r"x{3,}|\*+|\.{2,}|…|-+|0+|<.*>|\{\{?.*\}\}?|\$\{?\w+\}?|%\w+%|\[.*\]"
_OURS = (
    r"(?:your[ _-])?(?:(?:tailchat|oauth|client)[ _-]?){0,2}(?:secret|password|id)(?:[ _-]?here)?"
)
_TEMPLATE = re.compile(
    r"(?:change|replace|insert|fill|enter|put|paste).?(?:me|this|it|with|in|your|here|the)(?![a-z0-9]).*"
    rf"|{_OURS}|(?:your[ _-])?app[ _-]?id|your[ _-]app[ _-]?(?:id|secret)"
    r"|place.?holder|todo|tbd|none|null|undefined|test"
    r"|(?:[a-z0-9-]+\.)*example(?:\.(?:com|net|org))?"
    rf"|(?:tc_)?(?:{_SIGNS}|your[ _-].*)",
    re.IGNORECASE,
)
#: A password of a server is chosen by people: only what is plainly none is refused.
_INSTEAD = re.compile(
    r"(?:change|replace).?(?:me|this|with|your|the)(?![a-z0-9]).*|the password of .*|<.*>|\.{2,}|…",
    re.IGNORECASE,
)


def is_placeholder(text: str) -> bool:
    """Whether a whole secret or id of Tailchat, which are random, is one of a template.

    Neither has white space in it: a text with some is a sentence about the value.
    """
    return _TEMPLATE.fullmatch(text) is not None or len(text.split()) > 1


def is_instead_of_password(text: str) -> bool:
    """Whether a password is one of a template."""
    return _INSTEAD.fullmatch(text) is not None
