"""The model by stages as one SVG: what is drawn in `report.stages`, from the inputs at the top to the outputs.

A layer is a box as wide as its width, filled as far as it is kept; what the removed units took is the pale rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import sqrt
from typing import Any

from onnxprune.report.charts import shortened

_ROW, _COLUMN, _MARGIN = 46, 176, 10
_BOX_HEIGHT, _WIDEST, _NARROWEST = 24, 160, 96
_NAME_LENGTH, _LETTER = 22, 6.6


def flow(stages: Sequence[Mapping[str, Any]]) -> str:
    """The picture, in pixels; wide models are wider than a phone, so it goes into something that scrolls."""
    rows: dict[int, list[int]] = {}
    for index, entry in enumerate(stages):
        rows.setdefault(entry["stage"], []).append(index)
    most = max((len(row) for row in rows.values()), default=1)
    around = 40 if any(entry["stage"] - stages[each]["stage"] > 1 for entry in stages for each in entry["from"]) else 0
    width, height = most * _COLUMN + 2 * _MARGIN + around, len(rows) * _ROW + 2 * _MARGIN
    widest = max((entry["width"][0] for entry in stages if entry["width"]), default=1)
    middles = {index: _middle(place, len(row), most) for row in rows.values() for place, index in enumerate(row)}
    edges = [_edge(stages, middles, before, index) for index, entry in enumerate(stages) for before in entry["from"]]
    boxes = [_box(entry, middles[index], widest) for index, entry in enumerate(stages)]
    return (
        f'<svg class="flow" xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-labelledby="flow-title">'
        f'<title id="flow-title">The model by stages: {len(stages)} inputs, layers, joins and outputs</title>'
        f"{''.join(edges)}{''.join(boxes)}</svg>"
    )


def _middle(place: int, count: int, most: int) -> float:
    return _MARGIN + _COLUMN * (most / 2 + place - (count - 1) / 2)


def _top(entry: Mapping[str, Any]) -> float:
    return float(_MARGIN + entry["stage"] * _ROW)


def _edge(stages: Sequence[Mapping[str, Any]], middles: Mapping[int, float], start: int, end: int) -> str:
    """Straight down to the next stage; around the right side of what lies between to a later one."""
    x, y = middles[start], _top(stages[start]) + _BOX_HEIGHT
    to_x, to_y = middles[end], _top(stages[end])
    span = stages[end]["stage"] - stages[start]["stage"]
    if span == 1:
        return f'<path class="edge" d="M{x:g} {y:g}C{x:g} {y + 14:g} {to_x:g} {to_y - 14:g} {to_x:g} {to_y:g}"/>'
    out = max(x, to_x) + _WIDEST / 2 + 10 + 6 * min(span - 2, 4)
    middle_y, middle_to = y - _BOX_HEIGHT / 2, to_y + _BOX_HEIGHT / 2
    around = f"C{out:g} {middle_y:g} {out:g} {middle_to:g} {to_x:g} {middle_to:g}"
    return f'<path class="edge" d="M{x:g} {middle_y:g}{around}"/>'


def _box(entry: Mapping[str, Any], middle: float, widest: int) -> str:
    kind, label = entry["kind"], _label(entry)
    top, (before, after) = _top(entry), entry["width"] or (1, 1)
    wide = _NARROWEST + (_WIDEST - _NARROWEST) * sqrt(before / widest) if kind == "layer" else _NARROWEST + 10.0
    wide = max(wide, _LETTER * len(label) + 12)
    left = middle - wide / 2
    box = f'x="{left:.1f}" y="{top:g}" height="{_BOX_HEIGHT}" rx="4"'
    cut = f'<rect class="left" {box} width="{wide * after / before:.1f}"/>' if kind == "layer" else ""
    return (
        f'<g class="{kind}"><title>{escape(_described(entry))}</title>'
        f'<rect class="whole" {box} width="{wide:.1f}"/>{cut}'
        f'<text x="{middle:g}" y="{top + 16:g}" text-anchor="middle">{escape(label)}</text></g>'
    )


def _label(entry: Mapping[str, Any]) -> str:
    if entry["operator"] is None:
        return shortened(str(entry["name"]), _NAME_LENGTH)
    if entry["width"] is None:
        return str(entry["operator"])
    before, after = entry["width"]
    return f"{entry['operator']} {before}" if before == after else f"{entry['operator']} {before} → {after}"


def _described(entry: Mapping[str, Any]) -> str:
    """The text that appears when the pointer rests on a box."""
    before, after = entry["parameters"]
    parameters = f"; {before:,} parameters, {after:,} left" if before else ""
    widths = "; {} of {} units left".format(*reversed(entry["width"])) if entry["width"] else ""
    return f"{entry['name']}{widths}{parameters}"
