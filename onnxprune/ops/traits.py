"""Facts about operators besides their axes: small facts, one table each."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.model.weights import is_weight
from onnxprune.ops.base import Key, attribute, key_of

MICROSOFT = "com.microsoft"


def _keys(*names: str, domain: str = "") -> frozenset[Key]:
    return frozenset((domain, name) for name in names)


_ADDS = _keys("Add")
_MULTIPLIES = _keys("Mul")
_MEASURES = _keys("Shape", "Size")
_RECTIFIES = _keys("Relu")
_JOINS = _keys("Concat")
_NORMALIZES = _keys("Softmax", "LogSoftmax")
_POOLS = _keys("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMean")
_VIEWS = _keys("Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_SCALES = _keys("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity")
_RETYPES = _keys("DequantizeLinear", "Cast", "Identity") | _keys("DequantizeLinear", domain=MICROSOFT)
_REPEATS = _keys("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Transpose")
_MERGED = _keys("Add", "BatchNormalization", "Clip", "HardSigmoid", "LeakyRelu", "Mul", "Relu", "Sigmoid", "Tanh")
_STATISTICS: dict[Key, tuple[int, int]] = {("", "BatchNormalization"): (3, 4)}
_CONVOLVES = _keys("Conv")
_KEEPS_AXES = _keys("Identity", "Squeeze", "Transpose", "Unsqueeze")
_LOOK_UPS: dict[Key, list[tuple[int, int]]] = {
    ("", "Gather"): [(1, 0)],
    (MICROSOFT, "GatherBlockQuantized"): [(1, 0)],
    (MICROSOFT, "EmbedLayerNormalization"): [(0, 2), (1, 4)],
}
_STATES: dict[Key, tuple[int, ...]] = {("", "LSTM"): (5, 6), ("", "GRU"): (5,), ("", "RNN"): (5,)}
_ONE_PER_UNIT: dict[Key, tuple[int, ...]] = {
    ("", "Add"): (0, 1),
    ("", "LSTM"): (3, 7),
    ("", "GRU"): (3,),
    ("", "RNN"): (3,),
    (MICROSOFT, "DynamicQuantizeLSTM"): (3, 7),
}
_PARAMETERS = _keys("Conv", "ConvTranspose", "Gemm")
_TURNED = _keys("MatMul")


def adds(node: ir.Node) -> bool:
    """Is it the sum of two inputs, entry by entry?"""
    return key_of(node) in _ADDS


def multiplies(node: ir.Node) -> bool:
    """Is it the product of two inputs, entry by entry?"""
    return key_of(node) in _MULTIPLIES


def measures(node: ir.Node) -> bool:
    """Does it say how large its input is?"""
    return key_of(node) in _MEASURES


def rectifies(node: ir.Node) -> bool:
    """Does it put zero in place of what is negative, and nothing else?"""
    return key_of(node) in _RECTIFIES


def joins(node: ir.Node) -> bool:
    """Does it lay its inputs one after the other?"""
    return key_of(node) in _JOINS


def normalizes(node: ir.Node) -> bool:
    """Is the sum over what it gives always the same?"""
    return key_of(node) in _NORMALIZES


def moves(node: ir.Node) -> bool:
    """Does a unit go through it unchanged, or averaged with itself?"""
    return key_of(node) in _POOLS | _VIEWS


def keeps_axes(node: ir.Node) -> bool:
    """Does every axis come out as one axis, in another order or beside axes of size 1?"""
    return key_of(node) in _KEEPS_AXES


def looks_up_rows(node: ir.Node) -> bool:
    """Does it give entries of its first input along the first axis, chosen by its second?"""
    return key_of(node) == ("", "Gather") and attribute(node, "axis", 0) == 0


def lets_scale_through(node: ir.Node) -> bool:
    """Is it positively homogeneous: does a positive factor before it do the same as behind it?"""
    return key_of(node) in _SCALES


def repeats(node: ir.Node) -> bool:
    """Are the entries that it gives those of its first input?"""
    return key_of(node) in _REPEATS


def retypes(node: ir.Node) -> bool:
    """Does it give its first input in another type, entry by entry?"""
    return key_of(node) in _RETYPES


def convolves(node: ir.Node) -> bool:
    """Is it a convolution of its first input with its second?"""
    return key_of(node) in _CONVOLVES


def look_ups(node: ir.Node) -> list[tuple[int, int]]:
    """Slots of the indices, and of the table whose rows they choose."""
    return _LOOK_UPS.get(key_of(node), [])


def statistics(node: ir.Node) -> tuple[int, ...]:
    """Slots of the running mean and the running variance."""
    return _STATISTICS.get(key_of(node), ())


def is_running_statistic(value: ir.Value) -> bool:
    """Is an initializer a running mean or variance, and nothing else?"""
    uses = list(value.uses())
    return bool(uses) and all(slot in statistics(node) for node, slot in uses)


def is_parameter(value: ir.Value) -> bool:
    """Is an initializer a weight that training chooses, as torch counts parameters: no running statistic?"""
    return is_weight(value) and not is_running_statistic(value)


def runs_on_statistics(node: ir.Node) -> bool:
    """Has it running statistics, and are they what it normalizes with?"""
    return bool(statistics(node)) and not attribute(node, "training_mode", 0)


def is_one_per_unit(value: ir.Value) -> bool:
    """Is a weight added to units, or multiplied with them one by one, whatever its axes: a bias, a peephole?"""
    uses = list(value.uses())
    return bool(uses) and all(slot in _ONE_PER_UNIT.get(key_of(node), ()) for node, slot in uses)


def is_merged(node: ir.Node) -> bool:
    """Does ONNX Runtime merge it into the node with weights in front?"""
    return key_of(node) in _MERGED


def states_from_zero(node: ir.Node) -> tuple[int, ...]:
    """Slots of states that start at zero where they are left out."""
    return _STATES.get(key_of(node), ())


def parameters(node: ir.Node) -> dict[int, str]:
    """Slots of its weight and bias where torch keeps them alike, and torch's names for them."""
    return {1: "weight", 2: "bias"} if key_of(node) in _PARAMETERS else {}


