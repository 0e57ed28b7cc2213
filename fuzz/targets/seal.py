"""Seals: nothing opens but what was sealed here, under its purpose, in its one spelling."""

from collections.abc import Mapping

from fuzz.cutting import steered
from fuzz.target import Target
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.cookie_fields import CookieNames
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sessions.session_cookie import Lifetimes, SessionCookie
from tailchat_gate.identity.sessions.ticket import Ticket

_FIRST, _SECOND = b"fuzzing-secret-number-one-is-32-b", b"fuzzing-secret-number-two-is-32-b"
_BOTH = KeyRing((_FIRST, _SECOND), "session")
_OTHER_PURPOSE = KeyRing((_FIRST, _SECOND), "login")
_RINGS: Mapping[bytes, KeyRing] = {
    _FIRST: KeyRing((_FIRST,), "session"),
    _SECOND: KeyRing((_SECOND,), "session"),
}
_LONG = b'{"a": 1}' * 3
#: Sealed once, because every seal has a nonce of its own: the secret, and what is in it.
_SEALED: Mapping[str, tuple[bytes, bytes]] = {
    "AQTKEhzte481tgUqLH6MWJ60ybvUMWHA3giv9ahw_NujiPvp": (_FIRST, b"one"),
    "AQTKEhwUuwaxrCGylznajgtUp5U8R9h5iT2VNt3r8aL2A2CKwX8HGqBxsR0LApU85eKp2hWSZyn5": (
        _FIRST,
        _LONG,
    ),
    "ATJX0OKaNmfiUYqrNYkacciLZ-gsSGsRY2hYXChO-2HRe-XY": (_SECOND, b"one"),
    "ATJX0OJ7DWva6UY4W50drVyXjUl3ZyHGxrFW4RsKbicnG9i-EM3DMmb7tD_hlxsRZraPIu5krLwz": (
        _SECOND,
        _LONG,
    ),
}
_TOKENS = tuple(_SEALED)
_COOKIE = SessionCookie(_BOTH, CookieNames.for_origin("https://a"), Lifetimes(1, 0), lambda: 0)
#: Bytes of a record that a cookie can hold.
_SMALL = 2048


def check(data: bytes) -> None:
    """Open a text as it is, and put into a token; read it as a record too.

    One byte chooses the token, one the place in it, one how many characters go.
    """
    steer, rest = steered(data, 3)
    _check_token(rest.decode("utf-8", "surrogateescape"))
    text = rest[:8].decode("latin-1")
    token = _TOKENS[steer[0] % len(_TOKENS)]
    place = steer[1] % (len(token) + 1)
    _check_token(token[:place] + text + token[place + steer[2] % 9 :])
    _check_record(rest)


def _check_token(token: str) -> None:
    known = _SEALED.get(token)
    assert _BOTH.open(token) == (known[1] if known else None)
    assert _OTHER_PURPOSE.open(token) is None
    for secret, ring in _RINGS.items():
        assert ring.open(token) == (known[1] if known and known[0] == secret else None)


def _check_record(data: bytes) -> None:
    """What is no record is None; a record is the same written and read again.

    A cookie with it opens as the same, or as a ticket, which is no record.
    """
    record = SessionRecord.from_bytes(data)
    opened = _COOKIE.open(_BOTH.seal(data)) if len(data) <= _SMALL else record
    assert record is None if isinstance(opened, Ticket) else opened == record
    if record is None:
        return
    assert all(isinstance(value, str | int) for value in record)
    assert record == SessionRecord.from_fields(record._asdict())
    try:
        written = record.to_bytes()
    except UnicodeEncodeError:
        # A lone surrogate: no profile has one.
        return
    assert SessionRecord.from_bytes(written) == record


TARGET = Target(
    check,
    parsers=(
        "identity.seal",
        *(f"identity.sessions.{module}" for module in ("record", "session_cookie", "ticket")),
    ),
    seeds=(
        *(b"\0\0\0" + token.encode() for token in _TOKENS),
        b"\1\x10\1A",
        b"\2\x2f\1Z",
        b"\3\x40\0=",
        b'\0\0\0["s","a","\\u661f","","",1,2,""]',
        b'\0\0\0["s","a",1,2,"",false,3]',
        b'\0\0\0["s","a","\\u661f","","",1,2,"",3,"a1",4,"r1",true,5]',
    ),
    words=(
        *(b"=", b"==", b"-", b"_", b"+", b"/", b"\n", b" ", b"AQ", b"ATJX0OI", b"AQTKEhw", b"\xff"),
        *(b'["s"', b'"",', b"1", b"1.0", b"true", b"null", b"[]", b'"\\ud800"', b"{"),
    ),
)
