"""Which fields of a response reach the client, and with which values."""

from typing import Final, Protocol

from tailchat_gate.proxy.message.response_lines import Action, Line

# Globals: see reasons.py.
_SET_COOKIE: Final = Action.SET_COOKIE
_EDIT: Final = Action.EDIT
_WORKER_SCOPE: Final = Action.WORKER_SCOPE


class FieldEditor(Protocol):
    """Rewrites fields of a response, where a route asks for it."""

    def location(self, value: bytes, visitor: bytes) -> bytes:
        """Return the Location or Content-Location to pass on, for a visitor of that origin."""

    def refresh(self, value: bytes, visitor: bytes) -> bytes:
        """Return the Refresh to pass on."""

    def set_cookie(self, value: bytes) -> bytes:
        """Return the Set-Cookie to pass on."""


class Expected(Protocol):
    """What a response depends on: its request, and what the gate adds.

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
        """Rewrites fields of the response, None where none is rewritten."""

    @property
    def origin(self) -> bytes:
        """The origin that the visitor sees, b"" where none is known."""

    @property
    def passed_fields(self) -> frozenset[bytes]:
        """Lower-case names of fields that pass although they affect more than the tool."""

    def keeps_out(self, set_cookie: bytes) -> bool:
        """Whether a Set-Cookie value would replace another party's cookie."""

    def may_widen(self, scope: bytes) -> bool:
        """Whether a value of Service-Worker-Allowed is passed on."""


def pass_on(line: Line, expected: Expected) -> bytes:
    """Return what to send for a field that depends on the route, b"" for nothing."""
    name = line.sent.partition(b":")[0]
    editor = expected.editor
    if line.action is _SET_COOKIE:
        if expected.keeps_out(line.value):
            return b""
        return b"Set-Cookie: " + editor.set_cookie(line.value) if editor else line.sent
    if line.action is _EDIT:
        return _edited(line, name, editor, expected.origin) if editor else line.sent
    if line.action is _WORKER_SCOPE:
        return line.sent if expected.may_widen(line.value) else b""
    return line.sent if name.lower() in expected.passed_fields else b""


def _edited(line: Line, name: bytes, editor: FieldEditor, origin: bytes) -> bytes:
    edit = editor.refresh if name.lower() == b"refresh" else editor.location
    return name + b": " + edit(line.value, origin)


def without_length(lines: list[bytes]) -> list[bytes]:
    """Return a response's lines without Content-Length (RFC 9110 section 8.6)."""
    return [line for line in lines if not line.lower().startswith(b"content-length:")]
