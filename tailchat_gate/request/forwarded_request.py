"""The request that a proxy in front asks about, read from what that proxy sends; pure.

Three dialects are read. Traefik, Caddy and most nginx configurations send X-Forwarded-Method,
-Host and -Uri; nginx's ingress controller sends X-Original-Method and -URL; Envoy sends the
request itself, its path behind that of the question.
"""

from dataclasses import dataclass, field
from typing import Final

from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.head import RequestHead
from tailchat_gate.request.readings import readings
from tailchat_gate.request.target import Host, Target, read_host, read_target
from tailchat_gate.syntax import HTTP_URL, METHOD

#: By this a proxy says that its tool gets what the question has of the visitor's fields.
UNSTRIPPED: Final = b"x-tailchat-unstripped"
#: What a question is made of.
QUESTION_FIELDS: Final = frozenset(
    (
        *(UNSTRIPPED, b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"),
        *(b"x-forwarded-method", b"x-forwarded-uri", b"x-original-method", b"x-original-uri"),
        b"x-original-url",
    )
)
_CONNECT: Final = "CONNECT"


@dataclass(frozen=True, slots=True)
class Original:
    """The visitor's request to the proxy; `method` is "" if the proxy does not name it.

    `websocket`: a WebSocket is asked for. Upgrade itself ends at the proxy, its key does not, and
    where HTTP/2 has no such key, the method tells. `as_sent`: the question is the request itself.
    `unstripped`: the proxy passes on what it leaves of the visitor's fields on the question.
    `by_nginx`: only nginx asks so, for which every status but 2xx, 401 and 403 is a fault.
    """

    method: str
    host: Host
    target: Target
    websocket: bool = False
    as_sent: bool = False
    unstripped: bool = False
    by_nginx: bool = field(default=False, compare=False)


def original_of(head: RequestHead, question: str) -> Original | None:
    """Return the request that is asked about, None where none is named.

    `question` is the path of the question itself. Only a trusted proxy's word counts, which the
    caller has to see to. Raises RefusedError for what no proxy sends, and where two dialects
    name different requests: one of them is then the visitor's own.
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
    """Raise RefusedError for a path that some reading leads out of the question's.

    Where a proxy in front keeps the question from visitors it reads "/oauth2/auth/..%2Fuserinfo"
    as "/oauth2/userinfo", which is for them, and passes it on as it came: the visitor's page would
    read the identity headers of the answer.
    """
    start = f"{question}/"
    if not all(reading.startswith(start) for reading in readings(path)):
        raise RefusedError("a path that leads out of the question's")


def _host_as_sent(fields: FieldSection) -> Host:
    """Return the Host of a question that is the request itself.

    That one is the visitor's, and a proxy whose block answers for several names routes by none of
    them: where it writes X-Forwarded-Host for its tool, both must name the same host.
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
        # Of the proxies, it alone cannot drop a family of names.
        by_nginx=by_nginx or unstripped,
    )


def _is_websocket(method: str, fields: FieldSection) -> bool:
    """Whether a WebSocket is asked for; over HTTP/2 without a key (RFC 8441 section 5)."""
    return method == _CONNECT or bool(fields.values(b"sec-websocket-key"))


def _method(fields: FieldSection, name: bytes) -> str:
    method = _one(fields, name)
    if method and METHOD.fullmatch(method) is None:
        raise RefusedError("an original method that is malformed")
    return method


def _one(fields: FieldSection, name: bytes) -> str:
    """Return the one value of a field as text, "" where there is none."""
    values = fields.values(name)
    if len(values) > 1:
        raise RefusedError("a forwarding field that came twice")
    return values[0].decode("latin-1") if values else ""
