"""Names in the configuration: routes, groups, subs, tokens, scopes, allow and deny entries."""

import re
from collections.abc import Sized
from typing import TypeVar

from tailchat_gate import syntax
from tailchat_gate.config.problems import did_you_mean
from tailchat_gate.config.values.secret import is_placeholder

PUBLIC = "public"
SIGNED_IN = "signed-in"
GROUP = "group:"
SUB = "sub:"
TOKEN = "token:"  # noqa: S105 - the prefix of an entry, not a credential
CONNECT = "CONNECT"
TRACE = "TRACE"

ALLOW = '"public", "signed-in", "group:NAME", "sub:ID" or "token:NAME"'
DENY = '"group:NAME", "sub:ID" or "token:NAME"'
METHOD = 'a method in capitals such as "GET"'
SUBS = "the sub of a Tailchat user: visible ASCII without spaces, at most 255 characters"
VIA = 'one word of at most 64 letters, digits or -_.+ such as "tailchat-gate", or "" for none'
PERSONS = '"group:NAME" or "sub:ID"'
MACHINE = "1 to 64 letters, digits or -_. beginning with a letter or digit"
NAME = '"Name#2114"'
HASH = '"sha256:" and 64 hexadecimal digits, as `tailchat-gate token NAME` prints it'
AUDIENCE = 'visible ASCII without spaces, at most 255 characters, or "" for the name of the route'

COOKIE = (
    "1 to 64 letters, digits or -_. beginning with a letter or digit, without _login at the end, "
    "and not tailchat_gate_language"
)

_COOKIE_NAME = re.compile(syntax.COOKIE_NAME)
_ROUTE_NAME = re.compile(syntax.ROUTE_NAME)
_UNIX_MODE = re.compile(r"0[0-7]{3}")
_UNIX_GROUP = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_.-]{0,31}|[0-9]{1,9})?")  # shadow-utils
_GROUP_NAME = re.compile(syntax.SHORT_TOKEN)
_VIA = re.compile(syntax.PSEUDONYM)
_TOKEN_NAME = re.compile(syntax.PLAIN_NAME)
_TOKEN_HASH = re.compile(syntax.TOKEN_HASH)
_AUDIENCE = re.compile(syntax.AUDIENCE)
_SUB = re.compile(syntax.SUB)
# Tailchat: the first "#" ends the nickname, so it never finds a nickname with a "#" in it.
_PERSON_NAME = re.compile(rf"(?!{SUB}|{TOKEN})[^#{syntax.CTL}{syntax.C1}]{{1,128}}#[0-9]{{1,16}}")
_METHOD = re.compile(syntax.REGISTERED_METHOD)
_CLIENT_ID = re.compile(syntax.CLIENT_ID)
_APP_ID = (
    "the \"App ID\" of the app's page in Tailchat's open platform, such as "
    '"tc_649aa2179e97b8b3b2d10041"'
)
_SCOPE = re.compile(syntax.SCOPE)
_LONGEST_CONTACT = 200

_NO_ID = "is not a Tailchat id, which has 24 hex digits"

#: One entry of a deny list, and of an allow list, for a JSON Schema.
DENY_ENTRY = f"(?:{GROUP}{syntax.SHORT_TOKEN}|{SUB}{syntax.SUB}|{TOKEN}{syntax.PLAIN_NAME})"
PERSON_ENTRY = f"(?:{GROUP}{syntax.SHORT_TOKEN}|{SUB}{syntax.SUB})"
ALLOW_ENTRY = f"(?:{PUBLIC}|{SIGNED_IN}|{DENY_ENTRY})"

_Many = TypeVar("_Many", bound=Sized)


def route_name(text: str) -> str:
    """Check the name of a route, which is also a label in logs and metrics; raises ValueError."""
    if not _ROUTE_NAME.fullmatch(text):
        raise ValueError("1 to 64 letters, digits, _ or -, beginning with a letter or digit")
    return text


def cookie_name(text: str) -> str:
    """Check the name of the session cookie; raises ValueError.

    The login cookie's name derives from it: no gate's session cookie may have the name of
    another's login cookie, or of the cookie that keeps a visitor's language.
    """
    if not _COOKIE_NAME.fullmatch(text):
        raise ValueError(COOKIE)
    return text


def unix_mode(text: str) -> str:
    """Check the mode of a Unix socket; raises ValueError."""
    if not _UNIX_MODE.fullmatch(text):
        raise ValueError('four octal digits in quotes such as "0660"')
    return text


def unix_group(text: str) -> str:
    """Check the name or the number of a group of the machine, "" for none; raises ValueError."""
    if not _UNIX_GROUP.fullmatch(text):
        raise ValueError('the name or number of a group of this machine such as "www-data"')
    return text


def group_name(text: str) -> str:
    """Check the name of a group; raises ValueError."""
    if not _GROUP_NAME.fullmatch(text):
        raise ValueError("a group name of 1 to 64 letters, digits or -_.+ without spaces")
    return text


def sub(text: str) -> str:
    """Check a Tailchat user's sub; raises ValueError."""
    if not _SUB.fullmatch(text):
        raise ValueError(SUBS)
    return text


def is_token_name(text: str) -> bool:
    """Whether a text is a valid name of a machine token, in the configuration or in a lock."""
    return _TOKEN_NAME.fullmatch(text) is not None


