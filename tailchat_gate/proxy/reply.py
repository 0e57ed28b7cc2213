"""Reads an upstream's reply and writes it anew for the client; bytes in, bytes out, no socket."""

from enum import IntEnum
from http import HTTPStatus
from typing import Final, Protocol

import httptools

from tailchat_gate.proxy.headers import CRLF, HOP_BY_HOP, without

#: Of a reply's head; nginx and Node allow 8 to 16 KiB.
MAX_HEAD_BYTES: Final = 65_536
#: Replies before the final one (100, 102, 103); an upstream has no use for more.
MAX_INTERIM: Final = 16
_END_OF_CHUNKS: Final = b"0\r\n\r\n"
_MAX_KNOWN_NAMES: Final = 2048
_MAX_KNOWN_LENGTH: Final = 64


class _Action(IntEnum):
    KEEP = 0
    DROP = 1
    SET_COOKIE = 2
    CONTENT_LENGTH = 3
    TRANSFER_ENCODING = 4
    CONNECTION = 5
    UPGRADE = 6


# Names of their own, because an enum's attribute costs ten times a global and is read per field.
_KEEP, _DROP, _SET_COOKIE, _CONTENT_LENGTH, _TRANSFER_ENCODING, _CONNECTION, _UPGRADE = _Action


#: Options of Connection that name no field, and the field that frames the body.
_NEVER_LISTED: Final = frozenset((b"", b"close", b"content-length", b"keep-alive", b"upgrade"))
#: Statuses whose replies have no body, whatever their fields say (RFC 9112 section 6.3).
_BODILESS: Final = frozenset((HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED))
_ACTIONS: Final = {
    b"set-cookie": _SET_COOKIE,
    b"content-length": _CONTENT_LENGTH,
    b"transfer-encoding": _TRANSFER_ENCODING,
    b"connection": _CONNECTION,
    b"upgrade": _UPGRADE,
}


class BadReplyError(ValueError):
    """Bytes of an upstream that are no reply, or not one to trust."""


class CookieGuard(Protocol):
    """Knows the gate's own cookies."""

    def is_own(self, set_cookie: bytes) -> bool:
        """Tell whether a Set-Cookie value would replace a cookie of the gate."""


class ReplyNames:
    """What to do with each field name of a reply; remembered, because names repeat."""

    def __init__(self) -> None:
        self.known: Final[dict[bytes, _Action]] = {}

    def action(self, name: bytes) -> _Action:
        """Return the action for a field name as the upstream wrote it, and remember it."""
        lower = name.lower()
        action = _ACTIONS.get(lower, _DROP if lower in HOP_BY_HOP else _KEEP)
        if len(self.known) < _MAX_KNOWN_NAMES and len(name) <= _MAX_KNOWN_LENGTH:
            self.known[name] = action
        return action


