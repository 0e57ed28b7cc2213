"""Trace Context and ids of requests: what a plain reader takes over, and never another byte."""

from fuzz.reference import trace as plain
from fuzz.target import Target
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.client import ClientAddress
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.head import RequestHead
from tailchat_gate.request.target import read_target
from tailchat_gate.request.trace_context import TraceContexts

_NAMES = (b"traceparent", b"tracestate", b"x-request-id")
_PROXY = ClientAddress("10.0.0.1", "https", "10.0.0.1", by_proxy=True)
_GOOD = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def check(data: bytes) -> None:
    """Read the lines of an input as values, of the field that the first byte of each names."""
    pairs = [
        (_NAMES[line[0] % 3], line[1:].strip(b" \t\r").replace(b"\0", b""))
        for line in data.split(b"\n")
        if line
    ]
    try:
        section = FieldSection([(b"Host", b"h"), *pairs])
    except RefusedError:
        return
    head = RequestHead("GET", False, read_target("/", section.host), section)  # noqa: FBT003 - a tuple
    context = RequestContext("own", 0.0, head, _PROXY)
    TraceContexts(bytes).identify(context)

    ids = section.values(b"x-request-id")
    taken = len(ids) == 1 and plain.request_id(ids[0])
    assert context.request_id == (ids[0].decode("ascii") if taken else "own")
    parents = section.values(b"traceparent")
    found = plain.parent(parents[0]) if len(parents) == 1 else None
    if found is None:
        assert context.trace is None
        return
    assert context.trace is not None
    trace, span, sampled = found
    assert (context.trace.trace_id, context.trace.parent_id) == (trace.decode(), span.decode())
    first, *others = context.trace.lines.split(b"\r\n")[:-1]
    start, _, flags = first.rpartition(b"-")
    assert start == b"traceparent: 00-%b-%b" % (trace, span)
    assert flags in ({b"01", b"03"} if sampled else {b"00", b"02"})
    members = plain.state(section.values(b"tracestate"))
    assert others == ([b"tracestate: " + b",".join(members)] if members else [])


TARGET = Target(
    check,
    parsers=("request.trace_context",),
    seeds=(
        # "0" names the first field, "1" the second, "2" the third.
        b"0" + _GOOD + b"\n1congo=t61rcWkgMzE , rojo=00f067aa0ba902b7\n2edge-1",
        b"0cc" + _GOOD[2:] + b"-later\n1a=1\n1b=2,,",
        b"0" + _GOOD + b"-more",
        b"0ff" + _GOOD[2:],
        b"0" + _GOOD.upper(),
        b"0" + _GOOD[:53] + b"fe\n1A=1",
        b"0" + _GOOD + b"\n0" + _GOOD,
        b"2-a",
        b"2a/b=c+d:e_f@g.h",
        b"2a\n2b",
        b"0" + _GOOD + b"\n1" + b",".join(b"k%d=v" % number for number in range(33)),
    ),
    words=(
        *(b"\n0", b"\n1", b"\n2", b"00-", b"-01", b"-00", b"ff-", b",", b"=", b" ", b"\t"),
        *(b"0" * 16, b"0" * 32, b"a=1", b"x" * 64, b"v" * 256, _GOOD),
    ),
)
