"""Back to floats: what integers represent, and no rounding of activations."""

from __future__ import annotations

from onnxprune.analysis.copy import copy_model
from onnxprune.errors import UsageError
from onnxprune.steps.quantize.base import Quantized, QuantizeJob, quantized_type
from onnxprune.steps.quantize.unquantize import put_floats


@quantized_type("float")
def to_float(job: QuantizeJob) -> Quantized:
    """Back to float32: weights become the numbers that their integers represent, activations are no longer rounded."""
    model = copy_model(job.state.model)
    changed, notes = put_floats(model)
    if not changed:
        raise UsageError("this model holds no integers that represent floats: it is one of floats already")
    return Quantized(model, (), tuple(notes))
