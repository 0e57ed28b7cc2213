"""Lines of the access log with the fields that the configuration chooses, as JSON or as text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from types import MappingProxyType
from typing import Final

from tailchat_gate.request.context import RequestContext

MAX_TEXT: Final = 1024
_FAULT, _REFUSED = 500, 400
_RED, _YELLOW, _GREEN, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"


def quoted(text: str) -> str:
    """Return a text in ASCII JSON, cut at MAX_TEXT characters."""
    return encode_basestring_ascii(text[:MAX_TEXT])


def asked(context: RequestContext) -> str:
    """Return the request that a proxy asked about, never its query; "" for none."""
    original = context.original
    if original is None:
        return ""
    method = f"{original.method} " if original.method else ""
    return quoted(f"{method}{original.host.name}{original.target.path}")


def upstream(context: RequestContext) -> str:
    """Return the upstream's members of a JSON line with all fields, "" without an upstream."""
    if not context.upstream:
        return ""
    connect = f'"connect_ms":{_connect(context)},' if context.connect_seconds else ""
    first = f'"first_byte_ms":{_first_byte(context)},' if context.first_byte_at else ""
    return f'"upstream":{encode_basestring_ascii(context.upstream)},{connect}{first}'


def _connect(context: RequestContext) -> str:
    return f"{context.connect_seconds * 1000:.2f}" if context.connect_seconds else ""


def _first_byte(context: RequestContext) -> str:
    if not context.first_byte_at:
        return ""
    began = context.upstream_at or context.started
    return f"{(context.first_byte_at - began) * 1000:.2f}"


def _upstream_ms(context: RequestContext) -> str:
    if not context.upstream:
        return ""
    began = context.upstream_at or context.started
    return f"{(context.started + context.seconds - began) * 1000:.2f}"


def _trace(context: RequestContext) -> str:
    return "" if context.trace is None else quoted(context.trace.trace_id)


def _query(context: RequestContext) -> str:
    # The gate's own addresses carry codes and tokens.
    return quoted(context.target.query) if context.route else quoted("")


#: What each field says, in JSON; "" leaves it out. The time is the line's own.
_VALUES: Final[Mapping[str, Callable[[RequestContext], str]]] = MappingProxyType(
    {
        "id": lambda context: quoted(context.request_id),
        "client": lambda context: quoted(context.client),
        "method": lambda context: quoted(context.method),
        "host": lambda context: quoted(context.host),
        "path": lambda context: quoted(context.path),
        "query": _query,
        "status": lambda context: str(context.status),
        "reason": lambda context: quoted(context.reason),
        "limit": lambda context: quoted(context.limit) if context.limit else "",
        "route": lambda context: quoted(context.route),
        "sub": lambda context: quoted(context.sub),
        "token": lambda context: quoted(context.token),
        "bytes": lambda context: str(context.sent_bytes),
        "received": lambda context: str(context.received_bytes),
        "ms": lambda context: f"{context.seconds * 1000:.2f}",
        "upstream": lambda context: quoted(context.upstream) if context.upstream else "",
        "connect_ms": _connect,
        "first_byte_ms": _first_byte,
        "upstream_ms": _upstream_ms,
        "trace_id": _trace,
        "agent": lambda context: quoted(context.head.fields.agent),
        "asked": asked,
    }
)


class ChosenFields:
    """Makes a line of `names`, in their order; as `text` it is for people, in `colour` or not."""

    def __init__(self, names: Sequence[str], *, text: bool, colour: bool = False) -> None:
        self._names = tuple(name for name in names if name != "time")
        self._has_time = "time" in names
        self._text = text
        self._colour = colour

    def line(self, context: RequestContext, stamp: str) -> str:
        """Return the line of a request that ended at `stamp`."""
        members = self._members(context)
        if self._text:
            parts = [stamp] if self._has_time else []
            parts += (f"{name}={self._shown(name, value)}" for name, value in members)
            return f"{' '.join(parts)}\n"
        time = [f'"time":"{stamp}"'] if self._has_time else []
        joined = ",".join([*time, *(f'"{name}":{value}' for name, value in members)])
        return f"{{{joined}}}\n"

    def _members(self, context: RequestContext) -> Iterator[tuple[str, str]]:
        for name in self._names:
            if value := _VALUES[name](context):
                yield name, value

    def _shown(self, name: str, value: str) -> str:
        if name == "status" and self._colour:
            status = int(value)
            paint = _RED if status >= _FAULT else _YELLOW if status >= _REFUSED else _GREEN
            return f"{paint}{value}{_PLAIN}"
        # A text needs no quotes if nothing in it looks like another field.
        plain = value[1:-1]
        bare = value.startswith('"') and plain and not set(plain) & set(' "\\=')
        return plain if bare else value
