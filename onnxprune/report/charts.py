"""Small pictures as inline SVG. Colours come from the style sheet of the page, by class.

Pictures in table cells carry no text and stretch to the width they get; what they show is said beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxprune.report.details import along, histogram

_DENSITY_BINS = 80


def cell(shapes: str, width: float, height: float, kind: str) -> str:
    """A picture that fills its table cell."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {_short(width)} {_short(height)}" preserveAspectRatio="none" '
        f'aria-hidden="true" focusable="false">{shapes}</svg>'
    )


def shortened(name: str, length: int) -> str:
    """A name in at most `length` letters: of a longer one the middle is left out."""
    start = length // 3
    return name if len(name) <= length else f"{name[:start]}…{name[start + 1 - length :]}"


def column_path(counts: Sequence[int] | Any, highest: int, left: float, step: float, base: float, height: float) -> str:
    """The path of a histogram's columns on `base`, the `highest` count as high as `height`."""
    gap = min(1.0, step / 6)
    return "".join(
        f"M{left + step * index:.1f} {base:g}v{-height * count / highest:.1f}h{step - gap:.1f}V{base:g}z"
        for index, count in enumerate(counts)
        if count
    )


def bar(before: float, after: float, largest: float) -> str:
    """The part that is left within the whole, the largest of all bars as wide as the cell."""
    whole, left = (100 * value / largest if largest else 0.0 for value in (before, after))
    shapes = f'<rect class="track" width="{_short(whole)}" height="10"/>'
    return cell(f'{shapes}<rect class="kept" width="{_short(left)}" height="10"/>', 100, 10, "bar")


def extent(whole: Sequence[float], part: Sequence[float]) -> str:
    """Where a part lies within a whole, both from a least to a largest number; the picture holds both."""
    low, high = min(whole[0], part[0]), max(whole[1], part[1])
    scale = 100 / (high - low) if high > low else 0.0
    shapes = "".join(
        f'<rect class="{kind}" x="{_short((ends[0] - low) * scale)}" width="{_short((ends[1] - ends[0]) * scale)}" '
        f'y="{top}" height="{height}"/>'
        for kind, ends, top, height in (("track", whole, 0, 10), ("kept", part, 2, 6))
    )
    return cell(shapes, 100, 10, "bar")


def pair(before: float, after: float, largest: float) -> str:
    """Two thin bars, one above the other."""
    widths = (100 * value / largest if largest else 0.0 for value in (before, after))
    shapes = "".join(
        f'<rect class="{kind}" y="{top}" width="{_short(width)}" height="5"/>'
        for kind, top, width in zip(("removed", "kept"), (0, 6), widths, strict=True)
    )
    return cell(shapes, 100, 11, "bar")


def spread(kept: Sequence[int], removed: Sequence[int]) -> str:
    """A histogram of scores: units that stay, on top of those that go."""
    highest = max(1, *(a + b for a, b in zip(kept, removed, strict=True)))
    step, height = 10.0, 40.0
    shapes = [f'<path class="axis" d="M0 {height:g}H{step * len(kept):g}"/>']
    for index, (stays, goes) in enumerate(zip(kept, removed, strict=True)):
        base = height - height * goes / highest
        shapes.append(_column("removed", goes, highest, index * step, height, height))
        shapes.append(_column("kept", stays, highest, index * step, base, height))
    return cell("".join(shapes), step * len(kept), height, "spread")


def _column(kind: str, count: int, highest: int, left: float, base: float, height: float) -> str:
    return f'<path class="{kind}" d="{column_path([count], highest, left, 10.0, base, height)}"/>' if count else ""


def distribution(percentiles: Sequence[float], ends: tuple[float, float]) -> str:
    """How times are spread, from their percentiles 0 to 100: density as area, the middle half darker, the median."""
    fine = np.interp(np.linspace(0, 100, 2001), np.arange(len(percentiles)), percentiles)
    inside = fine[(fine >= ends[0]) & (fine <= ends[1])]
    counts = histogram(inside, _DENSITY_BINS, ends).astype(float)
    smooth = np.convolve(counts, (0.25, 0.5, 0.25), mode="same")
    heights = 34 * smooth / max(smooth.max(), 1e-9)
    points = " ".join(f"{index + 0.5:g},{36 - height:.1f}" for index, height in enumerate(heights))
    q1, median, q3 = (_DENSITY_BINS * float(along(np.array(percentiles[at]), ends)) for at in (25, 50, 75))
    shapes = (
        f'<polygon class="kept soft" points="0,36 {points} {_DENSITY_BINS},36"/>'
        f'<path class="axis" d="M0 36H{_DENSITY_BINS}"/>'
        f'<rect class="kept" x="{q1:.2f}" y="37" width="{max(q3 - q1, 0.3):.2f}" height="5"/>'
        f'<path class="median" d="M{median:.2f} 0V42"/>'
    )
    return cell(shapes, _DENSITY_BINS, 42, "spread")


def curve(points: Sequence[tuple[float, float]]) -> str:
    """A line through points of the unit square, y upwards, with the dots."""
    placed = [(100 * x, 38 - 34 * y) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    dots = "".join(f'<path class="dot" d="M{x:.1f} {y:.1f}h.01"/>' for x, y in placed)
    return cell(f'<path class="axis" d="M0 40H100"/><polyline class="line" points="{line}"/>{dots}', 100, 42, "spread")


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def shares(profile: Mapping[str, float], whole: float) -> str:
    """One bar cut in parts, for where time goes."""
    shapes, left = ['<rect class="track" width="100" height="10"/>'], 0.0
    for number, seconds in enumerate(profile.values()):
        width = 100 * seconds / whole if whole else 0.0
        shapes.append(f'<rect class="part{number % 8}" x="{_short(left)}" width="{_short(width)}" height="10"/>')
        left += width
    return cell("".join(shapes), 100, 10, "bar")
