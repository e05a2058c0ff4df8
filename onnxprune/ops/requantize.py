"""From real weights back to the integers that an operator reads: new scales, the zero points that are there.

    scale = the least that holds the largest weight that shares it        stored = round(weight / scale) + zero

As the quantizers of ONNX Runtime choose it (absolute maximum, symmetric about the zero point); Krishnamoorthi 2018,
"Quantizing deep convolutional networks for efficient inference", section 2.1 and 2.2.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnxprune.ops.base import Array
from onnxprune.ops.dequantize import Stored, aligned, constant_input, layout_of, packed, unpacked, zero_of_blocks

# A scale is at least this share of the largest beside it: a bias of 32 bits in its unit must not overflow.
_LEAST_SCALE = 1e-4
# The largest integer of a file that was quantized to seven bits, so that products of bytes do not overflow.
_SEVEN_BITS = 64


def requantized(node: ir.Node, slot: int, weights: Array, before: Array) -> tuple[Array, Array]:
    """The integers, of the type and shape of those `before`, and the scale, of the type and shape that it has.

    Args:
        node: the operator.
        slot: its input that holds the integers.
        weights: the real weights, shaped as `dequantize.dequantized` gives them.
        before: the integers so far.

    Raises ValueError where the scale is not a constant beside the weights.
    """
    layout = layout_of(node)[slot]
    scale, zero = constant_input(node, layout.scale), constant_input(node, layout.zero)
    if scale is None:
        raise ValueError("no scale beside the weights")
    if layout.bits and before.dtype == np.uint8:
        return _blocks(weights, before, scale, zero, layout.bits)
    return rescaled(weights, before, scale, zero, layout)


def rescaled(weights: Array, before: Array, scale: Array, zero: Array | None, layout: Stored) -> tuple[Array, Array]:
    """The same, given the scale and zero point so far and how they lie along the weights."""
    low, high = _range(before)
    middle = np.broadcast_to(0.0 if zero is None else aligned(zero, before, layout), before.shape)
    if before.dtype.itemsize > 2:
        new = scale.astype(np.float64)  # of 32 bits: a bias, whose scale its product dictates
    else:
        shared = np.broadcast_to(aligned(np.arange(scale.size).reshape(scale.shape), before, layout), before.shape)
        new = _least(weights, middle, (low, high), shared, scale)
    new = new.astype(scale.dtype)
    wide = aligned(new, before, layout).astype(np.float64)
    stored = np.clip(np.rint(weights / wide) + middle, low, high)
    return stored.astype(before.dtype), new


def requantized_vector(node: ir.Node, array: Array) -> dict[int, Array]:
    """The inputs of a DequantizeLinear that give a vector with one scale: integers, scale and, off the middle, zero.

    Of a bias nothing else depends on the zero point, and most of them are not symmetric about zero.
    """
    layout = layout_of(node)[0]
    before, scale = constant_input(node, 0), constant_input(node, layout.scale)
    zero = constant_input(node, layout.zero)
    assert before is not None
    assert scale is not None
    if scale.size != 1 or zero is None or not zero.any():
        stored, new = requantized(node, 0, array, before)
        return {0: stored, 1: new}
    low, high = _range(before)
    least, most = min(float(array.min()), 0.0), max(float(array.max()), 0.0)
    new = np.full(scale.shape, max(most - least, 1e-30) / (high - low)).astype(scale.dtype)
    step = float(new.reshape(()))
    middle = int(np.clip(round(low - least / step), low, high))
    stored = np.clip(np.rint(array / step) + middle, low, high).astype(before.dtype)
    return {0: stored, 1: new, layout.zero or 2: np.full(zero.shape, middle, zero.dtype)}


def _least(weights: Array, middle: Array, ends: tuple[int, int], shared: Array, scale: Array) -> Array:
    """The least scales that hold all weights; `shared` numbers the scale of each weight."""
    room = np.where(weights >= 0, ends[1] - middle, ends[0] - middle)
    need = np.where(room == 0, 0.0, weights / np.where(room == 0, 1.0, room))
    least = np.zeros(scale.size)
    np.maximum.at(least, shared.astype(np.int64).ravel(), need.ravel())
    largest = least.max() if least.any() else float(np.abs(scale).max())
    return np.maximum(least, _LEAST_SCALE * largest).reshape(scale.shape)


def _range(before: Array) -> tuple[int, int]:
    """The least and the largest integer to use: symmetric for signed ones, seven bits where the file uses no more."""
    iinfo: Any = ml_dtypes.iinfo
    info = iinfo(before.dtype)
    low, high = int(info.min), int(info.max)
    if low < 0:
        seven = high == 127 and before.size and int(np.abs(before.astype(np.int64)).max()) <= _SEVEN_BITS
        return (-_SEVEN_BITS, _SEVEN_BITS) if seven else (-high, high)
    return (0, 127) if high == 255 and before.size and int(before.max()) <= 127 else (low, high)


def _blocks(weights: Array, before: Array, scale: Array, zero: Array | None, bits: int) -> tuple[Array, Array]:
    """The same for packed bytes, with a scale for each block."""
    middle = zero_of_blocks(before, scale, zero, bits)
    each = weights.reshape(scale.size, -1)
    middle, top = np.broadcast_to(middle, each.shape), (1 << bits) - 1
    shared = np.broadcast_to(np.arange(scale.size)[:, None], each.shape)
    new = _least(each, middle, (0, top), shared, scale).astype(scale.dtype)
    stored = np.clip(np.rint(each / new.reshape(-1, 1).astype(np.float64)) + middle, 0, top).astype(np.uint8)
    return packed(stored.reshape(-1, unpacked(np.zeros(1, np.uint8), bits).size), bits).reshape(before.shape), new
