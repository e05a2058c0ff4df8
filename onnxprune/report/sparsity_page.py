"""The part of a page that shows how sparse each layer is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from onnxprune.report.charts import bar
from onnxprune.report.page import Card, Cell, Chart, Number, Section, Table
from onnxprune.support.quantities import show_bytes

Document = Mapping[str, Any]


def sparsity_card(sparsity: Document) -> Card:
    """All layers together, and bytes when zipped."""
    weights, zeros = (sum(layer[name] for layer in sparsity["layers"]) for name in ("weights", "zeros"))
    zipped = sparsity["zipped_bytes"]
    detail = (
        f"of {len(sparsity['layers'])} layers; zipped {show_bytes(zipped['before'])} → {show_bytes(zipped['after'])}"
    )
    return Card("weights that are zero", f"{zeros / max(weights, 1):.0%}", detail)


def sparsity_section(found: Document) -> Iterator[Section]:
    """Every layer with its weights and zeros, and why others stay dense."""
    sparsity = found["sparsity"]
    if not sparsity:
        return
    layers = sparsity["layers"]
    largest = max((layer["weights"] for layer in layers), default=1)
    rows = tuple(_row(layer, largest) for layer in layers)
    chosen = [f"{name} {sparsity[name]}" for name in ("pattern", "criterion", "allocation", "update") if sparsity[name]]
    zipped = sparsity["zipped_bytes"]
    text = (
        f"Weights take {show_bytes(zipped['before'])} before and {show_bytes(zipped['after'])} after when they are "
        f"zipped. {sparsity['runtimes']}."
    )
    tables = [Table(f"Zeros in every layer: {', '.join(chosen)}", ("layer", ">weights", ">zeros", "~left"), rows)]
    if sparsity["dense"]:
        dense = tuple((layer["layer"], layer["why"]) for layer in sparsity["dense"])
        tables.append(Table("Layers that stay dense", ("layer", "why"), dense))
    yield Section("sparsity", "Sparsity", text, tuple(tables))


def _row(layer: Document, largest: int) -> tuple[Cell, ...]:
    weights, zeros = layer["weights"], layer["zeros"]
    left = (weights - zeros) / max(weights, 1)
    picture = Chart(bar(weights, weights - zeros, largest), f"{left:.1%}", left)
    return layer["layer"], Number(f"{weights:,}", weights), Number(f"{zeros:,}", zeros), picture
