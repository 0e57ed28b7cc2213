"""The trace of a request (W3C Trace Context), and the request ID from a proxy in front."""

import re
from collections.abc import Callable, Sequence
from typing import Final

from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.recorded import Trace, Trusted

#: Version, trace id, parent id, flags (section 3.2.2); later versions may have more after them.
_PARENT: Final = re.compile("([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*+)?")
#: A traceparent as the gate itself writes it: this version, and no other flags.
_USUAL: Final = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-3]")
_NO_VERSION: Final = "ff"
_FIRST_VERSION: Final = "00"
_NO_TRACE: Final = "0" * 32
_NO_PARENT: Final = "0" * 16
#: The defined flags: "sampled" and "random trace id". Others are not passed on (section
#: 3.2.2.5.2).
_SAMPLED: Final = 0b01
_FLAGS: Final = 0b11
#: A member of tracestate (section 3.3.1.3), and limits of their number and bytes; the standard
#: requires less (section 3.3.1.5).
_MEMBER: Final = re.compile(rb"[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
_MOST_MEMBERS: Final = 32
_LONGEST_STATE: Final = 4096
#: The forms of request IDs that proxies make: hex, UUID, base64, and lists of numbers.
_REQUEST_ID: Final = re.compile(rb"[0-9A-Za-z][0-9A-Za-z._:=+/@-]{0,63}")
#: The number of values of the half of a trace id that samplers use.
_HALF: Final = 1 << 64


class TraceContexts:
    """Finds the trace of each request, or begins one.

    `trusted`: whose fields are believed. `share`: the part of new traces that is sampled, 0 to
    begin none. `records`: the gate records spans of sampled traces.
    """

    def __init__(
        self,
        random_bytes: Callable[[int], bytes],
        *,
        trusted: Trusted = "proxies",
        share: float = 0.0,
        records: bool = False,
    ) -> None:
        self._random_bytes = random_bytes
        self._anyone = trusted == "anyone"
        self._proxies = trusted == "proxies"
        self._sampled_below = round(share * _HALF)
        self._records = records
        #: Whether a request without a trace gets one.
        self.begins: Final = share > 0

    def identify(self, context: RequestContext) -> None:
        """Set the trace of a request whose client is known, and a trusted client's request ID."""
        fields = context.head.fields
        places = fields.shape.identifies
        if places is not None and (
            self._anyone or (self._proxies and context.client_address.by_proxy)
        ):
            values = fields.sent_values
            request_ids, parents, states = places
            if len(request_ids) == 1 and _REQUEST_ID.fullmatch(values[request_ids[0]]):
                context.request_id = values[request_ids[0]].decode("ascii")
            if len(parents) == 1:
                state = _state([values[place] for place in states]) if states else b""
                context.trace = self._continued(values[parents[0]], state)
        if context.trace is None and self.begins:
            context.trace = self._new_trace()

    def _continued(self, parent: bytes, state: bytes) -> Trace | None:
        """Return the trace of a traceparent, None if it is malformed.

        `state` is the line of tracestate.
        """
        if not self._records and _USUAL.fullmatch(parent):
            # A shortcut with the same result, which nearly every traceparent takes.
            usual = parent.decode("ascii")
            return Trace(usual[3:35], usual[36:52], b"traceparent: %b\r\n%b" % (parent, state))
        match = _PARENT.fullmatch(parent.decode("latin-1"))
        if match is None:
            return None
        version, trace_id, parent_id, flags, more = match.groups()
        if (
            version == _NO_VERSION
            or (more is not None and version == _FIRST_VERSION)
            or trace_id == _NO_TRACE
            or parent_id == _NO_PARENT
        ):
            return None
        known = int(flags, 16) & _FLAGS
        span_id, sent_id = self._spans(known)
        # Without a span of its own the gate keeps the parent: a span that nobody records would be
        # missing in the trace.
        lines = _line(trace_id, sent_id or parent_id, known) + state
        return Trace(trace_id, parent_id, lines, span_id, sent_id)

    def _new_trace(self) -> Trace:
        ids = self._random_bytes(24).hex()
        trace_id, first_id = ids[:32], ids[32:]
        flags = int(int(trace_id[16:], 16) < self._sampled_below)
        span_id, sent_id = self._spans(flags)
        return Trace(trace_id, "", _line(trace_id, sent_id or first_id, flags), span_id, sent_id)

    def _spans(self, flags: int) -> tuple[str, str]:
        """Return the ids of the gate's own spans, "" if it records none."""
        recorded = self._records and flags & _SAMPLED
        ids = self._random_bytes(16).hex() if recorded else ""
        return ids[:16], ids[16:]


def _line(trace_id: str, parent_id: str, flags: int) -> bytes:
    return f"traceparent: 00-{trace_id}-{parent_id}-{flags:02x}\r\n".encode("ascii")


def _state(values: Sequence[bytes]) -> bytes:
    """Return the line of tracestate, b"" if it is malformed."""
    state = b",".join(values)
    members = [member.strip(b" \t") for member in state.split(b",")]
    members = [member for member in members if member]
    fits = len(state) <= _LONGEST_STATE and 0 < len(members) <= _MOST_MEMBERS
    if not fits or not all(map(_MEMBER.fullmatch, members)):
        return b""
    return b"tracestate: %b\r\n" % b",".join(members)
