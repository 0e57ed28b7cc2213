"""From the samples of all rounds to the table that is read: medians, ratios and their spread."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from measure import Sample

Rounds = Mapping[str, Sequence[Sample]]

_COLUMNS: tuple[tuple[str, Callable[[Sample], float], str], ...] = (
    ("us CPU/request", lambda s: s.cpu_us, ".1f"),
    ("requests/s", lambda s: s.rate, ".0f"),
    ("p50 ms", lambda s: s.p50_ms, ".2f"),
    ("p99 ms", lambda s: s.p99_ms, ".2f"),
    ("RSS MiB", lambda s: s.rss_mib, ".1f"),
)
_RATIOS: tuple[tuple[str, Callable[[Sample], float]], ...] = (
    ("CPU", lambda s: s.cpu_us),
    ("p99", lambda s: s.p99_ms),
)


def spread(values: Iterable[float], form: str) -> str:
    """Median and, in brackets, the least and the greatest of `values`, each in format `form`."""
    kept = list(values)
    middle, low, high = statistics.median(kept), min(kept), max(kept)
    return f"{middle:{form}} ({low:{form}}-{high:{form}})"


def ratios(rounds: Rounds, ours: str, theirs: str, value: Callable[[Sample], float]) -> list[float]:
    """The ratio of two peers in each round; both were measured within the same seconds."""
    pairs = zip(rounds[ours], rounds[theirs], strict=True)
    return [value(mine) / value(other) for mine, other in pairs]


def table(rounds: Rounds) -> list[str]:
    """One line a peer, then one line a ratio of the gate to each other peer."""
    head = ["peer", *(name for name, _, _ in _COLUMNS)]
    body = [
        [peer, *(spread(map(value, samples), form) for _, value, form in _COLUMNS)]
        for peer, samples in rounds.items()
    ]
    lines = align([head, *body])
    if "gate" in rounds:
        others = [peer for peer in rounds if peer != "gate"]
        head = ["ratio", *(name for name, _ in _RATIOS)]
        body = [
            [
                f"gate/{other}",
                *(spread(ratios(rounds, "gate", other, value), ".2f") for _, value in _RATIOS),
            ]
            for other in others
        ]
        lines += ["", *align([head, *body])]
    return lines


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
