"""Operators that converters leave as they are, though ONNX does not have them, in operators that it has."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def in_known_operators(model: ir.Model) -> ir.Model:
    """The same model, in place: tf2onnx writes the Erfc of an exact GELU as a node that no runtime knows.

    erfc(x) = 1 - erf(x).
    """
    for node in [node for node in model.graph.all_nodes() if node.op_type == "Erfc" and not node.domain]:
        (x,), (y,) = node.inputs, node.outputs
        assert x is not None
        graph, dtype = node.graph, x.dtype or y.dtype or ir.DataType.FLOAT
        assert graph is not None
        one = ir.node("Constant", [], {"value": ir.tensor(np.array(1, dtype.numpy()))})
        erf = ir.node("Erf", [x])
        rest = ir.node("Sub", [one.outputs[0], erf.outputs[0]])
        ir.convenience.replace_nodes_and_values(graph, node, [node], [one, erf, rest], [y], rest.outputs)
    return model
