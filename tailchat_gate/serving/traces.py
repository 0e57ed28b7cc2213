"""The parts that find traces and record spans."""

import os
from functools import partial

from tailchat_gate.config.model import Tracing
from tailchat_gate.observe.spans import Spans
from tailchat_gate.request.trace_context import TraceContexts


def spans_of(tracing: Tracing) -> Spans:
    """Return what takes the spans of requests.

    Where there is a collector for them, this imports the SDK: later that would stop the event loop.
    """
    if not tracing.endpoint:
        return Spans()
    from tailchat_gate.observe.otlp import OtlpExporter  # noqa: PLC0415 - the extra `tracing`

    return Spans(partial(OtlpExporter, tracing.endpoint))


def trace_contexts(tracing: Tracing, spans: Spans) -> TraceContexts:
    """Return what finds the trace of each request."""
    return TraceContexts(
        os.urandom,
        trusted=tracing.trust,
        share=tracing.sample,
        records=spans.are_recorded,
    )
