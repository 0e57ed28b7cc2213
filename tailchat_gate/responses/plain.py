"""Responses without a page: JSON, texts, redirects, and any response as bytes."""

from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from aiohttp import web

from tailchat_gate.access.browser_origin import REFUSING_SCRIPT
from tailchat_gate.access.policy import Rule, takes_tokens
from tailchat_gate.proxy.message.assertion import KEY_SET_MAX_AGE
from tailchat_gate.reasons import Reason
from tailchat_gate.request.authorization import TOKEN_FIELD, TokenWay
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.head import RequestHead
from tailchat_gate.request.intent import is_program

#: The challenge for which git, docker and WebDAV clients ask their user or credential store.
BASIC: Final = 'Basic realm="tailchat", charset="UTF-8"'
#: Clients that may be asked for a password: without credentials, or with a wrong password.
_WITH_PASSWORD: Final = frozenset((None, TokenWay.BASIC))

HSTS: Final = "Strict-Transport-Security"
#: The fields of all responses of the gate, of those that nobody may cache, and of JSON.
SERVER: Final = {"Server": "tailchat-gate"}
NO_STORE: Final = {**SERVER, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
JSON: Final = {
    **NO_STORE,
    "Content-Type": "application/json",
    "X-Content-Type-Options": "nosniff",
}
_SCRIPT: Final = {**JSON, "Content-Type": "text/javascript; charset=utf-8"}
#: The head of a response that lets a proxy pass a request, by its status.
_PASS: Final = {
    status: "".join(
        (
            f"HTTP/1.1 {status} {status.phrase}\r\n",
            *(f"{name}: {value}\r\n" for name, value in NO_STORE.items()),
        )
    ).encode("ascii")
    for status in (HTTPStatus.OK, HTTPStatus.ACCEPTED)
}
#: Connection, by whether the connection stays; needed if the version's default differs.
_CONNECTION: Final = (b"Connection: close\r\n", b"Connection: keep-alive\r\n")
_SENSITIVE: Final = frozenset((b"authorization", b"cookie", b"proxy-authorization", TOKEN_FIELD))


def asks_for_password(method: str, fields: FieldSection, rules: Sequence[Rule]) -> bool:
    """Whether to ask for a password (RFC 7617): only programs, as browsers would show a dialog.

    `rules` are those of the requested route.
    """
    if not takes_tokens(rules) or fields.token_way not in _WITH_PASSWORD:
        return False
    return is_program(method, fields.headers)


class PlainAnswers:
    """Makes responses that are the same for everybody; `clock` returns Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._dated = -1
        self._date_line = b""

    def json(self, body: bytes, *, headers: Mapping[str, str] | None = None) -> web.Response:
        """Return a JSON response that nobody may cache."""
        return web.Response(body=body, headers={**JSON, **(headers or {})})

    def key_set(self, body: bytes) -> web.Response:
        """Return a JSON Web Key Set, which anybody may cache for KEY_SET_MAX_AGE seconds."""
        headers = {
            **SERVER,
            "Content-Type": "application/jwk-set+json",
            "Cache-Control": f"public, max-age={KEY_SET_MAX_AGE}",
            "X-Content-Type-Options": "nosniff",
        }
        return web.Response(body=body, headers=headers)

    def worker_refused(self, context: RequestContext) -> web.Response:
        """Return a script that replaces a service worker whose scope has the gate's paths."""
        context.reason = Reason.WORKER_REFUSED
        return web.Response(body=REFUSING_SCRIPT, headers=_SCRIPT)

    def with_slash(self, context: RequestContext) -> web.Response:
        """Redirect to the requested path with a slash at its end.

        A tool that sees "/" for both would get its relative links resolved against the path above.
        """
        target = context.target
        return self.redirect(f"{target.path}/{target.query}", status=308)

    def text(self, text: str) -> web.Response:
        """Return a response in plain text that nobody may cache."""
        return web.Response(text=text, headers=NO_STORE)

    def identity(self, status: HTTPStatus, lines: bytes, head: RequestHead, *, keep: bool) -> bytes:
        """Return an empty forward-auth response with the identity header lines.

        `status` is 200 or 202; `keep`: the connection stays open after it.
        """
        closes = b"" if keep and not head.http10 else _CONNECTION[keep]
        return b"".join((_PASS[status], self._date(), lines, closes, b"Content-Length: 0\r\n\r\n"))

    def serialize(self, answer: web.Response, head: RequestHead, *, keep: bool) -> bytes:
        """Return a response as bytes; `keep`: the client's connection stays open after it."""
        body = answer.body if isinstance(answer.body, bytes) else b""
        fields = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        length = (
            b"" if answer.status == HTTPStatus.NO_CONTENT else b"Content-Length: %d\r\n" % len(body)
        )
        return b"".join(
            (
                f"HTTP/1.1 {answer.status} {answer.reason}\r\n{fields}".encode("ascii", "replace"),
                self._date(),
                length,
                b"" if keep and not head.http10 else _CONNECTION[keep],
                b"\r\n",
                b"" if head.method == "HEAD" else body,
            )
        )

    def final_hop(self, context: RequestContext, allowed: str) -> web.Response:
        """Answer OPTIONS or TRACE in a tool's place (RFC 9110 sections 7.6.2 and 9.3.8)."""
        if context.method != "TRACE":
            return web.Response(status=204, headers={**NO_STORE, "Allow": allowed})
        head = context.head
        lines = [b"TRACE %b HTTP/1.1\r\n" % head.target.raw]
        lines += [
            b"%b: %b\r\n" % (name, value)
            for name, value in head.fields.pairs
            if name.lower() not in _SENSITIVE
        ]
        headers = {**NO_STORE, "Content-Type": "message/http"}
        return web.Response(body=b"".join((*lines, b"\r\n")), headers=headers)

    def redirect(self, location: str, *, status: int = 302) -> web.Response:
        """Return a redirect that nobody may cache; `location` is ASCII."""
        return web.Response(status=status, headers={**NO_STORE, "Location": location})

    def _date(self) -> bytes:
        now = int(self._clock())
        if now != self._dated:
            self._dated = now
            self._date_line = f"Date: {formatdate(now, usegmt=True)}\r\n".encode("ascii")
        return self._date_line
