"""From the samples of all rounds to the tables that are read: medians, ratios, goals."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from measure import Sample
from process import BenchError

Rounds = Mapping[str, Sequence[Sample]]
"""The samples of one work by entry, one a round."""

Row = Sequence[str]

_COLUMNS: Mapping[str, tuple[str, str]] = {
    "cpu_us": ("us CPU/{unit}", ".1f"),
    "connections": ("connections", ".0f"),
    "bytes": ("bytes/connection", ".0f"),
    "rate": ("{unit}s/s", ".0f"),
    "p50_ms": ("p50 ms", ".2f"),
    "p99_ms": ("p99 ms", ".2f"),
    "rss_mib": ("RSS MiB", ".1f"),
    "loader": ("cores of load", ".2f"),
}


def spread(values: Iterable[float], form: str) -> str:
    """Median and, in brackets, the least and the greatest of `values`, each in format `form`."""
    kept = list(values)
    middle, low, high = statistics.median(kept), min(kept), max(kept)
    if len(kept) == 1:
        return f"{middle:{form}}"
    return f"{middle:{form}} ({low:{form}}-{high:{form}})"


def ratios(rounds: Rounds, ours: str, theirs: str, key: str) -> list[float]:
    """The ratio of two entries in each round; both were measured within the same minute."""
    pairs = zip(rounds[ours], rounds[theirs], strict=True)
    return [mine[key] / other[key] for mine, other in pairs]


def figures(rounds: Rounds, unit: str) -> list[Row]:
    """One row an entry, under a row of names."""
    first = next(iter(rounds.values()))[0]
    keys = [key for key in _COLUMNS if key in first]
    head = ["", *(_COLUMNS[key][0].format(unit=unit) for key in keys)]
    body = [
        [name, *(spread((one[key] for one in samples), _COLUMNS[key][1]) for key in keys)]
        for name, samples in rounds.items()
    ]
    return [head, *body]


def compared(rounds: Rounds, baseline: str = "") -> list[Row]:
    """The ratios of all entries to `baseline`, or without one of the gate to all others."""
    if baseline in rounds:
        pairs = [(other, baseline) for other in rounds if other != baseline]
    elif "gate" in rounds:
        pairs = [("gate", other) for other in rounds if other != "gate"]
    else:
        pairs = []
    if not pairs:
        return []
    first = next(iter(rounds.values()))[0]
    keys = [key for key in ("cpu_us", "p99_ms") if key in first]
    if not keys:
        return []
    names = {"cpu_us": "CPU", "p99_ms": "p99"}
    return [
        ["ratio", *(names[key] for key in keys)],
        *(
            [f"{ours} / {theirs}", *(spread(ratios(rounds, ours, theirs, k), ".2f") for k in keys)]
            for ours, theirs in pairs
        ),
    ]


def align(rows: Sequence[Row]) -> list[str]:
    """Columns of equal width: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def markdown(rows: Sequence[Row]) -> list[str]:
    """The same as a table of Markdown."""
    if not rows:
        return []
    head, *body = rows
    rule = ["---", *("---:" for _ in head[1:])]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *body)] + [""]


def marks(block: str) -> tuple[str, str]:
    """The lines of a document between which the tables of a block are."""
    return f"<!-- {block}:begin -->", f"<!-- {block}:end -->"


def put(path: Path, blocks: Mapping[str, Sequence[str]]) -> None:
    """Write Markdown to `path`; in a document that is there, each block between its marks.

    Raises BenchError for a document without these.
    """
    whole = path.read_text(encoding="utf-8") if path.exists() else ""
    text = whole
    for block, lines in blocks.items():
        words = "\n".join(lines).rstrip() + "\n"
        if not whole:
            text += words
            continue
        begin, end = marks(block)
        before, first, rest = text.partition(begin)
        _, last, after = rest.partition(end)
        if not first or not last:
            raise BenchError(f"{path} has no lines {begin} and {end} to write between")
        text = f"{before}{begin}\n{words}{end}{after}"
    path.write_text(text, encoding="utf-8")
