r"""The grammar of what the gate reads and writes: each rule spelled once, with its standard.

A name in capitals is the text of a pattern, to be put into others; a name with `_OCTETS` is the
same for bytes. CTL, VCHAR, TCHAR and the like go between the brackets of a character class. No
other module may spell a rule of this one (tests/house/test_syntax.py). Patterns that go into the
JSON Schema use only what ECMA-262 and Python read alike: no possessive quantifier, no `\Z`.
"""

# ruff: noqa: ERA001 - the rules of the standards are no code

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

#: Flags to match text in any case. Without re.ASCII a long s (U+017F) would match an "s".
ANY_CASE: Final = re.ASCII | re.IGNORECASE

# RFC 5234 appendix B.1
#     CTL   = %x00-1F / %x7F
#     VCHAR = %x21-7E
CTL: Final = r"\x00-\x1f\x7f"
VCHAR: Final = "!-~"
VCHAR_OCTETS: Final = VCHAR.encode("ascii")

# Unicode: the control characters above ASCII, the separators that break lines, and surrogates,
# which represent bytes that were not UTF-8 and cannot be encoded.
C1: Final = r"\x80-\x9f"
SEPARATORS: Final = r"\u2028\u2029"
SURROGATES: Final = r"\ud800-\udfff"
#: Characters that a single line of text must not contain when it is shown, logged or sent.
UNFIT_FOR_A_LINE: Final = re.compile(rf"[{CTL}{C1}{SEPARATORS}{SURROGATES}]")

# RFC 9110 section 5.6.2
#     tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|"
#           / "~" / DIGIT / ALPHA
#     token = 1*tchar
TCHAR: Final = "!#$%&'*+.^_`|~0-9A-Za-z-"
TCHAR_OCTETS: Final = TCHAR.encode("ascii")
TOKEN_OCTETS: Final = b"[%b]++" % TCHAR_OCTETS
#: A token in the configuration: the name of a header field or of a group.
SHORT_TOKEN: Final = f"[{TCHAR}]{{1,64}}"

# RFC 9110 section 7.6.3
#     pseudonym = token
# Here it may also be empty, for a gate that does not name itself.
PSEUDONYM: Final = f"[{TCHAR}]{{0,64}}"

# RFC 9110 section 7.8: protocol names are case-insensitive; the configuration has them lower-case.
#     protocol-name = token
PROTOCOL_NAME: Final = f"[{TCHAR.replace('A-Z', '')}]{{1,64}}"

# RFC 9110 section 9.1
#     method = token
# IANA's registry has none longer than 17 characters, and only capitals, digits, "-" and "_".
MAX_METHOD: Final = 32
METHOD: Final = re.compile(f"[{TCHAR}]{{1,{MAX_METHOD}}}")
REGISTERED_METHOD: Final = f"[A-Z][A-Z0-9_-]{{0,{MAX_METHOD - 1}}}"
#: Methods that every tool knows (RFC 9110 section 9.3, RFC 5789).
COMMON_METHODS: Final = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))
#: Methods that only read (RFC 9110 sections 9.3.1 and 9.3.2).
READ_METHODS: Final = frozenset(("GET", "HEAD"))
#: Methods that are not meant to change anything (RFC 9110 section 9.2.1).
SAFE_METHODS: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
#: Sending these twice has the same effect as sending them once (RFC 9110 section 9.2.2).
IDEMPOTENT_METHODS: Final = SAFE_METHODS | {"DELETE", "PUT"}

# RFC 9110 section 5.5, for a recipient: obsolete octets are accepted, controls are refused.
#     field-vchar   = VCHAR / obs-text
#     field-content = field-vchar [ 1*( SP / HTAB / field-vchar ) field-vchar ]
FIELD_VALUE_OCTETS: Final = rb"[^\x00-\x08\x0a-\x1f\x7f]*+"

# RFC 9110 section 8.6
#     Content-Length = 1*DIGIT
# 10^15 bytes are more than anybody sends, and too few to overflow any parser.
CONTENT_LENGTH: Final = re.compile(rb"0*([0-9]{1,15})")
#: Fields that route a message or say where it ends: they must not occur in trailers.
ROUTING_FIELDS: Final = frozenset((b"content-length", b"host", b"transfer-encoding"))

