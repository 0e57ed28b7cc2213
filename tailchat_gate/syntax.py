r"""The grammar of what the gate reads and writes: each rule spelled once, with its standard.

A name in capitals is the text of a pattern, to be put into others; what ends in `_OCTETS` is the
same for bytes. CTL, VCHAR, TCHAR and the like go between the brackets of a character class. No
other module spells a rule of this one (tests/house/test_syntax.py). Patterns that go into the JSON
Schema keep to what ECMA-262 reads as Python does: no possessive quantifier, no `\Z`.
"""

# ruff: noqa: ERA001 - the rules of the standards are no code

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

#: Of text, where only ASCII letters have two cases: without ASCII a long s (U+017F) is an "s".
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
#: What no single line of text may hold that is shown, logged or sent.
UNFIT_FOR_A_LINE: Final = re.compile(rf"[{CTL}{C1}{SEPARATORS}{SURROGATES}]")

# RFC 9110 section 5.6.2
#     tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|"
#           / "~" / DIGIT / ALPHA
#     token = 1*tchar
TCHAR: Final = "!#$%&'*+.^_`|~0-9A-Za-z-"
TCHAR_OCTETS: Final = TCHAR.encode("ascii")
TOKEN_OCTETS: Final = b"[%b]++" % TCHAR_OCTETS
#: A token that an admin writes: the name of a field or of a group.
SHORT_TOKEN: Final = f"[{TCHAR}]{{1,64}}"

# RFC 9110 section 7.6.3
#     pseudonym = token
# Here or nothing, for a gate that does not name itself.
PSEUDONYM: Final = f"[{TCHAR}]{{0,64}}"

# RFC 9110 section 7.8: the names of protocols are compared in any case; here they are lower-case.
#     protocol-name = token
PROTOCOL_NAME: Final = f"[{TCHAR.replace('A-Z', '')}]{{1,64}}"

# RFC 9110 section 9.1
#     method = token
# IANA's registry has none of more than 17 letters, and none but in capitals, digits, "-" and "_".
MAX_METHOD: Final = 32
METHOD: Final = re.compile(f"[{TCHAR}]{{1,{MAX_METHOD}}}")
REGISTERED_METHOD: Final = f"[A-Z][A-Z0-9_-]{{0,{MAX_METHOD - 1}}}"
#: Methods that every tool tells apart (RFC 9110 section 9.3, RFC 5789).
COMMON_METHODS: Final = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))
#: Methods that fetch what is there (RFC 9110 sections 9.3.1 and 9.3.2).
READ_METHODS: Final = frozenset(("GET", "HEAD"))
#: Methods that are not meant to change anything (RFC 9110 section 9.2.1).
SAFE_METHODS: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
#: Sending these twice has the same effect as sending them once (RFC 9110 section 9.2.2).
IDEMPOTENT_METHODS: Final = SAFE_METHODS | {"DELETE", "PUT"}

# RFC 9110 section 5.5, as a recipient that takes obsolete octets and refuses controls
#     field-vchar   = VCHAR / obs-text
#     field-content = field-vchar [ 1*( SP / HTAB / field-vchar ) field-vchar ]
FIELD_VALUE_OCTETS: Final = rb"[^\x00-\x08\x0a-\x1f\x7f]*+"

# RFC 9110 section 8.6
#     Content-Length = 1*DIGIT
# 10^15 bytes are more than anybody sends, and less than what any parser overflows at.
CONTENT_LENGTH: Final = re.compile(rb"0*([0-9]{1,15})")
#: The fields that say where a message goes and where it ends: they belong in its head alone.
ROUTING_FIELDS: Final = frozenset((b"content-length", b"host", b"transfer-encoding"))

# RFC 9112 section 2.2: a line ends with CRLF. A CR at the very end may be half of one.
BARE_LINE_END_OCTETS: Final = rb"(?<!\r)\n|\r(?!\n|\Z)"

# RFC 9110 section 15: a final status, as an admin may let the gate itself answer with.
OWN_STATUS: Final = "[2-5][0-9]{2}"

# RFC 3986 sections 2.3, 3.1 and 3.2
#     unreserved = ALPHA / DIGIT / "-" / "." / "_" / "~"
#     scheme     = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )
#     authority  = what is between "//" and the next of these three, or the end
UNRESERVED: Final = "A-Za-z0-9._~-"
SCHEME: Final = "[A-Za-z][A-Za-z0-9+.-]*"
AUTHORITY_ENDS: Final = "/?#"
#: The same for browsers, which take a backslash for a slash (URL Standard, authority state).
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
#: The same for a JSON Schema, whose patterns know no flags, up to a host without user name.
SCHEMA_HTTP_HOST: Final = f"[Hh][Tt][Tt][Pp][Ss]?://[^{AUTHORITY_ENDS}@]+"

