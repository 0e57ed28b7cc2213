"""Small plots as inline SVG, without scripts, and without style attributes, which CSP forbids."""

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

#: Size of a plot in a table, and of a large one, in user units.
_SPARK: Final = (120, 26)
_LARGE: Final = (600, 130)


def spark(values: Sequence[float], label: str) -> Markup:
    """Return a small line plot for a table."""
    width, height = _SPARK
    line = _line(values, max(values, default=0), width, height)
    return _svg("spark", _SPARK, label, Markup('<polyline points="{}"/>').format(line))


def bars(good: Sequence[float], bad: Sequence[float], label: str) -> Markup:
    """Return stacked bars, the bad part below the good one."""
    width, height = _LARGE
    most = max((a + b for a, b in zip(good, bad, strict=True)), default=0) or 1
    each = width / max(len(good), 1)
    parts = []
    for position, (up, down) in enumerate(zip(good, bad, strict=True)):
        x, whole, lower = position * each, (up + down) / most * height, down / most * height
        if whole:
            parts.append(_bar("good", x, height - whole, each, whole - lower))
        if lower:
            parts.append(_bar("bad", x, height - lower, each, lower))
    return _svg("plot", _LARGE, label, Markup("").join(parts))


def lines(upper: Sequence[float], lower: Sequence[float], label: str) -> Markup:
    """Return two lines on one scale."""
    width, height = _LARGE
    most = max((*upper, *lower), default=0)
    shapes = [
        Markup('<polyline class="{}" points="{}"/>').format(
            name, _line(values, most, width, height)
        )
        for name, values in (("upper", upper), ("lower", lower))
    ]
    return _svg("plot", _LARGE, label, Markup("").join(shapes))


def _svg(name: str, size: tuple[int, int], label: str, content: Markup) -> Markup:
    return Markup(
        '<svg class="{}" viewBox="-2 -2 {} {}" preserveAspectRatio="none" role="img" '
        'aria-label="{}">{}</svg>'
    ).format(name, size[0] + 4, size[1] + 4, label, content)


def _bar(name: str, x: float, y: float, width: float, height: float) -> Markup:
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        name, x, y, width * 0.8, height
    )


def _line(values: Sequence[float], most: float, width: int, height: int) -> str:
    """Return the points of a line, scaled so that `most` reaches the top."""
    step = width / max(len(values) - 1, 1)
    scale = height / most if most else 0.0
    if len(values) == 1:
        values = (*values, *values)
    return " ".join(
        f"{position * step:.1f},{height - value * scale:.1f}"
        for position, value in enumerate(values)
    )
