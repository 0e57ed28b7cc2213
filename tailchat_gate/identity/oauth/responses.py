"""Reads Tailchat's responses: tokens, profiles, and errors, which may quote a secret; pure."""

import base64
import html
import re
import string
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_plus

from tailchat_gate.identity.oauth.id_token import JsonObject
from tailchat_gate.identity.oauth.login import LoginRefused, short_text
from tailchat_gate.reasons import Reason
from tailchat_gate.syntax import (
    ANY_CASE,
    AUTHORITY_ENDS,
    C1,
    CTL,
    HTTP_ORIGIN,
    SUB,
    SURROGATES,
    VCHAR,
)

MAX_NICKNAME: Final = 128
MAX_DISCRIMINATOR: Final = 16
MAX_AVATAR: Final = 1024

# Characters read of a text: leading invisible ones are dropped before it is cut.
_LONGEST_READ: Final = 131_072
_ZWJ: Final = "\u200d"
_SUB: Final = re.compile(SUB)
# Invisible or line-breaking, yet of a visible category: separators, joiners and blank letters.
_BLANKS: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2028\u2029\u3164\uffa0")
# A joiner joins emoji and Indic letters; beside ASCII, or at an end, it only disguises.
_STRAY_ZWJ: Final = re.compile(f"(?<![^\x00-\x7f]){_ZWJ}|{_ZWJ}(?![^\x00-\x7f])")
# U+3000 is the last character that is a space. A joiner has nothing to join at an end.
_EDGES: Final = _ZWJ + "".join(char for char in map(chr, range(0x3001)) if char.isspace())
_SKIN_TONES: Final = frozenset("\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")
_ABSOLUTE: Final = re.compile(f"{HTTP_ORIGIN}(?:[{AUTHORITY_ENDS}].*)?", ANY_CASE)
#: What is not escaped, besides letters, digits and "_.-~".
_KEPT_IN_URL: Final = "!#$%&'()*+,/:;=?@[]~"
_AS_IS: Final = _KEPT_IN_URL + string.ascii_letters + string.digits + "_.-"
_NOT_IN_URL: Final = re.compile(rf"[ \\{CTL}{C1}{SURROGATES}]")


