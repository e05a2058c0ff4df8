"""How well a candidate does on samples that nothing was fitted to."""

from __future__ import annotations

from math import isinf
from typing import TYPE_CHECKING

from onnxprune.pipeline.search.objectives.base import objective

if TYPE_CHECKING:
    from onnxprune.pipeline.search.workbench import Made


@objective("drop", relative=False, show="{:.4f}".format)
def drop(made: Made) -> tuple[float, float]:
    """How much worse it is than the original, in --metric: accuracy with labels, else agreement or SNR.

    The SNR of the original has no bound: its drop is the share of noise in the output, 0.01 at 20 dB.
    """
    found = made.bench.metric(None)
    before, after = made.bench.metric_of_original(found), made.value(found)
    if found.unit == "dB" and isinf(before):
        return 0.0, float(10 ** (-after / 10))
    return 0.0, before - after if found.higher_is_better else after - before


@objective("metric", relative=False, show="{:.4f}".format)
def metric_value(made: Made, name: str) -> tuple[float, float]:
    """The value of a metric, see: onnxprune list metrics; written as its name."""
    found = made.bench.metric(name)
    return made.bench.metric_of_original(found), made.value(found)