# RFC 9112 section 2.2: a line ends with CRLF. A CR at the very end may be half of one.
BARE_LINE_END_OCTETS: Final = rb"(?<!\r)\n|\r(?!\n|\Z)"

# RFC 9110 section 12.4.2
#     qvalue = ( "0" [ "." *3DIGIT ] ) / ( "1" [ "." *3"0" ] )
QVALUE: Final = r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)"

# RFC 9110 section 15: a final status, which a route may have the gate answer with.
OWN_STATUS: Final = "[2-5][0-9]{2}"

# RFC 3986 sections 2.3, 3.1 and 3.2
#     unreserved = ALPHA / DIGIT / "-" / "." / "_" / "~"
#     scheme     = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )
#     authority  = what is between "//" and the next of these three, or the end
UNRESERVED: Final = "A-Za-z0-9._~-"
SCHEME: Final = "[A-Za-z][A-Za-z0-9+.-]*"
AUTHORITY_ENDS: Final = "/?#"
#: The same for browsers, which read a backslash as a slash (URL Standard, authority state).
BROWSER_AUTHORITY_ENDS: Final = rf"{AUTHORITY_ENDS}\\"
PORT: Final = "[0-9]{1,5}"
MAX_PORT: Final = 65_535

# RFC 9110 sections 4.2.1 and 4.2.2
#     http-URI = "http" "://" authority path-abempty [ "?" query ]
HTTP_SCHEME: Final = "https?"
DEFAULT_PORTS: Final[Mapping[str, int]] = MappingProxyType({"http": 80, "https": 443})
#: An http(s) URL in three parts: its scheme, its authority, and all that follows.
_HTTP_URL: Final = f"({HTTP_SCHEME})://([^{AUTHORITY_ENDS}]*+)(.*+)"
HTTP_URL: Final = re.compile(_HTTP_URL, ANY_CASE | re.DOTALL)
HTTP_URL_OCTETS: Final = re.compile(_HTTP_URL.encode("ascii"), re.IGNORECASE | re.DOTALL)
#: The same for a JSON Schema, which has no flags: scheme and authority, without a user name.
SCHEMA_HTTP_HOST: Final = f"[Hh][Tt][Tt][Pp][Ss]?://[^{AUTHORITY_ENDS}@]+"

# RFC 8414 section 2: an issuer has no query and no fragment. It is compared unchanged.
ISSUER: Final = rf"{HTTP_SCHEME}://(?:(?![?#])[{VCHAR}])+"

# RFC 6454 section 4, with a host in ASCII, since browsers write other scripts in punycode. To be
# matched in any case. Its groups are scheme, host and port.
HTTP_ORIGIN: Final = rf"({HTTP_SCHEME})://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::({PORT}))?"

# RFC 3986 sections 3.3 and 5.2.4: "." and "..", which are removed from a path.
DOT_SEGMENT: Final = r"\.{1,2}(?:/|$)"
DOTS: Final = re.compile(f"/{DOT_SEGMENT}")
#: A segment that every reader of URLs reads alike: no escape, not empty, no dot segment.
PLAIN_SEGMENT: Final = f"/(?!{DOT_SEGMENT})[{UNRESERVED}]+"
PREFIX: Final = f"(?:{PLAIN_SEGMENT})+"
#: The path of a route: what pchar has but for "%", ";" and "*" (sections 3.3 and 3.5).
ROUTE_PATH: Final = f"(?:/|(?:/(?!{DOT_SEGMENT})[!$&'()+,=:@{UNRESERVED}]+)+/?)"
#: The path that a tile of the launcher opens, with or without a query (section 3.4).
LAUNCH: Final = rf"{ROUTE_PATH}(?:\?[!-\"$-~]*)?"
#: The absolute path of a file on this machine.
FILE: Final = f"/[^{CTL}]*[^/{CTL}]"
#: The absolute path of a directory, without empty segments.
DIRECTORY: Final = f"(?:/[^/{CTL}]+)+/?"

#: In front of a name: "*.example.com" covers every name below "example.com", by whole labels.
WILDCARD: Final = "*."

# RFC 6265bis section 4.1.3.2: only a host itself sets such a cookie, over TLS and for every path.
HOST_PREFIX: Final = "__Host-"

