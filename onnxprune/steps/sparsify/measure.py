"""How sparse a model is, and what that makes of its file."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.weight_matrices import weight_matrices
from onnxprune.model.weights import reading
from onnxprune.steps.state import State

# What runtimes make of zeros, see docs/sparsity.md.
RUNTIMES = (
    "ONNX Runtime multiplies zeros like any number: the file is smaller once it is zipped, and runs as fast as before. "
    "OpenVINO (MatMul in int8), XNNPACK (1x1 Conv) and TensorRT (2:4, from 256 channels) are faster for them"
)
# Above, deflating all weights would take longer than it is worth; of larger ones so many bytes each are looked at.
_SAMPLED = 1 << 24


def sparsity_of(state: State) -> list[dict[str, Any]]:
    """Layer by layer: weights and zeros, of those layers whose weights have entries that have to be zero."""
    found = []
    for each in weight_matrices(state.analysis)[0]:
        if each.stored in state.zeros:
            array = each.of(each.array())
            found.append({"layer": each.name, "weights": int(array.size), "zeros": int((array == 0).sum())})
    return found


def sparsity_numbers(state: State, before: ir.Model) -> dict[str, Any] | None:
    """The zeros of a state for a report: layers, how they were chosen, bytes; None where there are none.

    `before` is the model as it was given.
    """
    if not state.zeros:
        return None
    chosen = next((each.numbers for each in reversed(state.records) if each.step == "sparsify"), {})
    return {
        **{name: chosen.get(name) for name in ("pattern", "criterion", "allocation", "update")},
        "layers": sparsity_of(state),
        "dense": list(chosen.get("dense", ())),
        "zipped_bytes": {"before": zipped_bytes(before), "after": zipped_bytes(state.model)},
        "runtimes": RUNTIMES,
    }


def zipped_bytes(model: ir.Model) -> int:
    """Bytes of all weights after deflate, as in a .zip; of weights above 16 MB by what their first part comes to."""
    total = 0.0
    for value in model.graph.initializers.values():
        if value.const_value is None or value.const_value.dtype == ir.DataType.STRING:
            continue
        with reading(value.const_value) as array:
            content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            part = content[:_SAMPLED].tobytes()
            total += len(zlib.compress(part)) * (content.size / max(len(part), 1))
    return round(total)
