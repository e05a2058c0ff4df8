"""How well a model does on data, one metric per file: with labels, or beside the outputs of the original.

Every file of this package, and every plug-in of the entry point group `onnxprune.metrics`, adds to the table of `base`.
"""

from onnxprune.evaluation.metrics.base import (
    METRICS,
    Answer,
    Array,
    Metric,
    MetricSample,
    chosen_output,
    evaluate,
    is_probability,
    metric,
    outputs_of,
    register,
)

__all__ = [
    "METRICS",
    "Answer",
    "Array",
    "Metric",
    "MetricSample",
    "chosen_output",
    "evaluate",
    "is_probability",
    "metric",
    "outputs_of",
    "register",
]
