"""Curves of a metric against the share of units removed, one small picture per group, as one SVG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import isfinite

from onnxprune.analysis.groups import Group
from onnxprune.report.charts import shortened
from onnxprune.steps.prune.allocation.base import Curve

_WIDTH, _HEIGHT, _MARGIN, _COLUMNS = 220, 110, 24, 4
_STYLE = (
    "text{font:11px sans-serif;fill:#444}.axis{stroke:#bbb;fill:none}.curve{stroke:#2a6fdb;stroke-width:2;fill:none}"
    "circle{fill:#2a6fdb}@media(prefers-color-scheme:dark){text{fill:#ccc}.axis{stroke:#666}}"
)


def to_svg(metric: str, groups: Sequence[Group], curves: Mapping[str, Curve]) -> str:
    """The picture; all panels share one scale, so the groups that hurt are easy to see."""
    finite = [value for group in groups for value in curves[group.id].values if isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    rows = -(-len(groups) // _COLUMNS)
    width, height = _COLUMNS * _WIDTH, rows * _HEIGHT + _MARGIN
    title = f"{metric} ({low:.3g} to {high:.3g}) against the share of units removed"
    panels = [
        _panel(group, curves[group.id], low, high, index % _COLUMNS, index // _COLUMNS)
        for index, group in enumerate(groups)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style>",
            f'<text x="8" y="16">{escape(title)}</text>',
            *panels,
            "</svg>\n",
        ]
    )


def _panel(group: Group, curve: Curve, low: float, high: float, column: int, row: int) -> str:
    left, top = column * _WIDTH + 8, row * _HEIGHT + _MARGIN
    wide, tall = _WIDTH - 24, _HEIGHT - 34
    points = [
        (left + wide * lost / group.units, top + tall - tall * (value - low) / ((high - low) or 1.0))
        for lost, value in zip(curve.lost, curve.values, strict=True)
        if isfinite(value)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points)
    name = shortened(group.id, 30)
    return (
        f'<path class="axis" d="M{left},{top}V{top + tall}H{left + wide}"/><polyline class="curve" points="{line}"/>'
        f'{dots}<text x="{left}" y="{top + tall + 14}">{escape(name)} ({group.units})</text>'
    )
