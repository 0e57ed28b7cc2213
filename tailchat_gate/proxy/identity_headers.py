"""The header fields that tell an upstream who the visitor is; every value is hostile input."""

import re
from base64 import b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from tailchat_gate.access.routes import Route
from tailchat_gate.identity.authenticate import Visitor
from tailchat_gate.identity.session import SessionRecord

#: Of a value as it stands on the wire; servers commonly allow 8 KiB for a whole head.
MAX_VALUE_BYTES: Final = 2048
#: No route has this name.
_NO_ROUTE: Final = ""
_SAFE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FIELD: Final = re.compile(r"\{\{|\}\}|\{(sub|nickname|discriminator|avatar|groups)\}")


def _percent(value: str) -> bytes:
    encoded = quote(value, safe=_SAFE)
    if len(encoded) > MAX_VALUE_BYTES:
        # A cut inside an escape or a character would leave what nobody can decode.
        kept = value
        while len(encoded) > MAX_VALUE_BYTES:
            kept = kept[: len(kept) * MAX_VALUE_BYTES // len(encoded)]
            encoded = quote(kept, safe=_SAFE)
    return encoded.encode("ascii")


def _utf8(value: str) -> bytes:
    return value.encode()[:MAX_VALUE_BYTES].decode("utf-8", "ignore").encode()


def _rfc2047(value: str) -> bytes:
    """Return RFC 2047 encoded-words, each at most 75 bytes and of whole characters."""
    if value.isascii() and "=?" not in value:
        return value.encode("ascii")[:MAX_VALUE_BYTES]
    words: list[bytes] = []
    chunk = b""
    for character in value:
        octets = character.encode()
        if len(chunk) + len(octets) > 45:  # noqa: PLR2004 - 45 bytes are 60 in base64, + 12 = 72
            words.append(chunk)
            chunk = b""
        chunk += octets
    words.append(chunk)
    encoded = [b"=?UTF-8?B?" + b64encode(word) + b"?=" for word in words]
    return b" ".join(encoded[: MAX_VALUE_BYTES // 76])


_ENCODERS: Final[Mapping[str, Callable[[str], bytes]]] = MappingProxyType(
    {"percent": _percent, "utf8": _utf8, "rfc2047": _rfc2047}
)


def encode_value(value: str, encoding: str) -> bytes:
    """Return a value as the bytes of a header field.

    `encoding` is "percent" (percent-encoded UTF-8 for all outside visible ASCII and for "%"),
    "utf8" or "rfc2047". Controls and lone surrogates are removed, the length is capped, spaces
    at the ends go. b"" where nothing is left.
    """
    return _ENCODERS[encoding](_CONTROLS.sub("", value).strip()).strip()


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return a header template with its {fields} filled in; "{{" and "}}" are plain braces."""

    def substitute(match: re.Match[str]) -> str:
        return values[match[1]] if match[1] else match[0][0]

    return _FIELD.sub(substitute, template)


class IdentityHeaders:
    """Makes the identity header lines of a visitor on a route, once a session and route."""

    def __init__(self, groups: Mapping[str, Collection[str]]) -> None:
        self._groups_of: dict[str, list[str]] = {}
        for group in sorted(groups):
            for sub in groups[group]:
                self._groups_of.setdefault(sub, []).append(group)

    def groups_of(self, sub: str) -> list[str]:
        """Return the names of the groups that list `sub`, sorted."""
        return self._groups_of.get(sub, [])

    def fields(self, visitor: Visitor, route: Route) -> bytes:
        """Return the header lines that tell the route's upstream who the visitor is."""
        lines = visitor.identity_headers.get(route.name)
        if lines is None:
            lines = visitor.identity_headers[route.name] = identity_fields(
                visitor.record,
                self.groups_of(visitor.record.sub),
                encoding=route.settings.header_encoding,
                templates=route.settings.headers,
            )
        return lines

    def plain_fields(self, visitor: Visitor) -> bytes:
        """Return the header lines for a proxy that asks; no route is known there."""
        lines = visitor.identity_headers.get(_NO_ROUTE)
        if lines is None:
            groups = self.groups_of(visitor.record.sub)
            lines = visitor.identity_headers[_NO_ROUTE] = identity_fields(visitor.record, groups)
        return lines


def identity_fields(
    record: SessionRecord,
    groups: Sequence[str],
    *,
    encoding: str = "percent",
    templates: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """Return the identity header lines for one visitor.

    A value that is missing is an absent field. `templates` are a route's own headers.
    """
    values = {
        "sub": record.sub,
        "nickname": record.nickname,
        "discriminator": record.discriminator,
        "avatar": record.avatar,
        "groups": ",".join(groups),
    }
    named = {f"X-Tailchat-{name.capitalize()}": value for name, value in values.items()}
    named.update((name, fill(template, values)) for name, template in templates.items())
    lines: list[bytes] = []
    for name, value in named.items():
        encoded = encode_value(value, encoding)
        if encoded:
            lines.append(name.encode("ascii") + b": " + encoded + b"\r\n")
    return b"".join(lines)
