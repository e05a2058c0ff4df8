"""Weights in 16 bits: half the file, at the speed of float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.copy import copy_model
from onnxprune.errors import UsageError
from onnxprune.ops.traits import is_parameter
from onnxprune.steps.quantize.base import Quantized, QuantizeJob, quantized_type
from onnxprune.steps.quantize.insert import Editor

# Of fewer entries a weight weighs less than the node that widens it.
_FEWEST = 64


@quantized_type("fp16-weights")
def fp16_weights(job: QuantizeJob) -> Quantized:
    """Weights stored in float16 and widened as the model is loaded, so it runs everywhere and as fast as before."""
    return _stored_as(job, ir.DataType.FLOAT16)


@quantized_type("bf16-weights")
def bf16_weights(job: QuantizeJob) -> Quantized:
    """Weights stored in bfloat16, which has the range of float32 and 8 bits of precision, and widened at loading."""
    return _stored_as(job, ir.DataType.BFLOAT16)


def _stored_as(job: QuantizeJob, dtype: ir.DataType) -> Quantized:
    """A Cast behind every large weight; ONNX Runtime computes it once, at loading."""
    model = copy_model(job.state.model)
    editor, first = Editor(model), next(iter(model.graph))
    stored, beyond = 0, []
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        outside = value.is_graph_input() or value.is_graph_output()
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < _FEWEST or outside:
            continue
        array = tensor.numpy()
        if not is_parameter(value) or not np.isfinite(array.astype(dtype.numpy()).astype(np.float32)).all():
            beyond.append(value.name or "")
            continue
        name = value.name or ""
        narrow = editor.constant(f"{name}/{dtype.name.lower()}", array.astype(dtype.numpy()), dtype)
        wide = editor.node("Cast", [narrow], f"{name}/float", shape=value.shape, attributes={"to": ir.DataType.FLOAT})
        editor.before(first, wide)
        value.replace_all_uses_with(wide.outputs[0])
        del model.graph.initializers[name]
        stored += 1
    if not stored:
        raise UsageError(f"this model has no float32 weights of {_FEWEST} entries or more to store in 16 bits")
    notes = [f"beyond the range of {dtype.name.lower()}, so in float32: {', '.join(beyond)}"] if beyond else []
    return Quantized(model, (), tuple(notes), {"weights": stored})