# RFC 4648 section 5, without padding
BASE64URL: Final = "A-Za-z0-9_-"
#: 32 bytes: the last character has two spare bits, which are 0.
BASE64URL_32_BYTES: Final = f"[{BASE64URL}]{{42}}[AEIMQUYcgkosw048]"
#: A SHA-256 in hexadecimal digits.
SHA256_HEX: Final = "[0-9a-f]{64}"
TOKEN_HASH: Final = f"sha256:{SHA256_HEX}"

# OpenID Connect Core section 2
#     sub: "It MUST NOT exceed 255 ASCII [RFC20] characters in length."
MAX_SUB: Final = 255
SUB: Final = f"[{VCHAR}]{{1,{MAX_SUB}}}"
#: Tailchat: a sub is a MongoDB id, as pages and logs show it.
TAILCHAT_ID: Final = re.compile("[0-9a-f]{24}")
# HTML Standard, "valid email address": RFC 5322 without quotes, comments and blanks, so that every
# tool reads an address alike. RFC 5321 section 4.5.3.1.3 limits its length.
MAX_EMAIL: Final = 254
_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
EMAIL: Final = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*")
#: The id of an app at Tailchat, and the audience of an assertion: visible ASCII, as a sub.
CLIENT_ID: Final = SUB
AUDIENCE: Final = f"[{VCHAR}]{{0,255}}"

# RFC 6749 section 3.3
#     scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
SCOPE: Final = r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*"
#: The scope that asks for the person's identity (OpenID Connect Core section 3.1.2.1).
OPENID: Final = "openid"
#: The scope that asks for a refresh token (OpenID Connect Core section 11).
OFFLINE_ACCESS: Final = "offline_access"

# The gate's own names. Labels appear in many logs and metrics, so they are plain.
ROUTE_NAME: Final = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
PLAIN_NAME: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

# RFC 6265bis section 4.1.1
#     cookie-name = token
# A plain name; one gate's session cookie must not have the name of another gate's login cookie or
# of the language cookie.
SESSION_COOKIE: Final = "tailchat_gate"
LOGIN_COOKIE: Final = "_login"
#: The same for all gates on a host: the language is the visitor's choice, whatever the gate.
LANGUAGE_COOKIE: Final = f"{SESSION_COOKIE}_language"
COOKIE_NAME: Final = f"(?!{LANGUAGE_COOKIE}$)(?!.*{LOGIN_COOKIE}(?:_|$)){PLAIN_NAME}"
#: The name of a session, as one sign-in makes it.
SESSION_ID: Final = re.compile(f"[{BASE64URL}]{{1,64}}")
#: A key of TOML that needs no quotes.
BARE_KEY: Final = re.compile("[A-Za-z0-9_-]{1,64}")
#: The same of any length.
BARE_KEYS: Final = f"[{BASE64URL}]+"

#: The User-Agent of the gate's own requests.
OWN_AGENT: Final = "tailchat-gate"
#: The path that the gate itself answers on every host, whatever `server.prefix` is.
PING: Final = "/ping"
#: Seconds by which the clocks of several workers, hosts and Tailchat may differ.
CLOCK_SKEW: Final = 60
#: Separators of JSON without white space.
COMPACT: Final = (",", ":")

_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
#: The other spellings of these two, and padding, become what no alphabet has.
_FROM_URL: Final = bytes.maketrans(b"-_+/=", b"+/\0\0\0")
#: The last characters without spare bits, after so many bytes of an incomplete group.
_LAST: Final = ("", "AQgw", "AEIMQUYcgkosw048")


def base64url(raw: bytes) -> str:
    """Write bytes in base64url without padding (RFC 4648 section 5)."""
    return b2a_base64(raw, newline=False).rstrip(b"=").translate(_TO_URL).decode("ascii")


def from_base64url(text: str) -> bytes:
    """Read the output of `base64url`; raises ValueError for every other spelling.

    Python's decoder also accepts spare bits, padding, `+` and `/`, which would give one value
    several spellings.
    """
    padded = text.encode("ascii").translate(_FROM_URL) + b"=" * (-len(text) % 4)
    raw = a2b_base64(padded, strict_mode=True)
    rest = len(raw) % 3
    if rest and text[-1] not in _LAST[rest]:
        raise ValueError("not base64url")
    return raw
