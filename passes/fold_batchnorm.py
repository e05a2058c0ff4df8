"""A BatchNormalization beside a convolution or a matrix product becomes part of its weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.layers import Layer, bias_of, layers_of, matrix_of, read
from onnxprune.ops.normalization import is_batch_norm
from onnxprune.passes.base import PassResult, clean_up
from onnxprune.passes.write_back import set_bias, set_matrix

_SAMPLE = """
    net (float[batch, 2, 4, 4] x) => (float[batch, 3, 4, 4] y)
    <float[3, 2, 1, 1] w, float[3] scale, float[3] shift, float[3] mean, float[3] variance = {0.5, 1, 2}>
    { h = Conv(x, w)  y = BatchNormalization(h, scale, shift, mean, variance) }
"""


@clean_up("fold-batchnorm", nodes=True, sample=_SAMPLE)
@dataclass(frozen=True)
class FoldBatchNorm:
    """Put BatchNormalizations into the weights and biases of the layers behind which, or in front of which, they are.

    Before:  x ── Conv(w, b) ── BatchNormalization(scale, shift, mean, var) ── Relu
    After:   x ── Conv(w * s, (b - mean) * s + shift) ── Relu               s = scale / sqrt(var + epsilon)

    Before:  x ── BatchNormalization ── Conv(w, b)        (no padding: zeros would have to be normalized too)
    After:   x ── Conv(s * w, b + sum of t * w)           t = shift - mean * s

    Exact up to rounding. Only where nothing else reads what is between the two, and weights have one reader.
    """

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place; a second time changes nothing."""
        folded = False
        for layer in list(layers_of(model)):
            if layer.norm is not None:
                _fold_behind(model, layer)
                folded = True
        by_input: dict[str, Layer] = {layer.x: layer for layer in layers_of(model)}
        for norm in [layer for layer in by_input.values() if is_batch_norm(layer.node)]:
            reader = by_input.get(norm.y)
            if reader is not None and _takes_a_shift(norm, reader):
                _fold_in_front(model, norm, reader)
                folded = True
        return PassResult(model, folded)


def _fold_behind(model: ir.Model, layer: Layer) -> None:
    assert layer.norm is not None
    matrix = matrix_of(layer)
    bias = bias_of(layer, matrix.shape[0] * matrix.shape[2])
    plain = replace(layer, norm=None)
    _bypass(model, layer.norm)
    set_matrix(model, plain, matrix)
    set_bias(model, plain, bias)


def _takes_a_shift(norm: Layer, reader: Layer) -> bool:
    """Does the reader see the same shift everywhere, along the axis that the norm works on?"""
    output = norm.node.outputs[0]
    alone = len(list(output.uses())) == 1 and not output.is_graph_output()
    return alone and reader.form.axis == 1 and reader.form.even and not is_batch_norm(reader.node)


def _fold_in_front(model: ir.Model, norm: Layer, reader: Layer) -> None:
    scale = matrix_of(norm)[:, 0, 0]
    matrix = matrix_of(reader)
    features = reader.feature_channels(len(scale))
    shift = bias_of(norm, len(scale)) - read(norm.node.inputs[3]).astype(np.float64) * scale
    bias = bias_of(reader, matrix.shape[0] * matrix.shape[2]) + np.einsum("gf,gfo->go", shift[features], matrix).ravel()
    _bypass(model, norm.node)
    set_matrix(model, reader, matrix * scale[features][:, :, None])
    set_bias(model, reader, bias)


def _bypass(model: ir.Model, norm: ir.Node) -> None:
    """Take the node out; an output of the model keeps its name."""
    inner, outer = norm.inputs[0], norm.outputs[0]
    assert inner is not None
    if outer.is_graph_output():
        outer_name = outer.name
        ir.convenience.replace_all_uses_with(outer, inner, replace_graph_outputs=True)
        outer.name, inner.name = inner.name, outer_name
        inner.shape, inner.type = outer.shape, outer.type
    else:
        ir.convenience.replace_all_uses_with(outer, inner)
    parameters = norm.inputs[1:]
    model.graph.remove(norm, safe=True)
    for value in parameters:
        if value is not None and not value.uses() and value.is_initializer() and not value.is_graph_input():
            model.graph.initializers.pop(value.name or "", None)
