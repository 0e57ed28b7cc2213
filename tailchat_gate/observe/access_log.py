"""The access log: one line for each request, as JSON or text, which visitors cannot forge."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from json.encoder import encode_basestring_ascii
from types import MappingProxyType
from typing import Final

from tailchat_gate.observe.sink import CLOSE_SECONDS, RotatedFile, Sink, SinkFile
from tailchat_gate.observe.text_lines import in_colour, is_text
from tailchat_gate.observe.threads import in_thread
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.recorded import DEFAULT_LOG_FIELDS

MAX_TEXT: Final = 1024
_FAULT, _REFUSED = 500, 400
_RED, _YELLOW, _GREEN, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"
#: Lines are collected for this many seconds, so that a busy gate makes few system calls.
FLUSH_SECONDS: Final = 0.1
#: Collected lines of this many characters are written at once: visitors choose their length.
_FLUSH_SIZE: Final = 131_072
_KEPT_TEXTS = 2048
_LONGEST_KEPT_TEXT: Final = 512


def quoted(text: str) -> str:
    """Return a text as a JSON string in ASCII, cut at MAX_TEXT characters."""
    return encode_basestring_ascii(text[:MAX_TEXT])


def original_request(context: RequestContext) -> str:
    """Return the request that a proxy asked about in forward-auth, without query; "" for none."""
    original = context.original
    if original is None:
        return ""
    method = f"{original.method} " if original.method else ""
    return quoted(f"{method}{original.host.name}{original.target.path}")


def _upstream_times(context: RequestContext) -> str:
    """Return the members with the times of the upstream, "" without any."""
    connect = f'"connect_ms":{_connect(context)},' if context.connect_seconds else ""
    first = f'"first_byte_ms":{_first_byte(context)},' if context.first_byte_at else ""
    return connect + first


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
    # Queries of the gate's own paths contain codes and tokens, so they are never logged.
    return quoted(context.target.query) if context.route else quoted("")


#: The value of each field as JSON, "" to leave it out; `time` is not among them.
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
        "asked": original_request,
    }
)


class ChosenFields:
    """Makes lines with the fields in `names`, in their order, as JSON or as `text` for people."""

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
        # A value needs no quotes if it cannot be taken for another field.
        plain = value[1:-1]
        bare = value.startswith('"') and plain and not set(plain) & set(' "\\=')
        return plain if bare else value


class AccessLog:
    """Writes lines to a file descriptor, or to `file`, through `sink`; `form` is as in `is_text`.

    Texts are escaped as ASCII JSON and cut at MAX_TEXT characters. Query strings are left out
    unless they are chosen, because they contain codes, tokens and searches. If a reader stops
    reading, lines are lost and counted by the sink; requests are not held up. The file is opened
    again after it was moved away.
    """

    def __init__(
        self,
        descriptor: int,
        clock: Callable[[], float],
        *,
        file: str = "",
        form: str = "json",
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.sink: Final = Sink("access", RotatedFile(file) if file else SinkFile(descriptor))
        self._is_text = is_text(form, -1 if file else descriptor)
        self._colour = self._is_text and not file and in_colour(descriptor, environ)
        #: None for the default fields as JSON, which `write` formats faster.
        self._chosen: ChosenFields | None = None
        self.choose(DEFAULT_LOG_FIELDS)
        self._clock = clock
        # All texts but the path repeat from request to request, most of them together.
        self._texts = lru_cache(maxsize=_KEPT_TEXTS)(_texts)
        self._lines: list[str] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._millisecond = self._second = -1
        #: The time of the last line, to the millisecond and to the second.
        self._stamp = self._whole = ""

    def choose(self, names: Sequence[str]) -> None:
        """Write the fields in `names` from now on."""
        usual = not self._is_text and tuple(names) == DEFAULT_LOG_FIELDS
        self._chosen = (
            None if usual else ChosenFields(names, text=self._is_text, colour=self._colour)
        )

    def write(self, context: RequestContext) -> None:
        """Add one request; must be called in a running event loop."""
        millisecond = int(self._clock() * 1000)
        if millisecond != self._millisecond:
            # Not for each line: a busy gate writes many in one millisecond.
            self._tick(millisecond)
        if self._chosen is not None:
            self._add(self._chosen.line(context, self._stamp))
            return
        head = context.head
        fields = head.fields
        agent = fields.agent
        texts = self._texts if len(agent) <= _LONGEST_KEPT_TEXT else _texts
        before, after, upstream, program = texts(
            context.client_address.address,
            head.method,
            fields.host.name,
            context.status,
            context.reason,
            context.limit,
            context.route,
            context.sub,
            context.token,
            context.upstream,
            agent,
        )
        path = encode_basestring_ascii(head.target.path[:MAX_TEXT])
        trace = "" if context.trace is None else f'"trace_id":"{context.trace.trace_id}",'
        original = "" if context.original is None else f',"asked":{original_request(context)}'
        times = _upstream_times(context) if upstream else ""
        self._add(
            f'{{"time":"{self._stamp}","id":"{context.request_id}",{before}"path":{path},{after}'
            f'"bytes":{context.sent_bytes},"ms":{context.seconds * 1000:.2f},'
            f'{upstream}{times}{trace}"agent":{program}{original}}}\n'
        )

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._size += len(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        elif self._size >= _FLUSH_SIZE:
            self.flush()

    def flush(self) -> None:
        """Hand the collected lines to the writing thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            self.sink.put("".join(self._lines).encode("ascii"), len(self._lines))
        self._lines.clear()
        self._size = 0

    async def close(self, within: float = CLOSE_SECONDS) -> None:
        """Write the collected lines; give up after `within` seconds if the reader has stopped.

        The line of a request that ends later is still written.
        """
        self.flush()
        if not self.sink.is_running:
            return
        await in_thread(partial(self.sink.close_and_log, within), "access-log-close")

    def _tick(self, millisecond: int) -> None:
        self._millisecond = millisecond
        second, rest = divmod(millisecond, 1000)
        if second != self._second:
            self._second = second
            self._whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        self._stamp = f"{self._whole}.{rest:03d}Z"


def _texts(  # noqa: PLR0913, PLR0917 - the key of a cache
    client: str,
    method: str,
    host: str,
    status: int,
    reason: str,
    limit: str,
    route: str,
    sub: str,
    token: str,
    upstream: str,
    agent: str,
) -> tuple[str, str, str, str]:
    """Return the members before the path, those after it, the upstream, and the agent's text."""
    who = f'"route":{quoted(route)},"sub":{quoted(sub)},"token":{quoted(token)},'
    limited = f'"limit":"{limit}",' if limit else ""
    return (
        f'"client":{quoted(client)},"method":{quoted(method)},"host":{quoted(host)},',
        f'"status":{status},"reason":"{reason}",{limited}{who}',
        f'"upstream":{quoted(upstream)},' if upstream else "",
        quoted(agent),
    )
