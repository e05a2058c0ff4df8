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
    """What `score` found; `data` names the calibration data, None where there was none."""
    return {
        "format": FORMAT,
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
    table = terminal.table_of("group", "kind", ">units", ">lowest", ">median", ">highest", "spread", title=title)
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


def of_criteria(found: Sequence[Criterion]) -> dict[str, Any]:
    """Every criterion with what it needs, costs and comes from."""
    return {
        "format": FORMAT,
        "criteria": [
            {
                "name": each.name,
                "summary": each.summary,
                "needs": list(each.needs),
                "cost": each.cost,
                "source": each.source,
                "comparable": each.comparable,
            }
            for each in found
        ],
    }


def show_criteria(found: Sequence[Criterion]) -> None:
    """The same as a table."""
    table = terminal.table_of("criterion", "needs", "score, cost and source")
    for each in found:
        lines = [each.summary, f"cost: {each.cost or 'not said'}", f"source: {each.source or 'not said'}", ""]
        table.add_row(each.name, ", ".join(each.needs) or "nothing", "\n".join(lines))
    out = terminal.console()
    out.print(table)
    out.print("Add them up on ranks: --criterion 'l2*0.7+random*0.3'. All but weights takes --data.", soft_wrap=True)
