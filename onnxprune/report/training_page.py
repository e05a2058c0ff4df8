"""The part of a page that shows trainings: losses of the updates, and every evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from onnxprune.report.charts import curve
from onnxprune.report.page import Card, Chart, Number, Section, Table, count, maybe

Document = Mapping[str, Any]


def training_card(training: Document) -> Card:
    """The gain of the training, in its metric or else in its loss."""
    name = training["metric"] or "loss"
    old, new = (training[when]["metric" if training["metric"] else "loss"] for when in ("start", "best"))
    before, after = ("-" if value is None else f"{value:.4g}" for value in (old, new))
    return Card(f"{name} after training", after, f"{before} before", "good" if new != old else "")


def trainings(found: Document) -> Iterator[Section]:
    """One section for each training."""
    several = len(found["trainings"]) > 1
    for number, training in enumerate(found["trainings"], 1):
        text = (
            f"{training['updates']:,} updates of {training['weights']:,} weights on {training['samples']:,} samples, "
            f"counted each time; the weights of update {training['best']['update']:,} were kept. Evaluated on samples "
            "that were not trained on."
        )
        columns = (">update", ">loss") + ((f">{training['metric']}",) if training["metric"] else ())
        rows = tuple(_evaluation(each, training["metric"]) for each in training["history"])
        tables = [Table("Every evaluation", columns, rows)]
        if training["losses"]:
            tables.insert(0, _losses(training["losses"]))
        title = f"Training {number}" if several else "Training"
        yield Section(f"training-{number}", title, text, tuple(tables))


def _evaluation(each: Document, metric: str | None) -> tuple[Number, ...]:
    shown = (maybe(each["metric"], lambda value: f"{value:.4f}"),) if metric else ()
    return (count(each["update"]), maybe(each["loss"], lambda value: f"{value:.4g}"), *shown)


def _losses(losses: list[Document]) -> Table:
    """The curve of the loss on the batches that were trained on, from the first update to the last."""
    found = [each["loss"] for each in losses if each["loss"] is not None and isfinite(each["loss"])] or [0.0]
    low, high = min(found), max(found)
    points = [
        (at / max(len(found) - 1, 1), (value - low) / (high - low) if high > low else 0.5)
        for at, value in enumerate(found)
    ]
    picture = Chart(curve(points), f"{found[0]:.4g} at first, {found[-1]:.4g} at last", found[-1])
    row = (Number(f"{low:.4g} to {high:.4g}", low), picture)
    return Table("Loss on the batches that were trained on", (">loss", "~from the first update to the last"), (row,))
