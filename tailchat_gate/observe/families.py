"""Families of metrics: sums them over processes, and writes them in Prometheus's text format.

The client library writes a whole registry at once, which would block the event loop for a tenth of
a second with a thousand routes; here it is written in short steps.
"""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from math import inf
from typing import Final, NamedTuple, Protocol, TypeVar

#: Upper bounds, in seconds, of the buckets for times of requests: from half a millisecond, the time
#: of a small response, to more than every default time-out.
BUCKETS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0),
)
#: The same for the lifetimes of WebSockets, from a second to a week.
LIFETIMES: Final = (1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0)

Labels = tuple[str, ...]
_LabelsT = TypeVar("_LabelsT", bound=Labels)
_PartT = TypeVar("_PartT", str, bytes)
#: How long the event loop may be held at a time.
SLICE_SECONDS: Final = 0.0005
_UNITS: Final = ("seconds", "bytes")


class MetricKind(StrEnum):
    """The metric types of Prometheus that the gate uses."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(StrEnum):
    """How gauges of several processes are combined; counters and histograms are always added."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


class Family(NamedTuple):
    """A family of metrics; the name of a counter has no "_total" here."""

    name: str
    documentation: str
    labels: Labels = ()
    kind: MetricKind = MetricKind.COUNTER
    merge: Merge = Merge.SUM
    buckets: tuple[float, ...] = BUCKETS


class Traced(Protocol):
    """The trace of a request."""

    @property
    def trace_id(self) -> str:
        """Its id."""


#: The id of a request, its trace, its value, and its end in seconds of the monotonic clock.
Exemplar = tuple[str, Traced | None, float, float]


class Histogram:
    """The number of values in each bucket, not cumulative, and the sum of all values."""

    __slots__ = ("buckets", "counts", "exemplars", "total")

    def __init__(self, buckets: tuple[float, ...] = BUCKETS) -> None:
        self.buckets: Final = buckets
        self.counts: Final = [0] * (len(buckets) + 1)
        #: By bucket: the request that was counted last.
        self.exemplars: Final[list[Exemplar | None]] = [None] * len(self.counts)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.buckets, value)] += 1
        self.total += value

    def to_plain(self) -> list[float]:
        """Return the counts and the sum."""
        return [*self.counts, self.total]


Value = float | Histogram
Samples = Iterable[tuple[Labels, Value]]
#: A family with its samples; a Source yields them at each scrape.
Collected = tuple[Family, Samples]
Source = Callable[[], Iterable[Collected]]
#: The values of one process by family and labels, as JSON or marshal can carry them; a histogram is
#: a list of its counts and its sum.
Plain = Mapping[str, list[tuple[Labels, float | list[float]]]]


def gauge(
    name: str, documentation: str, labels: Labels = (), *, merge: Merge = Merge.SUM
) -> Family:
    """Return the family of a gauge."""
    return Family(name, documentation, labels, MetricKind.GAUGE, merge)


def with_zeros(
    counts: Mapping[_LabelsT, float], known: Iterable[_LabelsT]
) -> Iterator[tuple[_LabelsT, float]]:
    """Yield the counts, and 0 for those of `known` that were never counted.

    A counter has to begin with 0, because Prometheus sees no increase in one that begins with 1.
    """
    # A copy: labels that are first counted meanwhile must not be yielded twice.
    counted = dict(counts)
    for labels in known:
        if labels not in counted:
            yield labels, 0
    yield from counted.items()


def by_one(counts: Mapping[str, float], known: Iterable[str]) -> Iterator[tuple[Labels, float]]:
    """Yield the counts of a family with one label, and zeros as with_zeros does."""
    by_labels: dict[Labels, float] = {(value,): count for value, count in counts.items()}
    return with_zeros(by_labels, ((value,) for value in known))


def by_label(histograms: Mapping[str, Histogram]) -> Iterator[tuple[Labels, Histogram]]:
    """Yield the histograms of a family with one label."""
    yield from (((value,), histogram) for value, histogram in tuple(histograms.items()))


def to_plain(collected: Iterable[Collected]) -> Plain:
    """Return all values of a process as plain data."""
    return {
        family.name: [
            (labels, value.to_plain() if isinstance(value, Histogram) else value)
            for labels, value in samples
        ]
        for family, samples in collected
    }


def merged(families: Iterable[Family], processes: Iterable[Plain]) -> Iterator[Collected]:
    """Combine the values of several processes, as the families say."""
    scraped = tuple(processes)
    for family in families:
        values: dict[Labels, float | list[float]] = {}
        for process in scraped:
            for sent, value in process.get(family.name, ()):
                # From JSON the labels come as lists.
                labels = tuple(sent)
                before = values.get(labels)
                values[labels] = value if before is None else _both(family, before, value)
        yield family, [(labels, _value(family, value)) for labels, value in values.items()]


def _both(
    family: Family, first: float | list[float], second: float | list[float]
) -> float | list[float]:
    if isinstance(first, list) and isinstance(second, list):
        return [mine + theirs for mine, theirs in zip(first, second, strict=True)]
    if isinstance(first, list) or isinstance(second, list):
        raise TypeError(family.name)
    if family.merge is Merge.SUM:
        return first + second
    return max(first, second) if family.merge is Merge.MAX else min(first, second)


def _value(family: Family, value: float | list[float]) -> Value:
    if not isinstance(value, list):
        return value
    histogram = Histogram(family.buckets)
    histogram.counts[:] = map(int, value[:-1])
    histogram.total = value[-1]
    return histogram


async def in_steps(parts: Iterable[_PartT]) -> list[_PartT]:
    """Collect all parts, letting the event loop run after every SLICE_SECONDS."""
    collected: list[_PartT] = []
    until = time.perf_counter() + SLICE_SECONDS
    for part in parts:
        collected.append(part)
        if time.perf_counter() >= until:
            await asyncio.sleep(0)
            until = time.perf_counter() + SLICE_SECONDS
    return collected


async def expose(collected: Iterable[Collected], *, openmetrics: bool = False) -> list[bytes]:
    """Return the text in parts, letting the event loop run meanwhile."""
    return await in_steps(text(collected, openmetrics=openmetrics))


def text(collected: Iterable[Collected], *, openmetrics: bool = False) -> Iterator[bytes]:
    """Yield the text in parts: the head of each family, and the lines of each of its samples.

    `openmetrics`: in that format, with exemplars, but without its last line.
    """
    # Exemplars have seconds of the monotonic clock.
    offset = time.time() - time.monotonic()
    for family, samples in collected:
        yield _head(family, openmetrics=openmetrics)
        name = f"{family.name}_total" if family.kind is MetricKind.COUNTER else family.name
        for labels, value in samples:
            texts = [
                f'{label}="{_escaped(label_value)}"'
                for label, label_value in zip(family.labels, labels, strict=True)
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
    for bound, in_bucket, exemplar in zip(
        bounds, histogram.counts, histogram.exemplars, strict=True
    ):
        count += in_bucket
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