class ReplyReader:
    """Turns the bytes of one connection's replies, one after another, into bytes for clients.

    The parser calls the `on_` methods, which collect; `feed` returns what they collected. After
    `complete` the next reply may `begin`, unless `dirty`: bytes came that nobody asked for.
    """

    __slots__ = (
        "_bytes_seen",
        "_chunk_to_client",
        "_chunked",
        "_cookies",
        "_extra_fields",
        "_has_length",
        "_http10",
        "_interim",
        "_is_head",
        "_known",
        "_listed",
        "_names",
        "_out",
        "_parser",
        "_pieces",
        "_reason",
        "_upgrade",
        "body_bytes",
        "complete",
        "dirty",
        "head_done",
        "keep_client",
        "leftover",
        "started",
        "status",
        "stays",
        "switched",
        "until_close",
    )

    def __init__(self, names: ReplyNames, cookies: CookieGuard) -> None:
        self._names = names
        self._known = names.known
        self._cookies = cookies
        self._parser = httptools.HttpResponseParser(self)
        self._chunked = self._has_length = False
        self.dirty = False
        self.leftover = b""
        self.begin(is_head=False, http10=False, keep_alive=True, upgrade=False, extra_fields=b"")

    def begin(
        self, *, is_head: bool, http10: bool, keep_alive: bool, upgrade: bool, extra_fields: bytes
    ) -> None:
        """Expect the reply to a request.

        `is_head`: its method is HEAD. `http10`, `keep_alive`: the client's version, and whether
        its connection stays. `upgrade`: it asks to switch protocols. `extra_fields` are header
        lines to add to the reply.
        """
        self._is_head = is_head
        self._http10 = http10
        self._upgrade = upgrade
        self._extra_fields = extra_fields
        self._out: list[bytes] = []
        self._interim = self._bytes_seen = 0
        self._chunk_to_client = False
        self._reset_head()
        self.keep_client = keep_alive
        self.status = self.body_bytes = 0
        self.started = self.head_done = self.complete = self.switched = False
        self.until_close = self.stays = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes of the upstream; return the pieces to write to the client.

        Raises BadReplyError; nothing that this call read is to be relayed then.
        """
        self.started = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switch:
            self._switch(data[switch.args[0] :])
        except httptools.HttpParserError as error:
            if not self.complete:
                raise BadReplyError("not a reply") from error
            self.dirty = True
        if not self.head_done and not self.switched:
            self._bytes_seen += len(data)
            if self._bytes_seen > MAX_HEAD_BYTES:
                raise BadReplyError("a head that is too long")
        if self.complete and self._is_head:
            # The parser cannot know that a reply to HEAD has no body.
            self._parser = httptools.HttpResponseParser(self)
        pieces, self._out = self._out, []
        return pieces

    def end(self) -> list[bytes]:
        """Hear that the upstream closed; return the last pieces.

        Raises BadReplyError where the reply is not whole (RFC 9112 section 8).
        """
        if self.complete:
            return []
        if not self.until_close:
            raise BadReplyError("a reply that is cut off")
        self.complete = True
        return [_END_OF_CHUNKS] if self._chunk_to_client else []

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Notice a second reply behind the first: nobody asked for it."""
        if self.complete:
            self.dirty = True

    def on_status(self, reason: bytes) -> None:
        """Collect the reason phrase."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field of the head; trailers are dropped (RFC 9110 section 6.5.1)."""
        if self.head_done:
            return
        action = self._known.get(name)
        if action is None:
            action = self._names.action(name)
        if action is _KEEP or self._passes(action, value):
            self._pieces += (name, b": ", value, CRLF)

    def _passes(self, action: _Action, value: bytes) -> bool:
        """Note what a field says of the reply's framing; return whether it is passed on."""
        if action is _CONTENT_LENGTH:
            self._has_length = True
            return True
        if action is _SET_COOKIE:
            return not self._cookies.is_own(value)
        if action is _TRANSFER_ENCODING:
            if value.strip().lower() != b"chunked" or self._chunked:
                raise BadReplyError("a transfer coding that the gate did not offer")
            self._chunked = True
        elif action is _CONNECTION:
            self._listed += value.lower().split(b",")
        return action is _UPGRADE and self._upgrade

    def on_headers_complete(self) -> None:
        """Write the head for the client."""
        if self.head_done:
            return
        status = self._parser.get_status_code()
        if status < HTTPStatus.OK:
            self._write_interim(status)
            return
        self.status = status
        # Asked here, because the parser forgets it when the message is complete.
        self.stays = self._parser.should_keep_alive()
        self.head_done = True
        self._write_head(status)

    def on_body(self, body: bytes) -> None:
        """Relay a part of the body."""
        if self.complete:
            self.dirty = True
            return
        self.body_bytes += len(body)
        if self._chunk_to_client:
            self._out += (b"%x\r\n" % len(body), body, CRLF)
        else:
            self._out.append(body)

    def on_message_complete(self) -> None:
        """End the reply; an interim one is not the end."""
        if self.head_done and not self.complete:
            if self._chunk_to_client:
                self._out.append(_END_OF_CHUNKS)
            self.complete = True

    # The head.

    def _reset_head(self) -> None:
        self._pieces: list[bytes] = []
        self._listed: list[bytes] = []
        self._reason = b""
        self._chunked = self._has_length = False

    def _fields(self) -> list[bytes]:
        listed = {option.strip() for option in self._listed} - _NEVER_LISTED
        return without(self._pieces, listed) if listed else self._pieces

    def _write_interim(self, status: int) -> None:
        self._interim += 1
        if status == HTTPStatus.SWITCHING_PROTOCOLS:
            if not self._upgrade or not self._parser.should_upgrade():
                raise BadReplyError("a protocol switch that nobody asked for")
            self.status = status
            return
        if self._interim > MAX_INTERIM:
            raise BadReplyError("too many interim replies")
        if not self._http10:
            self._out += (b"HTTP/1.1 %d %b\r\n" % (status, self._reason), *self._fields(), CRLF)
        self._bytes_seen = 0
        self._reset_head()

    def _write_head(self, status: int) -> None:
        """Write status line, fields and framing (RFC 9112 section 6.3) for the client."""
        out = self._out
        out.append(b"HTTP/1.1 %d %b\r\n" % (status, self._reason))
        out += self._fields()
        if self._is_head or status in _BODILESS:
            self.complete = self._is_head
        elif not self._has_length:
            self.until_close = not self._chunked
            if self._http10:
                self.keep_client = False
            else:
                self._chunk_to_client = True
                out.append(b"Transfer-Encoding: chunked\r\n")
        if self._extra_fields:
            out.append(self._extra_fields)
        if not self.keep_client:
            out.append(b"Connection: close\r\n")
        elif self._http10:
            out.append(b"Connection: keep-alive\r\n")
        out.append(CRLF)

    def _switch(self, leftover: bytes) -> None:
        if self.head_done or self.status != HTTPStatus.SWITCHING_PROTOCOLS:
            raise BadReplyError("a protocol switch that nobody asked for")
        line = b"HTTP/1.1 101 %b\r\nConnection: Upgrade\r\n" % (
            self._reason or b"Switching Protocols"
        )
        self._out += (line, *self._fields(), self._extra_fields, CRLF)
        self.leftover = leftover
        self.switched = True
