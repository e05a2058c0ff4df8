"""Quantized weights: which units they do not read, since all of a unit's weights are at the zero point.

Nothing is said of integers that are computed: rounding makes a constant of theirs depend on the last bit of a float.
"""

from __future__ import annotations

from functools import partial
from math import prod

import numpy as np

from onnxprune.ops.base import Array
from onnxprune.ops.constants.base import KnownEntries, Site, constant
from onnxprune.ops.constants.linear import Linear, linear
from onnxprune.ops.dequantize import MICROSOFT, dequantized

_REFUSAL = "sums integers"


@constant("DequantizeLinear")
def dequantize(site: Site) -> KnownEntries | None:
    """Weights; integers that are computed are not known to begin with."""
    real = _real(site, 0)
    return None if real is None or real.shape != site.shapes[0] else KnownEntries.whole(real.astype(site.dtypes[0]))


def _real(site: Site, slot: int) -> Array | None:
    array = site.constant(slot)
    return None if array is None else dequantized(site.node, slot, array)


def _form(axis: int, out: int, weight: Array) -> Linear:
    """A sum whose constant part is not asked for. `weight` is [G, I, O, T]."""
    size = weight.shape[0] * weight.shape[2]
    return Linear(axis, out, weight, (np.zeros(size), np.zeros(size, np.bool_)), refusal=_REFUSAL)


def _convolution(slot: int, site: Site) -> Linear | None:
    weight = _real(site, slot)
    if weight is None or site.attr("channels_last", 0):
        return None
    groups = int(site.attr("group", 1))
    outputs, inner, *window = weight.shape
    return _form(1, 1, weight.reshape(groups, outputs // groups, inner, prod(window)).transpose(0, 2, 1, 3))


def _product(slot: int, site: Site) -> Linear | None:
    weight, rank = _real(site, slot), len(site.shapes[0])
    if weight is None or weight.ndim != 2 or rank < 2:
        return None
    weight = weight.T if site.attr("transB", 0) else weight
    return None if site.attr("transA", 0) else _form(rank - 1, rank - 1, weight[None, :, :, None])


linear("QLinearConv")(partial(_convolution, 3))
linear("QLinearConv", domain=MICROSOFT)(partial(_convolution, 3))
linear("ConvInteger")(partial(_convolution, 1))
linear("QLinearMatMul")(partial(_product, 3))
linear("MatMulInteger")(partial(_product, 1))
linear("QGemm", domain=MICROSOFT)(partial(_product, 3))
linear("MatMulIntegerToFloat", "DynamicQuantizeMatMul", domain=MICROSOFT)(partial(_product, 1))
