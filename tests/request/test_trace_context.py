"""Which trace a request belongs to, by the bytes of its fields (W3C Trace Context)."""

from random import Random

import pytest

from tailchat_gate.request.client import ClientAddress
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.head import RequestHead
from tailchat_gate.request.recorded import Trusted
from tailchat_gate.request.target import read_target
from tailchat_gate.request.trace_context import TraceContexts

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01"
OWN_ID = "0123456789abcdef01234567"
STRANGER = ClientAddress("203.0.113.9", "https", "203.0.113.9")
BEHIND = ClientAddress("203.0.113.9", "https", "203.0.113.9, 10.0.0.1", by_proxy=True)


def identified(
    *fields: tuple[str, str],
    client: ClientAddress = BEHIND,
    trusted: Trusted = "proxies",
    share: float = 0.0,
    records: bool = False,
) -> RequestContext:
    """Return the context of a request with these fields, once its trace is known."""
    pairs = [("Host", "gate.test"), *fields]
    section = FieldSection([(name.encode(), value.encode()) for name, value in pairs])
    head = RequestHead("GET", False, read_target("/", section.host), section)
    context = RequestContext(OWN_ID, 1.0, head, client)
    randbytes = Random(7).randbytes  # noqa: S311 - no secret
    TraceContexts(randbytes, trusted=trusted, share=share, records=records).identify(context)
    return context


def sent(context: RequestContext) -> list[str]:
    """Return the lines of the trace that the tool gets."""
    return context.trace.lines.decode().split("\r\n")[:-1] if context.trace else []


@pytest.mark.parametrize(
    ("value", "passed"),
    [
        (GOOD, GOOD),
        (f"00-{TRACE}-{PARENT}-00", f"00-{TRACE}-{PARENT}-00"),
        # Flags that are not defined are not passed on; the one of a random id is.
        (f"00-{TRACE}-{PARENT}-ff", f"00-{TRACE}-{PARENT}-03"),
        # A later version is read as far as it is known, and written as the one that is.
        (f"cc-{TRACE}-{PARENT}-01", GOOD),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", GOOD),
        (f"cc-{TRACE}-{PARENT}-01.what", ""),
        (f"{GOOD}-more", ""),
        (f"ff-{TRACE}-{PARENT}-01", ""),
        (f"00-{TRACE.upper()}-{PARENT}-01", ""),
        (f"00-{'0' * 32}-{PARENT}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE[1:]}-{PARENT}-01", ""),
        (f"00-{TRACE}-{PARENT}-1", ""),
        (f"00_{TRACE}_{PARENT}_01", ""),
        (f"{GOOD},{GOOD}", ""),
        ("", ""),
    ],
)
def test_a_traceparent_is_read_to_the_letter(value: str, passed: str) -> None:
    """One of the grammar of the W3C goes on, with the flags that are defined; others are none."""
    context = identified(("traceparent", value))

    assert sent(context) == ([f"traceparent: {passed}"] if passed else [])
    assert context.trace_id == (TRACE if passed else "")


def test_two_traceparents_are_none() -> None:
    """Which of two is meant is not known (section 4.3 of the processing model)."""
    assert identified(("traceparent", GOOD), ("traceparent", GOOD)).trace is None


@pytest.mark.parametrize(
    ("values", "passed"),
    [
        (["rojo=00f067aa0ba902b7"], "rojo=00f067aa0ba902b7"),
        (["congo=t61rcWkgMzE", "rojo=1"], "congo=t61rcWkgMzE,rojo=1"),
        (["a=1 , b=2,, c=x y"], "a=1,b=2,c=x y"),
        (["fw529a3039@dt=1,0tenant@v=2"], "fw529a3039@dt=1,0tenant@v=2"),
        ([",".join(f"k{n}=v" for n in range(32))], ",".join(f"k{n}=v" for n in range(32))),
        ([",".join(f"k{n}=v" for n in range(33))], ""),
        (["a=" + "v" * 256], "a=" + "v" * 256),
        (["a=" + "v" * 257], ""),
        (["a" * 256 + "=v"], "a" * 256 + "=v"),
        (["a" * 257 + "=v"], ""),
        ([",".join(f"k{n}={'v' * 250}" for n in range(17))], ""),
        (["A=1"], ""),
        (["a"], ""),
        (["a="], ""),
        (["a=1=2"], ""),
        (["a=\x7f"], ""),
        ([" , ,"], ""),
        ([""], ""),
    ],
)
def test_a_tracestate_goes_on_whole_or_not_at_all(values: list[str], passed: str) -> None:
    """Lists of the grammar go on as one; where one member is malformed, the trace goes on alone."""
    context = identified(("traceparent", GOOD), *[("tracestate", value) for value in values])

    expected = [f"tracestate: {passed}"] if passed else []
    assert sent(context) == [f"traceparent: {GOOD}", *expected]


