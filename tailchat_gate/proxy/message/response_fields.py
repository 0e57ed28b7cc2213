"""Which fields of a response reach the client, and with which values."""

import re
from typing import Final, Protocol

from tailchat_gate.config.model import RouteSettings
from tailchat_gate.config.values.address import HttpAddress, upstream_address
from tailchat_gate.proxy.message.response_lines import Line, LineAction
from tailchat_gate.syntax import BROWSER_AUTHORITY_ENDS, DEFAULT_PORTS, HOST_PREFIX, HTTP_SCHEME

# Globals: see reasons.py.
_SET_COOKIE: Final = LineAction.SET_COOKIE
_EDIT: Final = LineAction.EDIT
_STREAM: Final = LineAction.STREAM
_WORKER_SCOPE: Final = LineAction.WORKER_SCOPE


class FieldEditor(Protocol):
    """Rewrites fields of a response, if a route asks for it."""

    def location(self, value: bytes, visitor: bytes) -> bytes:
        """Return the Location or Content-Location to pass on, for a visitor of that origin."""

    def refresh(self, value: bytes, visitor: bytes) -> bytes:
        """Return the Refresh to pass on."""

    def set_cookie(self, value: bytes) -> bytes:
        """Return the Set-Cookie to pass on."""


class Expected(Protocol):
    """The inputs of a response's fields: its request, and what the gate adds.

    `is_head`: the request's method is HEAD. `http10`, `keep_alive`: the client's version, and
    whether its connection stays. `extra_fields` are header lines to add.
    """

    is_head: bool
    http10: bool
    keep_alive: bool
    extra_fields: bytes

    @property
    def upgrade(self) -> bytes:
        """The protocol to switch to, b"" for none."""

    @property
    def takes_trailers(self) -> bool:
        """Whether trailers are read."""

    @property
    def editor(self) -> FieldEditor | None:
        """Rewrites fields of the response, None if none is rewritten."""

    @property
    def origin(self) -> bytes:
        """The origin that the visitor sees, b"" if it is unknown."""

    @property
    def passed_fields(self) -> frozenset[bytes]:
        """Lower-case names of fields that pass although they affect more than the tool."""

    def keeps_out(self, set_cookie: bytes) -> bool:
        """Whether a Set-Cookie value would replace another party's cookie."""

    def may_widen(self, scope: bytes) -> bool:
        """Whether a value of Service-Worker-Allowed is passed on."""

    def note_stream(self) -> None:
        """The response lasts as long as the client reads it."""


def pass_on(line: Line, expected: Expected) -> bytes:
    """Return the line to send for a field that depends on the route, b"" for none."""
    name = line.sent.partition(b":")[0]
    editor = expected.editor
    if line.action is _SET_COOKIE:
        if expected.keeps_out(line.value):
            return b""
        return b"Set-Cookie: " + editor.set_cookie(line.value) if editor else line.sent
    if line.action is _EDIT:
        return _edited(line, name, editor, expected.origin) if editor else line.sent
    if line.action is _STREAM:
        expected.note_stream()
        return line.sent
    if line.action is _WORKER_SCOPE:
        return line.sent if expected.may_widen(line.value) else b""
    return line.sent if name.lower() in expected.passed_fields else b""


def _edited(line: Line, name: bytes, editor: FieldEditor, origin: bytes) -> bytes:
    edit = editor.refresh if name.lower() == b"refresh" else editor.location
    return name + b": " + edit(line.value, origin)


def without_length(lines: list[bytes]) -> list[bytes]:
    """Return a response's lines without Content-Length (RFC 9110 section 8.6)."""
    return [line for line in lines if not line.lower().startswith(b"content-length:")]


#: A URL with a host, also "//host": its scheme, its authority, and the rest.
_ABSOLUTE: Final = re.compile(
    f"(?:({HTTP_SCHEME}):)?//([^{BROWSER_AUTHORITY_ENDS}]*)(.*)".encode("ascii"),
    re.DOTALL | re.IGNORECASE,
)
#: A Refresh as browsers read it: the time, an optional "url=", an optional quote, the URL.
_REFRESH: Final = re.compile(
    rb"([ ]*+[0-9.]++(?:[ ]*+[;,]|[ ])[ ]*+(?:url[ ]*+=[ ]*+)?+)([\"']?+)(.*)",
    re.DOTALL | re.IGNORECASE,
)
_DEFAULT_PORT: Final = re.compile(
    rb":(?:%b)?\Z" % "|".join(map(str, DEFAULT_PORTS.values())).encode("ascii")
)
#: A cookie with such a name must have the path "/".
_HOST_PREFIX: Final = HOST_PREFIX.lower().encode("ascii")


