"""The header fields that name the visitor to an upstream; every value is hostile input."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from tailchat_gate.access.policy import NO_MEMBERS, Groups
from tailchat_gate.access.routes import Route
from tailchat_gate.bounded import keep_in
from tailchat_gate.config.model import RouteSettings
from tailchat_gate.config.values.group import Group
from tailchat_gate.config.values.header import CLIENT, EMAIL, fields, fill
from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.identity.machine_tokens import Machine
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.people.groups.memberships import Members
from tailchat_gate.proxy.message.assertion import Assertions
from tailchat_gate.syntax import UNFIT_FOR_A_LINE

#: The limit of an encoded value; servers commonly allow 8 KiB for a whole head.
MAX_VALUE_BYTES: Final = 2048
#: The most routes whose assertions are cached for one visitor.
_MAX_ASSERTIONS: Final = 16
_MAX_PLAIN: Final = 64
#: The values that name a visitor, in the order of their fields.
_VALUES: Final = ("sub", "nickname", "discriminator", "avatar", "groups")
_LINES: Final = tuple(f"X-Tailchat-{name.capitalize()}: ".encode("ascii") for name in _VALUES)
_NO_TEMPLATES: Final[Mapping[str, str]] = MappingProxyType({})
#: Every template about the client contains this: a quick test before parsing one.
_CLIENT: Final = f"{{{CLIENT}}}"
_SAFE: Final = frozenset(range(0x20, 0x7F)) - frozenset(b"%")
_ESCAPES: Final = tuple(b"%c" % code if code in _SAFE else b"%%%02X" % code for code in range(256))


def _percent(value: str) -> bytes:
    if value.isascii() and "%" not in value:
        return value[:MAX_VALUE_BYTES].encode("ascii")
    encoded = _escaped(value)
    if len(encoded) > MAX_VALUE_BYTES:
        # A cut inside an escape or a character could not be decoded.
        shortened = value
        while len(encoded) > MAX_VALUE_BYTES:
            shortened = shortened[: len(shortened) * MAX_VALUE_BYTES // len(encoded)]
            encoded = _escaped(shortened)
    return encoded


def _escaped(value: str) -> bytes:
    return b"".join([_ESCAPES[octet] for octet in value.encode()])


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
    "utf8" or "rfc2047". Control characters, lone surrogates and outer spaces are removed, and the
    length is capped. Returns b"" if nothing is left.
    """
    if not value.isprintable():
        value = UNFIT_FOR_A_LINE.sub("", value)
    return _ENCODERS[encoding](value.strip()).strip()


