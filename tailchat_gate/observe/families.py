"""Families of metrics, and their values as plain data, from which processes are summed up."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple, Protocol, TypeVar

#: Upper bounds, in seconds, of the buckets for times of requests. Half a millisecond is what a
#: small response takes; the last ones are longer than every default time-out.
BUCKETS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0),
)
#: The same for the lifetimes of WebSockets, from a second to a week.
LIFETIMES: Final = (1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0)

Labels = tuple[str, ...]
_LabelsT = TypeVar("_LabelsT", bound=Labels)


class MetricKind(StrEnum):
    """The types of Prometheus that the gate uses."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(StrEnum):
    """What the values of several processes become together; counters and histograms are added."""

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


#: The id of a request and its trace, its value, and when, in seconds of the monotonic clock.
Exemplar = tuple[str, Traced | None, float, float]


class Histogram:
    """How many values each bucket has, not cumulated, and their sum."""

    __slots__ = ("buckets", "counts", "exemplars", "total")

    def __init__(self, buckets: tuple[float, ...] = BUCKETS) -> None:
        self.buckets: Final = buckets
        self.counts: Final = [0] * (len(buckets) + 1)
        #: By bucket: the request that it counted last.
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
#: Values of one process by family and labels, which JSON or marshal can carry; a histogram is its
#: counts and its sum.
Plain = Mapping[str, list[tuple[Labels, float | list[float]]]]


def gauge(
    name: str, documentation: str, labels: Labels = (), *, merge: Merge = Merge.SUM
) -> Family:
    """Return the family of a gauge."""
    return Family(name, documentation, labels, MetricKind.GAUGE, merge)


def with_zeros(
    counts: Mapping[_LabelsT, float], known: Iterable[_LabelsT]
) -> Iterator[tuple[_LabelsT, float]]:
    """Return counts, and 0 for those of `known` that were never counted.

    Prometheus sees no increase in a counter that begins with 1.
    """
    # What is counted between two samples must not give its labels a second one.
    counted = dict(counts)
    for labels in known:
        if labels not in counted:
            yield labels, 0
    yield from counted.items()


def by_one(counts: Mapping[str, float], known: Iterable[str]) -> Iterator[tuple[Labels, float]]:
    """Return counts by the value of a family's only label, and 0 as with_zeros does."""
    by_labels: dict[Labels, float] = {(value,): count for value, count in counts.items()}
    return with_zeros(by_labels, ((value,) for value in known))


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
    """Yield the values of several processes as those of one."""
    found = tuple(processes)
    for family in families:
        values: dict[Labels, float | list[float]] = {}
        for process in found:
            for sent, value in process.get(family.name, ()):
                # JSON knows no tuples.
                labels = tuple(sent)
                before = values.get(labels)
                values[labels] = value if before is None else _both(family, before, value)
        yield family, [(labels, _value(family, value)) for labels, value in values.items()]


def _both(
    family: Family, one: float | list[float], other: float | list[float]
) -> float | list[float]:
    if isinstance(one, list) and isinstance(other, list):
        return [mine + theirs for mine, theirs in zip(one, other, strict=True)]
    if isinstance(one, list) or isinstance(other, list):
        raise TypeError(family.name)
    if family.merge is Merge.SUM:
        return one + other
    return max(one, other) if family.merge is Merge.MAX else min(one, other)


def _value(family: Family, value: float | list[float]) -> Value:
    if not isinstance(value, list):
        return value
    histogram = Histogram(family.buckets)
    histogram.counts[:] = map(int, value[:-1])
    histogram.total = value[-1]
    return histogram
