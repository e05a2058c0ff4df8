"""Compute an operator on small constants, within bounds that keep it cheap."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.ops import find_evaluator
from onnxprune.ops.base import Array, key_of
from onnxprune.ops.evaluate import by_reference, is_computable

# Larger arrays are data, not shape arithmetic.
MAX_KNOWN = 65_536


_MAX_KNOWN_WEIGHT = 4_096


def is_shape_like(tensor: ir.TensorProtocol) -> bool:
    """Constants worth computing with: integers, booleans and scalars; float vectors are weights."""
    if tensor.dtype == ir.DataType.STRING:
        return False
    return tensor.size <= 1 or (tensor.size <= _MAX_KNOWN_WEIGHT and not tensor.dtype.is_floating_point())


def compute(node: ir.Node, arrays: list[Array | None], opsets: dict[str, int]) -> list[Array] | None:
    """The outputs of a node on small arrays; None when it cannot be computed (control flow, random, no code)."""
    if sum(array.size for array in arrays if array is not None) > MAX_KNOWN or not is_computable(node):
        return None
    evaluate = find_evaluator(key_of(node))
    try:
        with np.errstate(all="ignore"):
            if evaluate is not None and len(node.outputs) == 1:
                while arrays and arrays[-1] is None:
                    arrays.pop()
                return [np.asarray(evaluate(node, *arrays))]
            return by_reference(node, arrays, opsets)
    except Exception:
        return None  # not computable is not an error: the node keeps its place in the graph
