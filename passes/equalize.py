"""Even out the ranges of consecutive layers, which quantization with one scale per tensor asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.layers import Layer, bias_of, layers_of, matrix_of
from onnxprune.ops.normalization import is_batch_norm
from onnxprune.ops.traits import lets_scale_through
from onnxprune.passes.base import PassResult, clean_up
from onnxprune.passes.write_back import set_bias, set_matrix

Vector = npt.NDArray[np.float64]

_MAX_SWEEPS = 100
# Powers of two beyond which a range is taken for one of a dead channel.
_MAX_EXPONENT = 20


_SAMPLE = """
    net (float[batch, 3] x) => (float[batch, 2] y)
    <float[3, 2] w = {80, 1, 64, 2, 48, 1}, float[2, 2] v = {1, 2, 30, 40}>
    { h = Gemm(x, w)  r = Relu(h)  y = Gemm(r, v) }
"""


@clean_up("equalize", sample=_SAMPLE)
@dataclass(frozen=True)
class Equalize:
    """Scale each channel between two layers so that its weights have the same range in both.

    Before:  Conv(w1, b1) ── Relu ── Conv(w2)
    After:   Conv(w1 / s, b1 / s) ── Relu ── Conv(w2 * s)        s = sqrt(max |w1| / max |w2|) per channel

    Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction". The
    scales are rounded to powers of two, so that the outputs do not change by a single bit (unless a number leaves the
    range of its type).
    """

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place; a second time changes nothing."""
        pairs = _pairs(model)
        changed = False
        for _ in range(_MAX_SWEEPS):
            moved = [_equalize(model, first, second) for first, second in pairs]
            changed |= any(moved)
            if not any(moved):
                break
        return PassResult(model, changed)


def _pairs(model: ir.Model) -> list[tuple[Layer, Layer]]:
    """Layers of which the second alone reads the first, through what lets a positive factor through."""
    found = list(layers_of(model))
    readers = {layer.node: layer for layer in found if layer.form.axis == 1}
    pairs = []
    for layer in found:
        node = _reader(layer) if layer.form.out_axis == 1 and layer.norm is None else None
        reader = readers.get(node) if node is not None else None
        if reader is not None and not any(is_batch_norm(each.node) for each in (layer, reader)):
            pairs.append((layer, reader))
    return pairs


def _reader(layer: Layer) -> ir.Node | None:
    """The node that alone reads a layer's output, behind operators that let a positive factor through."""
    node = layer.last
    while True:
        output = node.outputs[0]
        uses = list(output.uses())
        if len(uses) != 1 or uses[0][1] != 0 or output.is_graph_output():
            return None
        node = uses[0][0]
        if not lets_scale_through(node) or len([value for value in node.outputs if value.name]) > 1:
            return node


def _equalize(model: ir.Model, first: Layer, second: Layer) -> bool:
    one, two = matrix_of(first), matrix_of(second)
    exponents = _exponents(np.abs(one).max(axis=1).ravel(), _by_channel(np.abs(two).max(axis=2), second))
    if not exponents.any():
        return False
    scale = np.exp2(exponents)
    bias = bias_of(first, len(scale))
    set_matrix(model, first, one / scale.reshape(len(one), 1, -1))
    if bias.any():
        set_bias(model, first, bias / scale)
    set_matrix(model, second, two * scale[second.feature_channels(len(scale))][:, :, None])
    return True


def _by_channel(ranges: npt.NDArray[np.float64], layer: Layer) -> Vector:
    """The range of each input channel, from those of the features [groups, features]."""
    found: Vector = ranges.reshape(-1, layer.form.taps).max(axis=1)
    return found


def _exponents(made: Vector, read: Vector) -> Vector:
    """Powers of two that bring both ranges nearest to each other; zero for channels that are dead on either side."""
    alive = (made > 0) & (read > 0)
    ratio = np.log2(np.where(alive, made, 1.0) / np.where(alive, read, 1.0)) / 2
    exponents: Vector = np.where(np.abs(ratio) <= _MAX_EXPONENT, np.round(ratio), 0.0)
    return exponents
