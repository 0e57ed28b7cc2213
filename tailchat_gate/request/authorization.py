"""Credentials in a request: bearer and Basic tokens, and schemes that bind a connection."""

import re
from base64 import b64decode
from binascii import Error
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, NamedTuple

from tailchat_gate.reasons import RefusedError
from tailchat_gate.syntax import BASE64URL, TCHAR_OCTETS, TOKEN_OCTETS

#: Schemes that authenticate single requests: IANA's registry without Negotiate, and others that
#: tools use. Any other scheme, such as NTLM, Negotiate or Kerberos, may authenticate the whole
#: connection (RFC 4559 section 6), so that the server takes every request on it for that person's.
PER_REQUEST: Final = frozenset(
    (
        *(b"basic", b"bearer", b"concealed", b"digest", b"dpop", b"gnap", b"hoba", b"mutual"),
        *(b"oauth", b"privatetoken", b"scram-sha-1", b"scram-sha-256", b"vapid"),
        *(b"apikey", b"aws", b"aws4-ecdsa-p256-sha256", b"aws4-hmac-sha256", b"bot", b"emby"),
        *(b"googlelogin", b"hmac", b"hmac-sha256", b"jwt", b"key", b"mediabrowser", b"sharedkey"),
        *(b"sharedkeylite", b"signature", b"splunk", b"sso-key", b"tailchatgate", b"token"),
        *(b"wsse", b"x-basic", b"xbasic"),
    )
)
_SCHEME: Final = re.compile(rb"[ \t,]*+([%b]*+)" % TCHAR_OCTETS)
#: A quoted string; an unclosed one extends to the end, because trying again at each escaped quote
#: would take quadratic time.
_QUOTED: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(")?')
#: A token at the start of a list element that is no parameter: the name of a scheme.
_CHALLENGED: Final = re.compile(
    rb"(?:^|,)[ \t]*+(%b)(?![%b]|[ \t]*+=)" % (TOKEN_OCTETS, TCHAR_OCTETS)
)

#: The start of every token of the gate, by which it can be recognised anywhere.
PREFIX: Final = "tg_"
#: The field of the gate's own for a token, in lower case.
TOKEN_FIELD: Final = b"x-tailchat-token"
_START: Final = PREFIX.encode("ascii")
_OCTETS: Final = BASE64URL.encode("ascii")
_TOKEN: Final = rb"%b[%b]+" % (_START, _OCTETS)
_WHOLE: Final = rb"%b[%b]{43}" % (_START, _OCTETS)
#: Wider than the grammar, because a malformed token of the gate must not reach a tool either, nor a
#: whole one of another scheme or none, as cargo sends it.
_MEANT: Final = re.compile(
    rb"(?i:\bbearer)[ \t\"':=]*%b|(?<![%b])%b(?![%b])" % (_START, _OCTETS, _WHOLE, _OCTETS)
)
_PRESENTED: Final = re.compile(rb"(?i:bearer) +(" + _TOKEN + rb")")
_BASIC: Final = re.compile(rb"(?i:\bbasic)[ \t\"':,=]*+([A-Za-z0-9+/_-]++)")
_PRESENTED_BASIC: Final = re.compile(rb"(?i:basic) +([A-Za-z0-9+/]+={0,2})")
_TOKEN_ALONE: Final = re.compile(_TOKEN)
#: A token as the user name, as git servers accept theirs. It must be whole, since a tool's user may
#: have a name with the same start.
_AS_USER: Final = re.compile(_WHOLE)
#: Characters that may have been copied with a token.
_AROUND: Final = b" \t\"'"
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


def credentials_bind(values: Iterable[bytes]) -> bool:
    """Whether credentials in Authorization values may authenticate a connection."""
    return any(_scheme(value) not in PER_REQUEST for value in values if value)


def challenge_binds(value: bytes) -> bool:
    """Whether a WWW-Authenticate value asks for credentials that may authenticate a connection."""
    plain = _QUOTED.sub(lambda match: b"" if match[1] else b'"', value)
    # An unclosed quote may hide a challenge from some parsers.
    return b'"' in plain or any(
        name.lower() not in PER_REQUEST for name in _CHALLENGED.findall(plain)
    )


def _scheme(value: bytes) -> bytes:
    match = _SCHEME.match(value)
    return match[1].lower() if match else b""


class TokenWay(Enum):
    """The way in which a token is presented."""

    BEARER = "bearer"
    BASIC = "basic"
    FIELD = "field"


class Presented(NamedTuple):
    """A token of the gate, b"" if it is malformed, and how it was presented."""

    token: bytes
    way: TokenWay


def read_token(authorization: Sequence[bytes], own: Sequence[bytes]) -> Presented | None:
    """Return the token that a request presents, None if there is none.

    `authorization` and `own` are the values of Authorization and TOKEN_FIELD. Raises RefusedError
    for a second token, and for another credential in the same field, because it is unknown which of
    them is meant, and which a tool would read.
    """
    tokens = [
        Presented(token, way)
        for way, token in (
            (TokenWay.BEARER, read_bearer(authorization)),
            (TokenWay.BASIC, _read_basic(authorization)),
            (TokenWay.FIELD, _read_field(own)),
        )
        if token is not None
    ]
    if len(tokens) > 1:
        raise RefusedError("more than one token of the gate")
    return tokens[0] if tokens else None


def read_bearer(values: Sequence[bytes]) -> bytes | None:
    """Return the gate's token in Authorization with the scheme Bearer, b"" if it is malformed.

    A whole token of another scheme counts as malformed. Returns None for any other credentials,
    which are the tool's business. Does not check whether the token is valid. Raises RefusedError
    for a token beside another Authorization field.
    """
    if not any(map(_MEANT.search, values)):
        return None
    _check_alone(values)
    match = _PRESENTED.fullmatch(values[0])
    return match[1] if match else b""


def _read_basic(values: Sequence[bytes]) -> bytes | None:
    """Return the gate's token in Authorization with the scheme Basic; see read_bearer.

    It is the password, with any user name, or the user name, with any password but another token.
    """
    if not any(_is_meant(text) for value in values for text in _BASIC.findall(value)):
        return None
    _check_alone(values)
    match = _PRESENTED_BASIC.fullmatch(values[0])
    # Even a strict b64decode accepts excess padding.
    if match is None or len(match[1]) % 4:
        return b""
    try:
        user, colon, password = b64decode(match[1], validate=True).partition(b":")
    except Error:
        return b""
    if _AS_USER.fullmatch(user) and colon:
        if not _begins_as_token(password):
            return user
        if password != user:
            raise RefusedError("a token of the gate as user name, and another as password")
    return password if _TOKEN_ALONE.fullmatch(password) else b""


def _is_meant(text: bytes) -> bool:
    """Whether Basic credentials have a token for the most lenient decoder."""
    whole = text.translate(_URL_SAFE)
    # A group of one character decodes to nothing (RFC 4648 section 4).
    whole = whole[: len(whole) - (len(whole) % 4 == 1)]
    user, _, password = b64decode(whole + b"=" * (-len(whole) % 4)).partition(b":")
    return _begins_as_token(password) or _AS_USER.match(user.lstrip(_AROUND)) is not None


def _begins_as_token(password: bytes) -> bool:
    return password.lstrip(_AROUND).startswith(_START)


def _read_field(values: Sequence[bytes]) -> bytes | None:
    """Return the token in the gate's own field, None for other values, which are dropped anyway."""
    if not any(_START in value for value in values):
        return None
    if len(values) > 1:
        raise RefusedError("more than one X-Tailchat-Token, one of them with a token of the gate")
    return values[0] if _TOKEN_ALONE.fullmatch(values[0]) else b""


def _check_alone(values: Sequence[bytes]) -> None:
    if len(values) > 1:
        raise RefusedError("more than one Authorization, one of them with a token of the gate")