# RFC 8414 section 2: an issuer has no query and no fragment. It is compared unchanged.
ISSUER: Final = rf"{HTTP_SCHEME}://(?:(?![?#])[{VCHAR}])+"

# RFC 6454 section 4, with a host in ASCII: browsers write one in letters of another script in
# punycode. To be read in any case. Its groups are scheme, host and port.
HTTP_ORIGIN: Final = rf"({HTTP_SCHEME})://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::({PORT}))?"

# RFC 3986 sections 3.3 and 5.2.4: what removes itself, or its parent, from a path.
DOT_SEGMENT: Final = r"\.{1,2}(?:/|$)"
DOTS: Final = re.compile(f"/{DOT_SEGMENT}")
#: A segment that every reader of URLs reads alike: no escape, not empty, no dot segment.
PLAIN_SEGMENT: Final = f"/(?!{DOT_SEGMENT})[{UNRESERVED}]+"
PREFIX: Final = f"(?:{PLAIN_SEGMENT})+"
#: The path of a route: what pchar has but for "%", ";" and "*" (sections 3.3 and 3.5).
ROUTE_PATH: Final = f"(?:/|(?:/(?!{DOT_SEGMENT})[!$&'()+,=:@{UNRESERVED}]+)+/?)"
#: What a tile of the launcher opens: such a path, or one with a query (section 3.4).
LAUNCH: Final = rf"{ROUTE_PATH}(?:\?[!-\"$-~]*)?"
#: The path of a file on this machine, and of a directory or a file in its own one spelling.
FILE: Final = f"/[^{CTL}]*[^/{CTL}]"
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
# HTML Standard, "valid email address": what RFC 5322 has, without quotes, comments and blanks, so
# that every tool reads it alike. RFC 5321 section 4.5.3.1.3 limits it.
MAX_EMAIL: Final = 254
_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
EMAIL: Final = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*")
#: An app's id at Tailchat, and whom an assertion is for, are words in a field as a sub is.
CLIENT_ID: Final = SUB
AUDIENCE: Final = f"[{VCHAR}]{{0,255}}"

# RFC 6749 section 3.3
#     scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
SCOPE: Final = r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*"
#: The scope without which a token says nothing of a person (OpenID Connect Core section 3.1.2.1).
OPENID: Final = "openid"
#: The scope that a refresh token takes (OpenID Connect Core section 11).
OFFLINE_ACCESS: Final = "offline_access"

# The gate's own names. Labels appear in many logs and metrics, so they are plain.
ROUTE_NAME: Final = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
PLAIN_NAME: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

# RFC 6265bis section 4.1.1
#     cookie-name = token
# Of what any name may have; no gate's session may be named as another's login, or the language.
SESSION_COOKIE: Final = "tailchat_gate"
LOGIN_COOKIE: Final = "_login"
#: One name for all gates of a host, whatever their sessions are named: it is the visitor's choice.
LANGUAGE_COOKIE: Final = f"{SESSION_COOKIE}_language"
COOKIE_NAME: Final = f"(?!{LANGUAGE_COOKIE}$)(?!.*{LOGIN_COOKIE}(?:_|$)){PLAIN_NAME}"
#: The name of a session, as one sign-in makes it.
SESSION_ID: Final = re.compile(f"[{BASE64URL}]{{1,64}}")
#: A key of TOML that needs no quotes.
BARE_KEY: Final = re.compile("[A-Za-z0-9_-]{1,64}")
#: The same of any length.
BARE_KEYS: Final = f"[{BASE64URL}]+"

#: What the gate calls itself in requests of its own.
OWN_AGENT: Final = "tailchat-gate"
#: Answered by the gate itself on every host, whatever its prefix.
PING: Final = "/ping"
#: Seconds by which the clocks of several workers, hosts and Tailchat may differ.
CLOCK_SKEW: Final = 60
#: JSON in as few bytes as it takes.
COMPACT: Final = (",", ":")

_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")


def base64url(raw: bytes) -> str:
    """Write bytes in base64url without padding (RFC 4648 section 5)."""
    return b2a_base64(raw, newline=False).rstrip(b"=").translate(_TO_URL).decode("ascii")


def from_base64url(text: str) -> bytes:
    """Read what `base64url` writes; raises ValueError for every other spelling.

    Decoders take spare bits, padding, `+` and `/` too: one value must not have two spellings.
    """
    raw = a2b_base64(text.encode("ascii").translate(_FROM_URL) + b"=" * (-len(text) % 4))
    if base64url(raw) != text:
        raise ValueError("not base64url")
    return raw
