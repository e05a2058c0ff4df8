"""Which inputs of an operator a training learns when they are stored in the file, and as what.

The roles decide what is trained at all, what decays, and how a fresh weight is drawn:

    weight     a matrix or kernel that activations are multiplied with
    recurrent  the same for the state of a recurrent cell
    bias       added to an activation
    scale      multiplies an activation entry by entry
    table      rows or tokens that are looked up or joined on
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxprune.ops.base import Key, attribute, key_of

MICROSOFT = "com.microsoft"
WEIGHT, RECURRENT, BIAS, SCALE, TABLE = "weight", "recurrent", "bias", "scale", "table"
ROLES = (WEIGHT, RECURRENT, BIAS, SCALE, TABLE)


@dataclass(frozen=True)
class Learned:
    """The learned weights among the inputs of an operator.

    Attributes:
        roles: by slot.
        out_axis: per slot of a weight the axis of its outputs, negative from the end; a function of the node where an
            attribute decides. The other axes are summed over.
        entrywise: the operator works entry by entry, and its constants are often no weights: see `trainable`.
        norm: it divides by statistics of its input.
        gates: a weight's outputs are those of so many gates, one after the other.
    """

    roles: Mapping[int, str]
    out_axis: Mapping[int, int | Callable[[ir.Node], int]] = field(default_factory=dict)
    entrywise: bool = False
    norm: bool = False
    gates: int = 1


NOTHING = Learned({})


def _gemm_out(node: ir.Node) -> int:
    return 0 if attribute(node, "transB", 0) else 1


_CONV = Learned({1: WEIGHT, 2: BIAS}, {1: 0})
_NORM = Learned({1: SCALE, 2: BIAS}, norm=True)
_PRODUCT = Learned({0: WEIGHT, 1: WEIGHT}, {0: -2, 1: -1})
_FULL = Learned({1: WEIGHT, 2: BIAS}, {1: _gemm_out})
_ROWS = Learned({0: TABLE})
_BIASED = Learned({1: BIAS})


def _recurrent(gates: int) -> Learned:
    return Learned({1: WEIGHT, 2: RECURRENT, 3: BIAS, 7: SCALE}, {1: 1, 2: 1}, gates=gates)


_STANDARD: dict[str, Learned] = {
    "Conv": _CONV,
    "ConvTranspose": Learned({1: WEIGHT, 2: BIAS}, {1: 1}),
    "DeformConv": Learned({1: WEIGHT, 3: BIAS}, {1: 0}),
    "Gemm": _FULL,
    "MatMul": _PRODUCT,
    "Einsum": _PRODUCT,
    "RNN": _recurrent(1),
    "GRU": _recurrent(3),
    "LSTM": _recurrent(4),
    "BatchNormalization": _NORM,
    "InstanceNormalization": _NORM,
    "GroupNormalization": _NORM,
    "LayerNormalization": _NORM,
    "RMSNormalization": Learned({1: SCALE}, norm=True),
    "SimplifiedLayerNormalization": Learned({1: SCALE}, norm=True),
    "PRelu": Learned({1: SCALE}),
    "Gather": _ROWS,
    "GatherElements": _ROWS,
    "GatherND": _ROWS,
    "Slice": _ROWS,
    "Expand": _ROWS,
    "Tile": _ROWS,
    "Resize": _ROWS,
    "Concat": Learned(dict.fromkeys(range(8), TABLE), entrywise=True),
    "Add": Learned({0: BIAS, 1: BIAS}, entrywise=True),
    "Mul": Learned({0: SCALE, 1: SCALE}, entrywise=True),
}
_MICROSOFT: dict[str, Learned] = {
    "FusedConv": _CONV,
    "NhwcFusedConv": _CONV,
    "FusedGemm": _FULL,
    "FusedMatMul": _PRODUCT,
    "BiasGelu": _BIASED,
    "FastGelu": _BIASED,
    "BiasSplitGelu": _BIASED,
    "BiasAdd": _BIASED,
    "GroupNorm": _NORM,
    "SkipGroupNorm": Learned({1: SCALE, 2: BIAS, 4: BIAS}, norm=True),
    "SkipLayerNormalization": Learned({2: SCALE, 3: BIAS, 4: BIAS}, norm=True),
    "SkipSimplifiedLayerNormalization": Learned({2: SCALE, 3: BIAS}, norm=True),
    "EmbedLayerNormalization": Learned({2: TABLE, 3: TABLE, 4: TABLE, 5: SCALE, 6: BIAS}, norm=True),
    "Attention": Learned({1: WEIGHT, 2: BIAS}, {1: -1}),
    "MultiHeadAttention": Learned({3: BIAS}),
}
LEARNED: dict[Key, Learned] = {
    **{("", name): entry for name, entry in _STANDARD.items()},
    **{(MICROSOFT, name): entry for name, entry in _MICROSOFT.items()},
}


def learned(node: ir.Node) -> Learned:
    """The learned weights among the inputs of a node; none for operators that are not in the table."""
    return LEARNED.get(key_of(node), NOTHING)


def out_axis(node: ir.Node, slot: int) -> int:
    """The axis of a weight's outputs; 0 where the table does not say."""
    axis = learned(node).out_axis.get(slot, 0)
    return axis(node) if callable(axis) else axis