def test_a_tracestate_alone_is_none() -> None:
    """It says nothing without a trace (section 3.3)."""
    assert identified(("tracestate", "a=1")).trace is None
    assert identified(("tracestate", "a=1"), ("traceparent", "00-1-2-01")).trace is None


@pytest.mark.parametrize(
    "value",
    [
        *("7f2a", "0af7651916cd43dd8448eb211c80319c", "3c2a1f6e-5f4d-4a44-9c38-2b2f8fa9d2c1"),
        *("7F000001:8296_7F00001E:1F90_4B7BE3F7_0003", "dGhpcyBpcyBiYXNlNjQ+/w==", "a" * 64),
    ],
)
def test_ids_as_edges_make_them_are_taken_over(value: str) -> None:
    """Hex, a UUID, HAProxy's lists of numbers and base64 fit."""
    assert identified(("X-Request-Id", value)).request_id == value


@pytest.mark.parametrize(
    "value",
    ["", "a" * 65, "a b", 'a"b', "a\\b", "a,b", "-a", "\u00e9", "a\tb", "<a>", "a;b", "a'b", "a%b"],
)
def test_another_id_is_replaced(value: str) -> None:
    """A long one, or one with anything that a log, a page or a shell may obey, is none."""
    assert identified(("X-Request-Id", value)).request_id == OWN_ID


def test_two_ids_are_none() -> None:
    """Which of two is meant is not known."""
    assert identified(("X-Request-Id", "a1"), ("X-Request-Id", "a1")).request_id == OWN_ID


@pytest.mark.parametrize(
    ("trusted", "client", "believed"),
    [
        ("proxies", BEHIND, True),
        ("proxies", STRANGER, False),
        ("anyone", STRANGER, True),
        ("anyone", BEHIND, True),
        ("nobody", BEHIND, False),
        ("nobody", STRANGER, False),
    ],
)
def test_who_may_name_a_trace(trusted: Trusted, client: ClientAddress, believed: bool) -> None:
    """A trusted proxy, unless the configuration says otherwise; what others say is dropped."""
    fields = ("traceparent", GOOD), ("X-Request-Id", "edge-1"), ("tracestate", "a=1")
    context = identified(*fields, trusted=trusted, client=client)

    assert context.request_id == ("edge-1" if believed else OWN_ID)
    assert context.trace_id == (TRACE if believed else "")


def test_a_trace_begins_here() -> None:
    """With a share every request without a trace gets one; a malformed one is none."""
    for fields in ((), (("traceparent", "junk"), ("tracestate", "a=1"))):
        context = identified(*fields, share=1.0)
        assert context.trace is not None
        assert context.trace.parent_id == ""
        (line,) = sent(context)
        name, trace_id, parent, flags = line.split("-")
        assert (name, trace_id, flags) == ("traceparent: 00", context.trace_id, "01")
        assert len(trace_id) == 32
        assert len(parent) == 16


def test_a_stranger_cannot_continue_a_trace_that_begins_here() -> None:
    """Who is not trusted gets another trace than the one that was sent, without its state."""
    fields = ("traceparent", GOOD), ("tracestate", "a=1")
    context = identified(*fields, share=1.0, client=STRANGER)

    assert context.trace_id not in {"", TRACE}
    assert len(sent(context)) == 1


def test_the_share_is_of_the_ids_as_samplers_reckon() -> None:
    """The lower half of the id decides, as in OpenTelemetry's sampler by ratio, for all shares."""
    randbytes = Random(1).randbytes  # noqa: S311 - no secret
    for share in (0.25, 0.5):
        traces = TraceContexts(randbytes, share=share)
        sampled = 0
        for _ in range(400):
            context = identified()
            traces.identify(context)
            trace_id, flags = sent(context)[0].split("-")[1::2]
            below = int(trace_id[16:], 16) < share * 2**64
            assert flags == ("01" if below else "00")
            sampled += below
        assert 0.7 * share < sampled / 400 < 1.3 * share


def test_spans_get_ids_where_they_are_recorded() -> None:
    """The tool's parent is the gate's own span then, and the caller's where none is recorded."""
    recorded = identified(("traceparent", GOOD), records=True).trace
    unsampled = identified(("traceparent", f"00-{TRACE}-{PARENT}-00"), records=True).trace
    begun = identified(share=1.0, records=True).trace
    assert recorded is not None
    assert unsampled is not None
    assert begun is not None

    assert recorded.lines == f"traceparent: 00-{TRACE}-{recorded.sent_id}-01\r\n".encode()
    assert len({recorded.span_id, recorded.sent_id, PARENT}) == 3
    assert (unsampled.span_id, unsampled.sent_id) == ("", "")
    assert unsampled.lines == f"traceparent: 00-{TRACE}-{PARENT}-00\r\n".encode()
    assert f"-{begun.sent_id}-01".encode() in begun.lines
    assert (len(begun.span_id), begun.parent_id) == (16, "")
