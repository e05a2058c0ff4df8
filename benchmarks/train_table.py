"""How the rows of `train.py` become its table."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from statistics import mean

from recovery_common import Row

# Model, ratio, method, least accuracy in percent; where negative, points that may be lacking to the dense model.
AIMS = (
    ("resnet20", 2.11, "distilled, 1 epoch", 84.5),
    ("resnet20", 2.11, "distilled and labels, 1 epoch", 85.0),
    ("resnet20", 2.11, "distilled, 2 epochs", -1.5),
    ("resnet20", 2.11, "distilled, 500 images, 15 minutes", 81.5),
    ("resnet56", 2.57, "distilled, 1 epoch", 87.3),
    ("digits_transformer", 2.0, "distilled", -0.5),
    ("digits_lstm", 3.0, "distilled", -0.3),
    ("digits_resnet", 3.0, "distilled", -0.3),
)
PACKAGES = ("onnxprune", "onnxruntime", "torch", "torch-pruning")


def to_markdown(rows: Sequence[Row]) -> str:
    """The file."""
    lines = ["# What training wins back", ""]
    lines.append(f"`python benchmarks/train.py`; {', '.join(versions())}. Means over seeds; in brackets the least.")
    lines += ["", *aims(rows), ""]
    for model in dict.fromkeys(row.model for row in rows):
        lines += table(model, [row for row in rows if row.model == model])
    return "\n".join(lines)


def versions() -> list[str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def dense(rows: Sequence[Row], model: str) -> float:
    return next((row.value for row in rows if row.model == model and row.method == "dense"), float("nan"))


def aims(rows: Sequence[Row]) -> list[str]:
    """The aims, and the numbers that were reached."""
    lines = []
    for model, ratio, method, least in AIMS:
        values = [row.value for row in rows if (row.model, row.ratio, row.method) == (model, ratio, method)]
        due = dense(rows, model) + least if least < 0 else least
        if values:
            word = "reached" if mean(values) >= due - 1e-9 else "missed"
            lines.append(
                f"- {model} at {ratio:g}x, {method}, aim {due:.1f}%: {word}, {mean(values):.2f} "
                f"({min(values):.2f}, {len(values)} seeds)"
            )
    return lines


def table(model: str, rows: Sequence[Row]) -> list[str]:
    """One model."""
    lines = [f"## {model} (dense {dense(rows, model):.2f}%)", ""]
    lines += ["| | fewer MACs | images | accuracy, % | seeds | CPU seconds |", "|---|---|---|---|---|---|"]
    for method in dict.fromkeys(row.method for row in rows if row.method != "dense"):
        own = [row for row in rows if row.method == method]
        values, seconds = [row.value for row in own], [row.cpu for row in own if row.cpu]
        lines.append(
            f"| {method} | {own[0].reached:.2f}x | {own[0].images:,} | {mean(values):.2f} ({min(values):.2f}) "
            f"| {len(own)} | {f'{mean(seconds):.0f}' if seconds else ''} |"
        )
    return [*lines, ""]
