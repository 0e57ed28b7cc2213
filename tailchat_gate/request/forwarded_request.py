"""The original request about which a forward-auth proxy asks, read from its subrequest; pure.

Three dialects are read. Traefik, Caddy and most nginx configurations send X-Forwarded-Method,
-Host and -Uri; nginx's ingress controller sends X-Original-Method and -URL; Envoy sends the
original request itself, its path appended to that of the handler.
"""

from typing import Final

from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.head import RequestHead
from tailchat_gate.request.readings import readings
from tailchat_gate.request.target import Host, Original, Target, read_host, read_target
from tailchat_gate.syntax import HTTP_URL, METHOD

#: With this field a proxy says that its tool gets the visitor's fields as in the subrequest.
UNSTRIPPED: Final = b"x-tailchat-unstripped"
#: The fields that a proxy adds to the subrequest.
QUESTION_FIELDS: Final = frozenset(
    (
        *(UNSTRIPPED, b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"),
        *(b"x-forwarded-method", b"x-forwarded-uri", b"x-original-method", b"x-original-uri"),
        b"x-original-url",
    )
)
_CONNECT: Final = "CONNECT"


def original_of(head: RequestHead, question: str) -> Original | None:
    """Return the original request, None if the subrequest names none.

    `question` is the path of the handler. The caller must make sure that a trusted proxy sent it.
    Raises RefusedError for a malformed one, and if two dialects name different requests, of which
    one would be the visitor's.
    """
    raw = head.target.raw
    start = f"{question}/".encode("ascii")
    if raw.startswith(start):
        _check_inside(head.target.path, question)
        host = _host_as_sent(head.fields)
        target = read_target(raw[len(start) - 1 :].decode("ascii"), host)
        websocket = _is_websocket(head.method, head.fields)
        return Original(head.method, host, target, websocket, as_sent=True)
    known = head.fields.original
    if known is None:
        known = head.fields.original = (_from_fields(head.fields),)
    return known[0]


def _check_inside(path: str, question: str) -> None:
    """Raise RefusedError for a path that some reading leads out of the handler's.

    A proxy that keeps visitors from the handler may read "/oauth2/auth/..%2Fuserinfo" as
    "/oauth2/userinfo" and pass it on unchanged. A page could then read the response's identity
    headers.
    """
    start = f"{question}/"
    if not all(reading.startswith(start) for reading in readings(path)):
        raise RefusedError("a path that leads out of the question's")


def _host_as_sent(fields: FieldSection) -> Host:
    """Return the Host of a subrequest that is the original request itself.

    A visitor chose it, and a proxy need not route by it. If the proxy writes X-Forwarded-Host, both
    must name the same host.
    """
    named = _one(fields, b"x-forwarded-host")
    if named and read_host([named]).name != fields.host.name:
        raise RefusedError("a Host and an X-Forwarded-Host that name different hosts")
    return fields.host


def _from_fields(fields: FieldSection) -> Original | None:
    forwarded = _forwarded(fields)
    original = _rewritten(fields)
    if forwarded is None or original is None:
        return forwarded or original
    if forwarded != original:
        raise RefusedError("two original requests, which differ")
    return forwarded


def _forwarded(fields: FieldSection) -> Original | None:
    uri = _one(fields, b"x-forwarded-uri")
    if not uri:
        return None
    named = _one(fields, b"x-forwarded-host")
    host = read_host([named]) if named else fields.host
    method, target = _method(fields, b"x-forwarded-method"), read_target(uri, host)
    return _original(method, host, target, fields)


def _rewritten(fields: FieldSection) -> Original | None:
    url, uri = _one(fields, b"x-original-url"), _one(fields, b"x-original-uri")
    if url and uri:
        raise RefusedError("an original address twice")
    host = fields.host
    match = HTTP_URL.fullmatch(url)
    if match is not None:
        host = read_host([match[2]])
    address = url or uri
    if not address:
        return None
    method, target = _method(fields, b"x-original-method"), read_target(address, host)
    return _original(method, host, target, fields, by_nginx=True)


def _original(
    method: str, host: Host, target: Target, fields: FieldSection, *, by_nginx: bool = False
) -> Original:
    unstripped = bool(fields.values(UNSTRIPPED))
    return Original(
        method,
        host,
        target,
        _is_websocket(method, fields),
        unstripped=unstripped,
        # nginx is the only proxy that cannot drop names by their start.
        by_nginx=by_nginx or unstripped,
    )


def _is_websocket(method: str, fields: FieldSection) -> bool:
    """Whether a WebSocket is requested; over HTTP/2 without a key (RFC 8441 section 5)."""
    return method == _CONNECT or bool(fields.values(b"sec-websocket-key"))


def _method(fields: FieldSection, name: bytes) -> str:
    method = _one(fields, name)
    if method and METHOD.fullmatch(method) is None:
        raise RefusedError("an original method that is malformed")
    return method


def _one(fields: FieldSection, name: bytes) -> str:
    """Return the one value of a field as text, "" if there is none. Raises RefusedError."""
    values = fields.values(name)
    if len(values) > 1:
        raise RefusedError("a forwarding field that came twice")
    return values[0].decode("latin-1") if values else ""
