"""The effect of cutting each group alone, as a document and as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxprune.analysis.groups import Group
from onnxprune.steps.prune.sensitivity import Sensitivity


def sensitivity_document(model: Path, groups: list[Group], found: Sensitivity) -> dict[str, Any]:
    """The curve of every group, ready for JSON."""
    from onnxprune.report.data import FORMAT

    return {
        "format": FORMAT,
        "kind": "sensitivity",
        "model": str(model),
        "metric": found.metric,
        "recover": found.recovery,
        "samples": found.samples,
        "whole": found.whole,
        "higher_is_better": found.higher_is_better,
        "groups": [
            {
                "id": group.id,
                "kind": group.kind,
                "units": group.units,
                "lost": list(found.curves[group.id].lost),
                "values": list(found.curves[group.id].values),
            }
            for group in groups
        ],
    }


def show_sensitivity(groups: list[Group], found: Sensitivity, ratios: list[float]) -> None:
    """The curves as a table in the terminal."""
    from onnxprune.report.tables import TextTable
    from onnxprune.report.terminal import console
    from onnxprune.steps.prune.allocation.base import share

    how = "" if found.recovery == "none" else f", after {found.recovery}"
    title = f"{found.metric}{how}, {found.whole:.4g} when whole, on {found.samples} samples"
    table = TextTable("group", ">units", *(f">-{ratio:.4g}" for ratio in ratios), title=title)
    for group in groups:
        values = dict(zip(found.curves[group.id].lost, found.curves[group.id].values, strict=True))
        cells = [f"{values[share(ratio, group.units)]:.3g}" for ratio in ratios]
        table.add_row(group.id, f"{group.units:,}", *cells)
    console().print(table)
