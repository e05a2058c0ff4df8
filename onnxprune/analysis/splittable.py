"""Layers whose matrix can be written in another form: as two matrices, or for other axes of what they read."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.analysis.layers import Layer
from onnxprune.ops.halves import has_halves


def splittable(layer: Layer) -> bool:
    """Is the layer one float matrix of its own that is stored as its operator reads it? See `passes.SplitLayers`."""
    node, form, dtype = layer.node, layer.form, layer.stored.dtype
    return (
        has_halves(node)
        and form.groups == 1
        and form.stack is None
        and layer.readers == 1
        and not layer.path.links
        and layer.stored.const_value is not None
        and len(list(layer.stored.uses())) == 1
        and dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
    )
