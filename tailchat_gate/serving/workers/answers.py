"""The metrics that a worker sends to its parent as JSON, written and read."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from tailchat_gate.observe.families import (
    Collected,
    Exemplar,
    Family,
    Histogram,
    Labels,
    Merge,
    MetricKind,
    Plain,
    Value,
    in_steps,
)

#: Samples written in one step, between which the event loop does other work.
_SAMPLES: Final = 100


class TraceId(NamedTuple):
    """The trace of a request in another process."""

    trace_id: str


#: The exemplars of histograms, by family and labels, each with the number of its bucket.
Exemplars = Mapping[str, Sequence[tuple[Labels, Sequence[tuple[int, Exemplar]]]]]


async def metrics_text(collected: Iterable[Collected], *, exemplars: bool) -> str:
    """Return families and their samples as JSON; the event loop does other work in between.

    `exemplars`: include the exemplars of histograms.
    """
    return f"[{','.join(await in_steps(_parts(collected, exemplars=exemplars)))}]"


def _parts(collected: Iterable[Collected], *, exemplars: bool) -> Iterator[str]:
    for family, samples in collected:
        rest = iter(samples)
        is_first = True
        while (some := list(islice(rest, _SAMPLES))) or is_first:
            is_first = False
            yield json.dumps((family, [_plain(*sample, exemplars=exemplars) for sample in some]))


def _plain(labels: Labels, value: Value, *, exemplars: bool) -> Sequence[object]:
    if not isinstance(value, Histogram):
        return labels, value
    if not exemplars:
        return labels, value.to_plain()
    placed = [
        (place, exemplar[0], exemplar[1] and exemplar[1].trace_id, *exemplar[2:])
        for place, exemplar in enumerate(value.exemplars)
        if exemplar is not None
    ]
    return labels, value.to_plain(), placed


def read_exemplars(sent: Iterable[Sequence[Any]]) -> Exemplars:
    """Return the exemplars from the parsed JSON of one process."""
    return {
        family[0]: [
            (
                tuple(labels),
                [
                    (place, (identity, trace and TraceId(trace), value, at))
                    for place, identity, trace, value, at in rest[0]
                ],
            )
            for labels, _, *rest in samples
            if rest
        ]
        for family, samples in sent
    }


def with_exemplars(
    collected: Iterable[Collected], by_family: Sequence[Exemplars]
) -> Iterator[Collected]:
    """Yield `collected` with the latest exemplar that any process found for each bucket."""
    for family, samples in collected:
        listed = list(samples)
        by_labels = {labels: value for labels, value in listed if isinstance(value, Histogram)}
        for labels, exemplars in (
            entry for each in by_family for entry in each.get(family.name, ())
        ):
            if (histogram := by_labels.get(labels)) is None:
                continue
            for place, exemplar in exemplars:
                known = histogram.exemplars[place]
                if known is None or known[-1] < exemplar[-1]:
                    histogram.exemplars[place] = exemplar
        yield family, listed


def read_metrics(sent: Iterable[Sequence[Any]]) -> tuple[dict[str, Family], Plain]:
    """Return the families by name, and the values, from the parsed JSON of one process."""
    families: dict[str, Family] = {}
    values: dict[str, list[tuple[tuple[str, ...], float | list[float]]]] = {}
    for (name, documentation, labels, kind, merge, buckets), samples in sent:
        families[name] = Family(
            name, documentation, tuple(labels), MetricKind(kind), Merge(merge), tuple(buckets)
        )
        # JSON knows no tuples.
        values.setdefault(name, []).extend((tuple(labels), value) for labels, value, *_ in samples)
    return families, values


def counted(families: Mapping[str, Family], values: Plain) -> Plain:
    """Return the counters and histograms: their totals must outlive the process."""
    return {
        name: samples
        for name, samples in values.items()
        if families[name].kind is not MetricKind.GAUGE
    }
