"""The numbers that integers represent: per operator, the inputs with quantized weights, and where their scales are.

    weight = scale * (stored - zero)

The axis rules of these operators are in quantization.py and the contrib files; here is what criteria read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import onnx_ir as ir

from onnxprune.ops.base import Array, Key, attribute, canonical_domain, key_of

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Stored:
    """An input of quantized weights.

    Attributes:
        scale: the input with its scale; None: the operator does not know it, so all weights have the same.
        zero: the input with its zero point; it may be missing.
        axis: the axis of the weights that a scale of one axis lies along.
        block: so many entries along that axis share a scale, which has an axis for the blocks (0: each has its own).
        bits: of each weight where bytes are packed, the first in the lowest bits, in blocks with a scale each (0: not).
    """

    scale: int | None
    zero: int | None
    axis: int = 0
    block: int = 0
    bits: int = 0


Layout = Callable[[ir.Node], Mapping[int, Stored]]
_LAYOUTS: dict[Key, Layout] = {}


def integer_weights(*names: str, domain: str = "") -> Callable[[Layout], Layout]:
    """Decorator: this says which inputs of the operators `names` hold quantized weights."""

    def add(layout: Layout) -> Layout:
        _LAYOUTS.update({(canonical_domain(domain), name): layout for name in names})
        return layout

    return add


integer_weights("DequantizeLinear")(
    lambda node: {0: Stored(1, 2, attribute(node, "axis", 1), attribute(node, "block_size", 0))},
)
integer_weights("DequantizeLinear", domain=MICROSOFT)(lambda node: {0: Stored(1, 2, attribute(node, "axis", 1))})
integer_weights("QLinearConv")(lambda _: {3: Stored(4, 5)})
integer_weights("QLinearConv", domain=MICROSOFT)(lambda _: {3: Stored(4, 5)})
integer_weights("ConvInteger")(lambda _: {1: Stored(None, 3)})
integer_weights("QLinearMatMul")(lambda _: {0: Stored(1, 2, -2), 3: Stored(4, 5, -1)})
integer_weights("MatMulInteger")(lambda _: {0: Stored(None, 2, -2), 1: Stored(None, 3, -1)})
integer_weights("MatMulIntegerToFloat", domain=MICROSOFT)(lambda _: {1: Stored(3, 5, -1)})
integer_weights("DynamicQuantizeMatMul", domain=MICROSOFT)(lambda _: {1: Stored(2, 3, -1)})
integer_weights("QGemm", domain=MICROSOFT)(lambda node: {3: Stored(4, 5, 0 if attribute(node, "transB", 0) else 1)})
integer_weights("QAttention", domain=MICROSOFT)(lambda _: {1: Stored(4, 7, -1)})
integer_weights("DynamicQuantizeLSTM", domain=MICROSOFT)(lambda _: {1: Stored(8, 9, -1), 2: Stored(10, 11, -1)})
integer_weights("MatMulNBits", domain=MICROSOFT)(lambda node: {1: Stored(2, 3, bits=attribute(node, "bits", 4))})
integer_weights("GatherBlockQuantized", domain=MICROSOFT)(
    lambda node: {0: Stored(2, 3, -1, attribute(node, "block_size", 128), attribute(node, "bits", 4))}
)


_QUANTIZES = {("", "QuantizeLinear"), (MICROSOFT, "QuantizeLinear")}
_REALS = {("", "DequantizeLinear"), (MICROSOFT, "DequantizeLinear")}


def behind_rounding(value: ir.Value) -> ir.Value:
    """The same value behind the pairs of QuantizeLinear and DequantizeLinear that alone read it: rounded, no more."""
    node = _only_reader(value)
    pair = None if node is None or key_of(node) not in _QUANTIZES else _only_reader(node.outputs[0])
    return value if pair is None or key_of(pair) not in _REALS else behind_rounding(pair.outputs[0])


def clips_below_zero(value: ir.Value) -> bool:
    """Is a value only read by a QuantizeLinear that has no integers below zero? Then it does what a Relu does."""
    node = _only_reader(value)
    if node is None or key_of(node) not in _QUANTIZES:
        return False
    zero = constant_input(node, 2)
    return bool(zero is not None and zero.dtype.kind in "iu" and (zero == np.iinfo(zero.dtype).min).all())


def activation_scale(value: ir.Value | None) -> Array | None:
    """The scale of a value that a DequantizeLinear makes; None where it makes it not, or with none that is constant."""
    node = None if value is None else value.producer()
    return constant_input(node, 1) if node is not None and key_of(node) in _REALS else None


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0][0] if len(uses) == 1 and uses[0][1] == 0 and not value.is_graph_output() else None


def is_scale(value: ir.Value) -> bool:
    """Does a weight only say how others are stored?"""
    uses = list(value.uses())
    return bool(uses) and all(
        (is_rounding(node) and slot in (1, 2))
        or any(slot in (each.scale, each.zero) for each in layout_of(node).values())
        for node, slot in uses
    )


def real_weights(value: ir.Value, array: Array) -> Array | None:
    """The weights that an initializer with the integers `array` represents: float32, shaped as stored.

    Bytes of several weights get one more axis for them. None where no operator says what the integers mean.
    """
    found = (dequantized(node, slot, array) for node, slot in value.uses())
    return next((weights for weights in found if weights is not None), None)


def dequantized(node: ir.Node, slot: int, array: Array) -> Array | None:
    """The same for the integers `array` at input `slot` of a node, with the scales and zero points that it has."""
    layout = layout_of(node).get(slot)
    try:
        return None if layout is None else _dequantized(node, layout, array)
    except ValueError:  # a form that was not foreseen: scales of another shape
        return None


def entries_each(value: ir.Value) -> int:
    """How many weights a byte of an initializer holds: 1 where none are packed."""
    layouts = (layout_of(node).get(slot) for node, slot in value.uses())
    packed = [layout.bits for layout in layouts if layout is not None and layout.bits]
    return 8 // packed[0] if packed and value.dtype == ir.DataType.UINT8 else 1


def layout_of(node: ir.Node) -> Mapping[int, Stored]:
    """The inputs of a node that may hold quantized weights, by slot."""
    layout = _LAYOUTS.get(key_of(node))
    return {} if layout is None else layout(node)


def scale_slot(node: ir.Node, slot: int) -> int | None:
    """The input with the scale of the integers at input `slot`; None where that holds no integers, or there is none."""
    layout, value = layout_of(node).get(slot), node.inputs[slot] if slot < len(node.inputs) else None
    known = value is not None and value.dtype is not None and value.dtype.is_integer()
    return layout.scale if known and layout is not None and constant_input(node, layout.scale) is not None else None


def _dequantized(node: ir.Node, layout: Stored, array: Array) -> Array:
    scale, zero = constant_input(node, layout.scale), constant_input(node, layout.zero)
    if layout.bits and array.dtype == np.uint8 and scale is not None:
        return _unpacked_blocks(array, scale, zero, layout.bits)
    shift = np.float32(0) if zero is None else aligned(zero, array, layout)
    factor = np.float32(1) if scale is None else aligned(scale, array, layout)
    return np.asarray((array.astype(np.float32) - shift) * factor, np.float32)


def _unpacked_blocks(array: Array, scale: Array, zero: Array | None, bits: int) -> Array:
    """Blocks of bytes, one after the other, with a scale each; rows of packed zero points start with a new byte."""
    entries = unpacked(array.ravel(), bits).reshape(scale.size, -1).astype(np.float32)
    shift = zero_of_blocks(array, scale, zero, bits)
    return np.asarray((entries - shift) * scale.astype(np.float32).reshape(-1, 1)).reshape(*array.shape, -1)


def zero_of_blocks(array: Array, scale: Array, zero: Array | None, bits: int) -> Array:
    """The zero point of each block: float32, [blocks, 1]; the middle of the range where none is given."""
    if zero is None:
        return np.full((1, 1), 1 << (bits - 1), np.float32)
    if zero.dtype == np.uint8:
        rows = unpacked(zero.reshape(len(array), -1), bits).reshape(len(array), -1)
        zero = rows[:, : scale.size // len(array)]
    return np.asarray(zero.astype(np.float32).reshape(-1, 1))


def constant_input(node: ir.Node, slot: int | None) -> Array | None:
    """The array of an input, None where there is none or it is not a constant."""
    value = node.inputs[slot] if slot is not None and slot < len(node.inputs) else None
    return value.const_value.numpy() if value is not None and value.const_value is not None else None


def aligned(given: Array, array: Array, layout: Stored) -> Array:
    """Scales or zero points as they broadcast against the weights. Raises ValueError when they do not fit."""
    wide = given.astype(np.float32)
    axis = layout.axis % array.ndim
    if wide.size == 1:
        return wide.reshape(())
    if layout.block:
        wide = np.repeat(wide, layout.block, axis=axis).take(range(array.shape[axis]), axis=axis)
    elif wide.ndim == 1:
        wide = wide.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    elif wide.ndim == array.ndim - 1:  # a row of scales for each direction
        wide = np.expand_dims(wide, -2)
    np.broadcast_shapes(wide.shape, array.shape)
    return wide


def unpacked(array: Array, bits: int) -> Array:
    """The entries of each byte on an axis of their own, lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return np.asarray((array[..., None] >> shifts) & ((1 << bits) - 1))