class ResponseRewriter:
    """Rewrites fields of the responses on one route."""

    def __init__(self, settings: RouteSettings) -> None:
        self._locations = settings.rewrite_location
        self._cookies = settings.rewrite_cookies
        self._outside = settings.path.encode("ascii").rstrip(b"/")
        inside = settings.path if settings.upstream_path is None else settings.upstream_path
        self._inside = inside.encode("ascii").rstrip(b"/")
        addresses = map(upstream_address, settings.backends)
        named = [
            str(address.url.authority) for address in addresses if isinstance(address, HttpAddress)
        ]
        if settings.upstream_host:
            named.append(settings.upstream_host)
        self._tool = frozenset(_authority(name.encode("ascii")) for name in named)

    def refresh(self, value: bytes, visitor: bytes = b"") -> bytes:
        """Return a Refresh whose URL is as `location` returns it."""
        match = _REFRESH.fullmatch(value)
        if match is None:
            return value
        before, quote, rest = match.groups()
        address, end, behind = rest.partition(quote) if quote else (rest, b"", b"")
        return before + quote + self.location(address, visitor) + end + behind

    def location(self, value: bytes, visitor: bytes = b"") -> bytes:
        """Return a Location: a path on the gate if it names the tool, else unchanged.

        The path needs no origin: browsers resolve it against the request (RFC 9110 section 10.2.2).
        `visitor` is the origin that the visitor sees, which a tool may use in place of its own.
        """
        # Browsers ignore tabs, so "/", tab, "/host" would be a URL of another host.
        if not self._locations or b"\t" in value:
            return value
        match = _ABSOLUTE.fullmatch(value)
        if match is None:
            is_path = value[:1] == b"/" and value[1:2] not in {b"/", b"\\"}
            return self._outward(value) if is_path else value
        scheme, authority, rest = match[1], _authority(match[2]), match[3]
        # A path that begins with two slashes would name another host.
        path = b"/" + rest.lstrip(b"/\\")
        if authority in self._tool:
            return self._outward(path)
        seen, _, host = visitor.partition(b"://")
        if not host or authority != _authority(host):
            return value
        # A tool that knows its public origin may also know its public path.
        path = path if self._is_outside(path) else self._outward(path)
        if scheme is not None and scheme.lower() == b"https" and seen == b"http":
            # A redirect to https: a path alone would stay on http.
            return value[: len(value) - len(rest)] + path
        return path

    def set_cookie(self, value: bytes) -> bytes:
        """Return a Set-Cookie without Domain, and with its Path as the browser sees it."""
        if not self._cookies:
            return value
        pair, *attributes = value.split(b";")
        parts = [pair]
        for attribute in attributes:
            name, _, text = attribute.partition(b"=")
            lower = name.strip().lower()
            if lower == b"domain":
                continue
            if lower == b"path" and not pair.strip().lower().startswith(_HOST_PREFIX):
                # Without the last slash, or the cookie would not be sent for the route's own path.
                parts.append(b" Path=" + (self._outward(text.strip()).rstrip(b"/") or b"/"))
            else:
                parts.append(attribute)
        return b";".join(parts)

    def _is_outside(self, path: bytes) -> bool:
        """Whether a path begins with the route's own."""
        outside = self._outside
        rest = path[len(outside) :]
        return bool(outside) and path.startswith(outside) and rest[:1] in {b"", b"/", b"?", b"#"}

    def _outward(self, path: bytes) -> bytes:
        """Return the public path for a path of the tool; unchanged if outside of the route."""
        inside = self._inside
        rest = path[len(inside) :]
        if not path.startswith(inside) or rest[:1] not in {b"", b"/", b"?", b"#"}:
            return path
        if self._outside or not inside:
            return self._outside + rest or b"/"
        # Two slashes after the tool's own path must not become the start of a host.
        return b"/" + rest.lstrip(b"/\\")


def rewriter_of(settings: RouteSettings) -> ResponseRewriter | None:
    """Return the rewriter of a route's responses, None if its settings ask for none."""
    if settings.rewrite_location or settings.rewrite_cookies:
        return ResponseRewriter(settings)
    return None


def _authority(raw: bytes) -> bytes:
    return _DEFAULT_PORT.sub(b"", raw.lower())