class IdentityHeaders:
    """Makes the identity header lines of a visitor on a route, and caches them on the visitor.

    With `assertions` they end with a signed assertion, renewed shortly before it expires.
    `members` knows who is in Tailchat's groups; each new answer of Tailchat applies at once.
    """

    def __init__(
        self,
        groups: Groups,
        assertions: Assertions | None = None,
        members: Members = NO_MEMBERS,
    ) -> None:
        self._assertions = assertions
        self._members = members
        self._groups_of: dict[str, list[str]] = {}
        for name in sorted(groups):
            for sub in Group(groups[name]).subs:
                self._groups_of.setdefault(sub, []).append(name)

    def groups_of(self, sub: str) -> list[str]:
        """Return the names of the groups that `sub` is in, sorted."""
        listed, by_tailchat = self._groups_of.get(sub, []), self._members.of(sub)
        return sorted(by_tailchat.union(listed)) if by_tailchat else listed

    def fields(self, visitor: Visitor | Machine, route: Route) -> bytes:
        """Return the header lines that name the visitor to the route's upstream."""
        if visitor.groups_of is not self._members.groups_of:
            visitor.groups_of = self._members.groups_of
            visitor.identity_headers.clear()
            visitor.assertions.clear()
        if self._assertions is not None and route.settings.assertion:
            return self._signed(visitor, route, self._assertions)
        lines = visitor.identity_headers.get(route.name)
        return self._plain(visitor, route) if lines is None else lines

    def _signed(self, visitor: Visitor | Machine, route: Route, assertions: Assertions) -> bytes:
        """Return the lines with an assertion for the route."""
        name = route.name
        cached = visitor.assertions.get(name)
        # Not from another configuration, which has other groups, keys and audiences, and not from
        # before the clock was set back, as its `iat` would be in the future.
        if cached is not None and cached[0] is self and cached[1] <= assertions.clock() < cached[2]:
            return cached[3]
        groups = [] if isinstance(visitor, Machine) else self.groups_of(visitor.record.sub)
        minted = assertions.mint(visitor, groups, route.settings.audience or name)
        lines = self._plain(visitor, route) + minted.line
        made = (self, minted.made_at, minted.renew_at, lines)
        keep_in(visitor.assertions, name, made, _MAX_ASSERTIONS)
        return lines

    def _plain(self, visitor: Visitor | Machine, route: Route) -> bytes:
        """Make the lines without an assertion, and cache them."""
        encoding, templates = route.settings.header_encoding, route.settings.headers
        if isinstance(visitor, Machine):
            lines = machine_fields(visitor.name, encoding=encoding, templates=templates)
        else:
            groups = self.groups_of(visitor.record.sub)
            lines = identity_fields(
                visitor.record,
                groups,
                encoding=encoding,
                templates=templates,
                email=visitor.email,
                tells_email=route.settings.email,
            )
        keep_in(visitor.identity_headers, route.name, lines, _MAX_PLAIN)
        return lines


def machine_fields(
    name: str, *, encoding: str = "percent", templates: Mapping[str, str] = _NO_TEMPLATES
) -> bytes:
    """Return the identity header lines for the machine with the token `name`.

    Of a route's own headers it gets only those without placeholders, because a machine has no
    values for them.
    """
    lines = [b"X-Tailchat-Token: %b\r\n" % name.encode("ascii")]
    for header, template in templates.items():
        if not fields(template):
            value = encode_value(fill(template, {}), encoding)
            lines.append(b"%b: %b\r\n" % (header.encode("ascii"), value))
    return b"".join(lines)


def client_fields(settings: RouteSettings, address: str) -> bytes:
    """Return the lines of a route's own headers that contain the client's address.

    They are sent with every request, also an anonymous one; b"" if `address` is "".
    """
    if not address or not settings.headers:
        return b""
    lines = (
        b"%b: %b\r\n"
        % (
            name.encode("ascii"),
            encode_value(fill(text, {CLIENT: address}), settings.header_encoding),
        )
        for name, text in settings.headers.items()
        if _CLIENT in text and CLIENT in fields(text)
    )
    return b"".join(lines)


def identity_fields(
    record: SessionRecord,
    groups: Sequence[str],
    *,
    encoding: str = "percent",
    templates: Mapping[str, str] = _NO_TEMPLATES,
    email: str = "",
    tells_email: bool = False,
) -> bytes:
    """Return the identity header lines for one visitor.

    A missing value makes no field. `templates` are a route's own headers; those with the e-mail
    address are left out if it is unknown. `tells_email`: the tool also gets X-Tailchat-Email.
    """
    values = (
        *(record.sub, record.nickname, record.discriminator, record.avatar),
        ",".join(groups),
    )
    named = [*zip(_LINES, values, strict=True)]
    if tells_email:
        named.append((b"X-Tailchat-Email: ", email))
    if templates:
        filled = {**dict(zip(_VALUES, values, strict=True)), EMAIL: email}
        left_out = {CLIENT} if email else {CLIENT, EMAIL}
        named += (
            (f"{name}: ".encode("ascii"), fill(template, filled))
            for name, template in templates.items()
            if not left_out & fields(template)
        )
    lines: list[bytes] = []
    for line, value in named:
        if value and (encoded := encode_value(value, encoding)):
            lines += (line, encoded, b"\r\n")
    return b"".join(lines)
