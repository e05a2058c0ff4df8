"""The part of a page that shows what became of each layer when the model was quantized."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from onnxprune.report.charts import bar, extent
from onnxprune.report.page import Cell, Chart, Number, Section, Table

Document = Mapping[str, Any]


def quantization_section(found: Document) -> Iterator[Section]:
    """Every layer with its bits and its noise, and why it stays in float."""
    quantized = found["quantization"]
    if not quantized:
        return
    layers = quantized["layers"]
    best = max((layer["snr"] for layer in layers if _is_measured(layer)), default=1.0)
    rows = tuple(_row(layer, max(best, 1.0)) for layer in layers)
    text = "SNR is the power of what a layer gives in float over that of the error it has on integers, in dB: 20 is 1%."
    chosen = {name: value for name, value in quantized.items() if name not in ("type", "layers", "zipped_bytes")}
    caption = f"Every layer in {quantized['type']}" + "".join(
        f", {name.replace('_', ' ')} {value}" for name, value in chosen.items()
    )
    text += " Range: what a layer reads in calibration, and in the stronger colour the part that its integers cover."
    zipped = quantized["zipped_bytes"]
    text += f" Weights when zipped: {zipped['before']:,} bytes before, {zipped['after']:,} after."
    table = Table(caption, ("layer", "operator", ">bits", "~SNR", "~range", "why in float"), rows)
    yield Section("quantization", "Quantization", text, (table,))


def _is_measured(layer: Document) -> bool:
    return layer["snr"] is not None and isfinite(layer["snr"])


def _row(layer: Document, best: float) -> tuple[Cell, ...]:
    snr = layer["snr"] if _is_measured(layer) else 0.0
    picture = Chart(bar(best, max(snr, 0.0), best), f"{snr:.1f} dB" if _is_measured(layer) else "-", snr)
    bits = Number(str(layer["bits"] or "float"), layer["bits"])
    return layer["layer"], layer["operator"], bits, picture, _ranges(layer), layer["why"]


def _ranges(layer: Document) -> Cell:
    """What a layer reads, and what its integers cover."""
    seen, covered = layer["seen"], layer["covered"]
    if not seen or not covered:
        return "-"
    return Chart(extent(seen, covered), f"{covered[0]:.3g} to {covered[1]:.3g}", covered[1] - covered[0])
