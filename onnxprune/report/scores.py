"""Scores of units and the list of criteria: as plain dictionaries, as CSV, as tables for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.analysis.groups import Group
from onnxprune.report import terminal
from onnxprune.report.data import FORMAT
from onnxprune.report.details import histogram
from onnxprune.report.tables import TextTable
from onnxprune.steps.prune.criteria.base import Criterion, Scores

_BLOCKS = "▁▂▃▄▅▆▇█"
_LETTERS = ".:-=+*#@"  # for a terminal that knows ASCII only
_BINS = 16


def of_scores(
    scores: Mapping[str, Scores],
    groups: Sequence[Group],
    criterion: Criterion,
    model: Path,
    *,
    data: str | None,
    seed: int,
) -> dict[str, Any]:
    """The results of `score`; `data` names the calibration data, None where there was none."""
    return {
        "format": FORMAT,
        "kind": "scores",
        "model": str(model),
        "criterion": criterion.name,
        "source": criterion.source,
        "comparable": criterion.comparable,
        "data": data,
        "seed": seed,
        "groups": [
            {"id": group.id, "kind": group.kind, "units": group.units, "scores": scores[group.id].tolist()}
            for group in groups
        ],
    }


def as_csv(found: Mapping[str, Any]) -> str:
    """A document of `of_scores` as lines `group,kind,unit,score`; units count from 0."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "kind", "unit", "score"])
    for group in found["groups"]:
        writer.writerows([group["id"], group["kind"], unit, score] for unit, score in enumerate(group["scores"]))
    return text.getvalue()


def show_scores(found: Mapping[str, Any]) -> None:
    """A line per group: lowest, median and highest score, and how they are spread between."""
    out = terminal.console()
    bars = _BLOCKS if out.encoding.lower().startswith("utf") else _LETTERS
    title = f"{found['criterion']}: the higher, the more a unit matters"
    table = TextTable("group", "kind", ">units", ">lowest", ">median", ">highest", ">spread", title=title)
    for group in found["groups"]:
        values = np.array(group["scores"])
        numbers = [f"{number:.4g}" for number in (values.min(), np.median(values), values.max())]
        table.add_row(group["id"], group["kind"], f"{group['units']:,}", *numbers, sparkline(values, bars))
    out.print(table if found["groups"] else "no group can be scored: every dimension is frozen or excluded")


def sparkline(values: Scores, bars: str = _BLOCKS) -> str:
    """A histogram from the lowest to the highest value as one character per bin; empty bins are blank."""
    counts = histogram(values, _BINS, (float(values.min()), float(values.max())))
    heights = -(-counts * len(bars) // counts.max())  # rounded up
    return "".join(bars[height - 1] if height else " " for height in heights)
