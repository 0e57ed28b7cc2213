"""What a worker answers its parent, as JSON: metrics are written in short steps."""

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from tailchat_gate.observe.exposition import SLICE_SECONDS
from tailchat_gate.observe.families import Collected, Family, Histogram, Merge, MetricKind, Plain

#: Samples that are written at a time.
_SAMPLES: Final = 100


async def metrics_text(collected: Iterable[Collected]) -> str:
    """Return families with their samples; other work of the event loop is done in between."""
    parts: list[str] = []
    until = time.perf_counter() + SLICE_SECONDS
    for part in _parts(collected):
        parts.append(part)
        if time.perf_counter() >= until:
            await asyncio.sleep(0)
            until = time.perf_counter() + SLICE_SECONDS
    return f"[{','.join(parts)}]"


def _parts(collected: Iterable[Collected]) -> Iterator[str]:
    for family, samples in collected:
        rest = iter(samples)
        is_first = True
        while (some := list(islice(rest, _SAMPLES))) or is_first:
            is_first = False
            plain = [
                (labels, value.to_plain() if isinstance(value, Histogram) else value)
                for labels, value in some
            ]
            yield json.dumps((family, plain))


def read_metrics(sent: Iterable[Sequence[Any]]) -> tuple[dict[str, Family], Plain]:
    """Return the families, by name, and the values of a process."""
    families: dict[str, Family] = {}
    values: dict[str, list[tuple[tuple[str, ...], float | list[float]]]] = {}
    for (name, documentation, labels, kind, merge, buckets), samples in sent:
        families[name] = Family(
            name, documentation, tuple(labels), MetricKind(kind), Merge(merge), tuple(buckets)
        )
        # JSON knows no tuples.
        values.setdefault(name, []).extend((tuple(found), value) for found, value in samples)
    return families, values


def counted(families: Mapping[str, Family], values: Plain) -> Plain:
    """Return the counters and histograms, which count on when their process has ended."""
    return {
        name: found for name, found in values.items() if families[name].kind is not MetricKind.GAUGE
    }
