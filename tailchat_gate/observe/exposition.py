"""Writes metrics as Prometheus reads them, in short steps.

The client library writes a registry in one go, which would hold the event loop for a tenth of a
second with a thousand routes.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from math import inf
from typing import Final

from tailchat_gate.observe.families import Collected, Family, Histogram, MetricKind

#: How long the event loop is held at a time.
SLICE_SECONDS: Final = 0.0005
_UNITS: Final = ("seconds", "bytes")


async def expose(collected: Iterable[Collected], *, openmetrics: bool = False) -> list[bytes]:
    """Return the text in parts; other work of the event loop is done between them."""
    parts: list[bytes] = []
    until = time.perf_counter() + SLICE_SECONDS
    for part in text(collected, openmetrics=openmetrics):
        parts.append(part)
        if time.perf_counter() >= until:
            await asyncio.sleep(0)
            until = time.perf_counter() + SLICE_SECONDS
    return parts


def text(collected: Iterable[Collected], *, openmetrics: bool = False) -> Iterator[bytes]:
    """Yield the lines of each family, and of each of its label values, one after another.

    `openmetrics`: in that format, with exemplars, and without its last line.
    """
    # Exemplars have the monotonic clock's seconds.
    offset = time.time() - time.monotonic()
    for family, samples in collected:
        yield _head(family, openmetrics=openmetrics)
        name = f"{family.name}_total" if family.kind is MetricKind.COUNTER else family.name
        for labels, value in samples:
            texts = [
                f'{label}="{_escaped(found)}"'
                for label, found in zip(family.labels, labels, strict=True)
            ]
            if isinstance(value, Histogram):
                lines = _histogram(name, texts, value, offset if openmetrics else None)
                yield "".join(lines).encode()
            else:
                yield f"{name}{_braced(texts)} {_number(value)}\n".encode()


def _head(family: Family, *, openmetrics: bool) -> bytes:
    name, kind = family.name, family.kind
    if kind is MetricKind.COUNTER and not openmetrics:
        name = f"{name}_total"
    unit = name.rpartition("_")[2]
    lines = f"# HELP {name} {family.documentation}\n# TYPE {name} {kind}\n"
    if openmetrics and unit in _UNITS:
        lines += f"# UNIT {name} {unit}\n"
    return lines.encode()


def _histogram(
    name: str, texts: list[str], histogram: Histogram, offset: float | None
) -> Iterator[str]:
    bounds = (*histogram.buckets, inf)
    count = 0
    for bound, found, exemplar in zip(bounds, histogram.counts, histogram.exemplars, strict=True):
        count += found
        le = f'le="{_number(bound)}"'
        yield f"{name}_bucket{_braced([*texts, le])} {count}.0"
        if offset is not None and exemplar is not None:
            # OpenMetrics allows 128 characters for all labels: an id of 64 and one of 32 fit.
            request_id, trace, value, at = exemplar
            ids = [f'request_id="{_escaped(request_id)}"']
            labels = _braced([*ids, f'trace_id="{trace.trace_id}"'] if trace is not None else ids)
            yield f" # {labels} {value:.6f} {at + offset:.3f}"
        yield "\n"
    yield f"{name}_count{_braced(texts)} {count}.0\n"
    yield f"{name}_sum{_braced(texts)} {_number(histogram.total)}\n"


def _number(value: float) -> str:
    if value in {inf, -inf}:
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))


def _braced(texts: list[str]) -> str:
    return f"{{{','.join(sorted(texts))}}}" if texts else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