def packed(entries: Array, bits: int) -> Array:
    """The inverse of `unpacked`."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return np.asarray(np.bitwise_or.reduce(entries << shifts, axis=-1), np.uint8)


def is_real(node: ir.Node) -> bool:
    """Does it give real numbers for integers, by a scale?"""
    return key_of(node) in _REALS


def is_rounding(node: ir.Node) -> bool:
    """Does it give integers for real numbers, by a scale?"""
    return key_of(node) in _QUANTIZES


def starts_at_zero(node: ir.Node) -> bool:
    """Has a QuantizeLinear no integers for what is below zero?"""
    zero = constant_input(node, 2)
    return node.inputs[2:3] in ([], [None]) or bool(
        zero is not None and zero.dtype.kind in "iu" and (zero == np.iinfo(zero.dtype).min).all()
    )


def is_pair(down: ir.Node, up: ir.Node) -> bool:
    """Does `up` give what `down` rounded, with the same scale and zero point?"""
    if key_of(down) not in _QUANTIZES or key_of(up) not in _REALS:
        return False
    return all(_same(a, b) for a, b in zip_longest(down.inputs[1:3], up.inputs[1:3]))


def _same(one: ir.Value | None, other: ir.Value | None) -> bool:
    if one is other:
        return True
    if one is None or other is None or one.const_value is None or other.const_value is None:
        return False
    return np.array_equal(one.const_value.numpy(), other.const_value.numpy())
