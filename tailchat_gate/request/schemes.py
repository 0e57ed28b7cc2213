"""Which credentials and challenges make a whole connection one person's; pure."""

import re
from collections.abc import Iterable
from typing import Final

from tailchat_gate.syntax import TCHAR_OCTETS, TOKEN_OCTETS

#: Schemes whose credentials are in every request that they are meant for: those of IANA's registry
#: less Negotiate, and those that tools have in use. A scheme that is not among them, such as NTLM,
#: Negotiate or Kerberos, may authenticate the connection (RFC 4559 section 6), after which the
#: server takes whatever comes on it for that person's.
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
#: A quoted string; one that nobody closed is taken to the end, and not looked at again from each
#: escaped quote in it, which would take time that grows with its square.
_QUOTED: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(")?')
#: A word at the start of a list element that is no parameter: the name of a scheme.
_CHALLENGED: Final = re.compile(
    rb"(?:^|,)[ \t]*+(%b)(?![%b]|[ \t]*+=)" % (TOKEN_OCTETS, TCHAR_OCTETS)
)


def credentials_bind(values: Iterable[bytes]) -> bool:
    """Tell whether credentials in Authorization values may authenticate a connection."""
    return any(_scheme(value) not in PER_REQUEST for value in values if value)


def challenge_binds(value: bytes) -> bool:
    """Tell whether a WWW-Authenticate value asks for credentials that may."""
    plain = _QUOTED.sub(lambda match: b"" if match[1] else b'"', value)
    # A quote that nobody closed may hide a challenge from one reader and not from another.
    return b'"' in plain or any(
        name.lower() not in PER_REQUEST for name in _CHALLENGED.findall(plain)
    )


def _scheme(value: bytes) -> bytes:
    match = _SCHEME.match(value)
    return match[1].lower() if match else b""