def is_person_name(text: str) -> bool:
    """Whether a text is a name as Tailchat shows it: nickname, "#" and digits."""
    return _PERSON_NAME.fullmatch(text) is not None


def is_sub(text: str) -> bool:
    """Whether a text is a valid sub, in the configuration or in a lock."""
    return _SUB.fullmatch(text) is not None


def token_name(text: str) -> str:
    """Check the name of a machine token; raises ValueError."""
    if not _TOKEN_NAME.fullmatch(text):
        raise ValueError(MACHINE)
    return text


def token_hash(text: str) -> str:
    """Check the hash of a machine token; raises ValueError."""
    if not _TOKEN_HASH.fullmatch(text):
        raise ValueError(HASH)
    return text


def audience(text: str) -> str:
    """Check the audience of a route's assertions (RFC 7519 section 4.1.3); raises ValueError."""
    if not _AUDIENCE.fullmatch(text):
        raise ValueError(AUDIENCE)
    return text


def client_id(text: str) -> str:
    """Check the client_id of the app; raises ValueError."""
    if not _CLIENT_ID.fullmatch(text):
        raise ValueError(_APP_ID)
    if is_placeholder(text):
        raise ValueError(f"{_APP_ID}; this one reads like a placeholder")
    return text


def scope(text: str) -> str:
    """Check the scope, which must contain `openid`.

    Tailchat: without it the login works and /open/me then answers 403.
    Raises ValueError, whose text says what is accepted.
    """
    if not _SCOPE.fullmatch(text) or syntax.OPENID not in text.split(" "):
        raise ValueError('words with single spaces between them, "openid" among them')
    return text


def via(text: str) -> str:
    """Check the pseudonym in Via (RFC 9110 section 7.6.3), "" for none; raises ValueError."""
    if not _VIA.fullmatch(text):
        raise ValueError(VIA)
    return text


def contact(text: str) -> str:
    """Check the contact text for visitors; raises ValueError."""
    if len(text) > _LONGEST_CONTACT or syntax.UNFIT_FOR_A_LINE.search(text):
        raise ValueError(f"one line of at most {_LONGEST_CONTACT} characters")
    return text


def allow_entry(text: str) -> str:
    """Check one entry of a route's allow list, but not that its group exists.

    Raises ValueError, whose text says what is accepted.
    """
    if text in (PUBLIC, SIGNED_IN):
        return text
    if _names_somebody(text):
        return text
    if text.startswith(TOKEN) and _TOKEN_NAME.fullmatch(text.removeprefix(TOKEN)):
        return text
    raise ValueError(ALLOW + did_you_mean(text, (PUBLIC, SIGNED_IN)))


def deny_entry(text: str) -> str:
    """Check one entry of a deny list, but not that its group exists.

    Raises ValueError, whose text says what is accepted.
    """
    if not _names_somebody(text):
        raise ValueError(DENY)
    return text


def person_entry(text: str) -> str:
    """Check one entry of a list of people, without tokens; raises ValueError as `deny_entry`."""
    if text.startswith(TOKEN) or not _names_somebody(text):
        raise ValueError(PERSONS)
    return text


def method(text: str) -> str:
    """Check a method that a route accepts; raises ValueError, whose text says what is accepted."""
    if text == CONNECT:
        raise ValueError(f"{METHOD}; {CONNECT} is for the proxy itself and never passes")
    if not _METHOD.fullmatch(text):
        raise ValueError(METHOD + did_you_mean(text, sorted(syntax.COMMON_METHODS)))
    return text


def allow(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Check an allow list as a whole; raises ValueError."""
    at_least_one(entries)
    if PUBLIC in entries and len(entries) > 1:
        raise ValueError('"public" alone, or a list without it')
    return entries


def _names_somebody(text: str) -> bool:
    shapes = ((GROUP, _GROUP_NAME), (SUB, _SUB), (TOKEN, _TOKEN_NAME))
    return any(
        text.startswith(kind) and shape.fullmatch(text.removeprefix(kind)) for kind, shape in shapes
    )


def at_least_one(values: _Many) -> _Many:
    """Refuse an empty list; raises ValueError."""
    if not len(values):
        raise ValueError("at least one entry")
    return values


def distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a list with a duplicate; raises ValueError."""
    if len(set(values)) < len(values):
        raise ValueError("each entry once")
    return values


def tls_pin(text: str) -> str:
    """Read the SHA-256 of a public key, with or without colons between its bytes.

    Raises ValueError, whose text says what is accepted.
    """
    kind, colon, digest = text.partition(":")
    digest = digest.replace(":", "").lower()
    if kind != "sha256" or not colon or re.fullmatch(syntax.SHA256_HEX, digest) is None:
        raise ValueError('"sha256:" and the 64 hex digits of the SHA-256 of a public key')
    return f"sha256:{digest}"


def is_tailchat_id(sub: str) -> bool:
    """Whether a sub has the form of Tailchat's subs."""
    return syntax.TAILCHAT_ID.fullmatch(sub) is not None


def no_tailchat_id(sub: str) -> str:
    """Return a warning about a sub that no user of Tailchat can have, "" for any other."""
    if is_tailchat_id(sub):
        return ""
    return f"{sub} {_NO_ID}{' in lower case' if is_tailchat_id(sub.lower()) else ''}"