class ProfileError(Exception):
    """The response names no usable user; `reason` says why, without quoting it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Profile(NamedTuple):
    """A Tailchat user; "" for a field without a usable value. Authorize on `sub` alone."""

    sub: str
    nickname: str = ""
    discriminator: str = ""
    avatar: str = ""


def profile_from_userinfo(data: object, *, api_url: str) -> Profile:
    """Return the profile in a response of `/open/me`; every field of it is hostile input.

    `data`: the parsed JSON. `api_url`: replaces `{BACKEND}` in an avatar.
    Raises ProfileError if `sub` is not 1 to 255 characters of visible ASCII
    (Tailchat: 24 hex digits). The other fields never refuse a user: a missing key, null, ""
    and a number all give "" (Tailchat: nickname and avatar may be any string of any length).
    """
    if not isinstance(data, Mapping):
        raise ProfileError("not an object")
    sub = data.get("sub")
    if not isinstance(sub, str):
        raise ProfileError("no sub")
    if _SUB.fullmatch(sub) is None:
        raise ProfileError("unusable sub")
    return Profile(
        sub=sub,
        nickname=_text(data.get("nickname"), MAX_NICKNAME),
        discriminator=_text(data.get("discriminator"), MAX_DISCRIMINATOR),
        avatar=_avatar(data.get("avatar"), api_url),
    )


def _text(value: object, cap: int) -> str:
    """Return `value` without what breaks lines or disguises text, at most `cap` characters."""
    if not isinstance(value, str):
        return ""
    # Tailchat: a nickname has any length, and every character costs time.
    text = value[:_LONGEST_READ]
    if text.isprintable() and _BLANKS.isdisjoint(text):
        # No control, surrogate or format character, of which a joiner is one.
        return _cut(text.strip(_EDGES), cap)
    visible = "".join(char for char in text if _is_visible(char))
    joined = _STRAY_ZWJ.sub("", re.sub(f"{_ZWJ}{{2,}}", _ZWJ, visible))
    return _cut(joined.strip(_EDGES), cap)


def _is_visible(char: str) -> bool:
    """Whether a character stays: no control, surrogate, format character or blank letter."""
    if char == _ZWJ:
        return True
    return char not in _BLANKS and unicodedata.category(char) not in {"Cc", "Cf", "Cs"}


def _cut(text: str, cap: int) -> str:
    """Return the start of `text`, without splitting a sequence of joined characters."""
    if len(text) <= cap:
        return text
    end = cap
    while end > 0 and (text[end - 1] == _ZWJ or _extends(text[end])):
        end -= 1
    # One sequence is longer than `cap`: cut it.
    return text[: end or cap].rstrip(_EDGES)


def _extends(char: str) -> bool:
    """Whether a character belongs to the one before: joiner, mark, variation, skin tone."""
    return char == _ZWJ or char in _SKIN_TONES or unicodedata.category(char) in {"Mn", "Mc", "Me"}


def _avatar(value: object, api_url: str) -> str:
    """Return an absolute http(s) URL in visible ASCII, or ""."""
    if not isinstance(value, str):
        return ""
    # Tailchat: its own clients replace the first placeholder only.
    url = value.replace("{BACKEND}", api_url, 1)
    if len(url) > MAX_AVATAR or _NOT_IN_URL.search(url) or _ABSOLUTE.fullmatch(url) is None:
        return ""
    ascii_url = quote(url, safe=_KEPT_IN_URL) if url.strip(_AS_IS) else url
    return ascii_url if len(ascii_url) <= MAX_AVATAR else ""


#: Characters of a text that are checked; no later one may be shown.
MAX_TEXT: Final = 4096

# Limits for nested encodings: their depth, and the number of decoded texts.
_DEPTH: Final = 4
_MAX_READINGS: Final = 256
#: A part of a secret of this length counts as the secret.
_WINDOW: Final = 16
_BASE64: Final = re.compile("[A-Za-z0-9+/_-]{6,}")
_BASE32: Final = re.compile("[A-Z2-7]{10,}|[a-z2-7]{10,}")
_HEX: Final = re.compile("[0-9A-Fa-f]{12,}")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|u\{([0-9A-Fa-f]{1,5})\})")
_LEGIBLE: Final = re.compile(f"[{VCHAR}]{{4}}".encode("ascii"))

_SHORTEST_REST, _REST, _LONGEST_REST = 1, 30, 300

# Errors of the back channel that the operator must fix (RFC 6749 5.2; RFC 6750 3.1). Tailchat: one
# invalid entry of the app causes the last two on every call, `/me` of live sessions too.
_GATE_FAULTS: Final = frozenset(
    {
        *("invalid_client", "unauthorized_client", "invalid_request", "invalid_scope"),
        *("unsupported_grant_type", "insufficient_scope"),
        *("invalid_redirect_uri", "invalid_client_metadata"),
    }
)
# Responses which say that a token is revoked or expired.
_WITHDRAWN: Final = frozenset(
    {("recheck", 401, "invalid_token"), ("refresh", 400, "invalid_grant")}
)

# The token goes into a header; b64token (RFC 6750 2.1) is narrower still.
_TOKEN: Final = re.compile(f"[{VCHAR}]{{1,4096}}")
_LONGEST: Final = 365 * 86_400


def quotes_any(text: str, secrets: Iterable[str]) -> bool:
    """Whether a text quotes one of `secrets`, or a long part of one.

    It undoes percent-encoding, base64, base64url, base32, hexadecimal digits and the escapes of
    JSON and HTML, also nested, and drops invisible characters. A text with too many decodings
    counts as one that quotes a secret.
    """
    wanted = {part for secret in secrets for part in _parts(secret)}
    readings = {text[:MAX_TEXT]}
    latest = readings
    for _ in range(_DEPTH):
        latest = {decoded for reading in latest for decoded in _decoded(reading)} - readings
        readings = readings | latest
        if len(readings) > _MAX_READINGS:
            return True
    return any(part in reading for reading in readings for part in wanted)


def _parts(secret: str) -> Iterator[str]:
    """Yield the parts that reveal a secret: a short one itself, or each stretch of a long one."""
    for start in range(max(1, len(secret) - _WINDOW + 1)):
        if part := secret[start : start + _WINDOW]:
            yield part


def _decoded(text: str) -> Iterator[str]:
    yield "".join(char for char in text if char.isprintable())
    yield "".join(char for char in text if char.isprintable() and not char.isspace())
    if "%" in text or "+" in text:
        yield unquote_plus(text, "latin-1")
    if "\\" in text:
        yield _ESCAPE.sub(lambda escape: chr(int(escape[1] or escape[2] or escape[3], 16)), text)
        yield text.replace("\\", "")
    if "&" in text:
        yield html.unescape(text)
    for raw in _unpacked(text):
        if _LEGIBLE.search(raw):
            yield raw.decode("latin-1")


def _unpacked(text: str) -> Iterator[bytes]:
    """Yield the bytes that stretches of a text encode."""
    for stretch in _BASE64.findall(text):
        plain = stretch.replace("-", "+").replace("_", "/")
        for start in range(4):
            part = plain[start:]
            whole = part[: len(part) - (len(part) % 4 == 1)]
            yield base64.b64decode(whole + "=" * (-len(whole) % 4))
    for stretch in _HEX.findall(text):
        for start in range(2):
            part = stretch[start:]
            yield bytes.fromhex(part[: len(part) // 2 * 2])
    for stretch in _BASE32.findall(text):
        for start in range(8):
            part = stretch.upper()[start:]
            # Five bits a character: a group of eight cannot end after one, three or six.
            whole = part[: len(part) - (len(part) % 8 in (1, 3, 6))]
            yield base64.b32decode(whole + "=" * (-len(whole) % 8))


def broken(call: str, status: int = HTTPStatus.OK, problem: str = "") -> LoginRefused:
    """Return the refusal for an unusable response."""
    detail = {"call": call, "status": str(status), "problem": problem}
    return LoginRefused(Reason.TAILCHAT_BROKEN, detail)


def busy(call: str, retry_after: str) -> LoginRefused:
    """Return the refusal for a 429 (RFC 6585 section 4), with the seconds to wait.

    `retry_after` is the raw field; without a number of seconds a default is used, and a number out
    of range is limited.
    """
    wanted = int(retry_after) if re.fullmatch("[0-9]{1,9}", retry_after) else _REST
    seconds = min(max(wanted, _SHORTEST_REST), _LONGEST_REST)
    return LoginRefused(Reason.TAILCHAT_BUSY, {"call": call, "retry_after": str(seconds)})


def refused(call: str, status: int, answer: JsonObject, secrets: Sequence[str]) -> LoginRefused:
    """Return the refusal for an error response, including its texts if they quote no secret.

    `secrets` are those of the request, which a server may echo.
    """
    error, description = str(answer.get("error", "")), answer.get("error_description")
    detail = {"call": call, "status": str(status)}
    for name, text in (("error", error), ("description", description)):
        if isinstance(text, str) and not quotes_any(text, secrets):
            detail[name] = short_text(text, 64 if name == "error" else 200)
    return LoginRefused(_reason(call, status, error), detail)


def _reason(call: str, status: int, error: str) -> Reason:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Reason.TAILCHAT_BROKEN
    if error in _GATE_FAULTS:
        return Reason.GATE_NOT_ACCEPTED
    if (call, status, error) in _WITHDRAWN:
        return Reason.SESSION_REVOKED
    if (call, error) == ("token", "invalid_grant"):
        return Reason.LOGIN_CODE_REFUSED
    return Reason.TAILCHAT_BROKEN


@dataclass(frozen=True, slots=True)
class TokenSet:
    """The tokens for a code or a refresh token; "" for one that did not come.

    `expires_at`: Unix second from which the access token is invalid, 0 if the response did not
    say.
    """

    access_token: str = field(repr=False)
    id_token: str = field(repr=False, default="")
    refresh_token: str = field(repr=False, default="")
    expires_at: int = 0


def read_tokens(call: str, answer: JsonObject, *, now: float) -> TokenSet:
    """Return the tokens in a 200 response, without the id_token; `now` is Unix seconds.

    Raises LoginRefused if there is no usable bearer access token. An unusable optional member
    counts as missing.
    """
    kind, access, refresh, seconds = (
        answer.get(name) for name in ("token_type", "access_token", "refresh_token", "expires_in")
    )
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise broken(call, problem="token_type is not Bearer")
    if not isinstance(access, str) or _TOKEN.fullmatch(access) is None:
        raise broken(call, problem="no usable access_token")
    return TokenSet(
        access,
        refresh_token=refresh if isinstance(refresh, str) and _TOKEN.fullmatch(refresh) else "",
        expires_at=(int(now) + seconds if type(seconds) is int and 0 < seconds <= _LONGEST else 0),
    )
