"""How the scores of each group are spread, as one SVG: a histogram per group, with its median."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from onnxprune.report.charts import column_path, shortened
from onnxprune.report.details import along, histogram, is_skewed

_WIDTH, _ROW, _HEAD = 960, 44, 64
_LEFT, _RIGHT = 320, 840  # between these lie the bars
_HEIGHT = 30
_BINS = 52
_NAME_LENGTH = 42

_STYLE = """
  svg { background: #fff; font: 12px system-ui, sans-serif; fill: #222 }
  .title { font-size: 16px; font-weight: 600 }
  .faint { fill: #666 }
  .bar { fill: #4477aa }
  .axis { stroke: #bbb }
  .median { stroke: #cc3311; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    svg { background: #16181c; fill: #e6e6e6 }
    .faint { fill: #a0a0a0 }
    .bar { fill: #77aadd }
    .axis { stroke: #555 }
    .median { stroke: #ff8866 }
  }
"""


def plot(found: Mapping[str, Any]) -> str:
    """The plot of a document of `report.scores.of_scores`.

    Each group has an axis of its own, from its lowest to its highest score, since scores of different groups are on
    different scales; those of a criterion that is comparable share one axis.
    """
    groups = found["groups"]
    shared = found["comparable"] and [score for group in groups for score in group["scores"]]
    ends = (min(shared), max(shared)) if shared else None
    height = _HEAD + _ROW * len(groups) + 8
    scale = "one axis for all groups" if ends else "an axis for each group, from its lowest to its highest score"
    title = f"{found['criterion']} on {found['model']}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img">',
        f"<title>Scores by {escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="16" y="26">{escape(title)}</text>',
        f'<text class="faint" x="16" y="46">units per score; {scale}; the line is the median</text>',
        f'<text class="faint" x="{_RIGHT + 12}" y="46">lowest, highest</text>',
    ]
    for row, group in enumerate(groups):
        lines.extend(_row(group, _HEAD + _ROW * row, ends))
    return "\n".join([*lines, "</svg>", ""])


def _row(group: Mapping[str, Any], top: int, ends: tuple[float, float] | None) -> list[str]:
    """Name, histogram and range of one group; on a logarithmic axis where its own scores are skewed."""
    values = scores = np.array(group["scores"])
    logarithmic = ends is None and is_skewed(scores)
    if logarithmic:
        values = np.log(scores)
    ends = ends or (float(values.min()), float(values.max()))
    counts = histogram(values, _BINS, ends)
    name, base, step = group["id"], top + _HEIGHT, (_RIGHT - _LEFT) / _BINS
    short = shortened(name, _NAME_LENGTH)
    said = f"{group['units']:,} {group['kind']}" + (", logarithmic" if logarithmic else "")
    bars = column_path(counts, counts.max(), _LEFT, step, base, _HEIGHT)
    at = _LEFT + (_RIGHT - _LEFT) * along(np.median(values), ends)
    return [
        f'<g><title>{escape(name)}</title><text x="16" y="{top + 14}">{escape(short)}</text>',
        f'<text class="faint" x="16" y="{top + 29}">{escape(said)}</text>',
        f'<path class="axis" d="M{_LEFT} {base}.5H{_RIGHT}"/><path class="bar" d="{bars}"/>',
        f'<path class="median" d="M{at:.1f} {top}V{base + 4}"/>',
        f'<text class="faint" x="{_RIGHT + 12}" y="{top + 14}">{scores.min():.3g}</text>',
        f'<text class="faint" x="{_RIGHT + 12}" y="{top + 29}">{scores.max():.3g}</text></g>',
    ]