def multiplies_matrices(node: ir.Node) -> bool:
    """Is it the product of two matrices, and nothing else?"""
    return key_of(node) in _TURNED


def turned_weight(node: ir.Node) -> int | None:
    """Slot of the weight that torch keeps transposed."""
    return 1 if key_of(node) in _TURNED else None


# Operators that move along one axis of the second slot by what is in the first.
_ALONG_AXIS = _keys("Gather", "GatherElements", "Scatter", "ScatterElements")
_OF_IMAGES = _keys("RoiAlign")  # the image that each region is in
_PARTS = _keys("Gather", "Slice", "Split")
_SLICES = _keys("Slice")
_COUNTS_UP = _keys("Range")
_OF_SEQUENCES = _keys("LSTM", "GRU", "RNN")
_COMPARES = _keys("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
_SQUASHES = _keys("Sigmoid", "HardSigmoid")
_SHIFTS = {("", "Add"): 1, ("", "Sub"): -1}


def positions(node: ir.Node) -> list[tuple[int, int, int]]:
    """Slots of inputs that hold positions, each with the slot and the axis of the table that they are positions in."""
    if key_of(node) in _ALONG_AXIS:
        return [(1, 0, attribute(node, "axis", 0))]
    if key_of(node) in _OF_IMAGES:
        return [(2, 0, 0)]
    return [(indices, table, 0) for indices, table in look_ups(node)]


def lengths(node: ir.Node) -> list[tuple[int, int, int]]:
    """Slots of inputs that hold how much of something counts, each with its slot and the axis that it is counted on."""
    if key_of(node) in _OF_SEQUENCES:
        return [(4, 0, attribute(node, "layout", 0))]
    axes = node.inputs[3] if key_of(node) in _SLICES and len(node.inputs) > 3 else None
    axis = None if axes is None else ir.convenience.get_const_tensor(axes)
    return [] if axis is None or axis.size != 1 else [(2, 0, int(axis.numpy().item()))]


def counts_up(node: ir.Node) -> bool:
    """Does it give whole numbers up to what is in its second slot?"""
    return key_of(node) in _COUNTS_UP


def gives_part(node: ir.Node) -> bool:
    """Are the entries that it gives some of those of its first input?"""
    return key_of(node) in _PARTS


def compares(node: ir.Node) -> bool:
    """Does it compare two inputs, entry by entry?"""
    return key_of(node) in _COMPARES


def shift_sign(node: ir.Node) -> int:
    """1 where it adds its second input to the first, -1 where it subtracts it, 0 for any other operator."""
    return _SHIFTS.get(key_of(node), 0)


def known_entries(node: ir.Node) -> tuple[str, ...] | tuple[int, ...]:
    """The entries that an encoder of categories was fitted to; it may refuse all others."""
    for name in ("cats_strings", "keys_strings", "cats_int64s", "keys_int64s"):
        found = attribute(node, name)
        if found:
            return tuple(found)
    return ()


def squashes(node: ir.Node) -> bool:
    """Does it give numbers between 0 and 1, entry by entry?"""
    return key_of(node) in _SQUASHES
