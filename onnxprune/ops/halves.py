"""A product with a matrix of low rank as two products: what the operator in front is, and how both store their part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.ops.base import Array, attribute

_CONVOLUTION, _PRODUCT, _SCALED = "Conv", "MatMul", "Gemm"
_RECURRENT = ("LSTM", "GRU", "RNN")
# What a convolution says of its window, which goes to the first of the two.
_WINDOW = ("kernel_shape", "strides", "pads", "dilations", "auto_pad")


@dataclass(frozen=True)
class Halves:
    """The two parts of an operator's matrix.

    Attributes:
        operator: of the node in front.
        moved: names of the attributes that go from the node to the one in front.
        first, second: the weights of the one in front and of the node, as they store them.
    """

    operator: str
    moved: tuple[str, ...]
    first: Array
    second: Array


def has_halves(node: ir.Node) -> bool:
    """Is it an operator that `halves` knows, used in a way that it knows?"""
    known = node.op_type in (_CONVOLUTION, _PRODUCT, _SCALED, *_RECURRENT)
    return known and node.domain == "" and not attribute(node, "transA", 0) and not attribute(node, "layout", 0)


def halves(node: ir.Node, shape: tuple[int, ...], first: Array, second: Array) -> Halves:
    """The parts of a node whose matrix [features, outputs] is first [features, units] times second [units, outputs].

    `shape` is that of its weight. A convolution keeps its window in the first part, the second is 1x1.
    """
    units = len(second)
    if node.op_type == _CONVOLUTION:
        window = shape[2:]
        ahead, behind = first.T.reshape(units, -1, *window), second.T.reshape(-1, units, *(1 for _ in window))
        return Halves(_CONVOLUTION, _WINDOW, ahead, behind)
    if node.op_type in _RECURRENT:
        return Halves(_PRODUCT, (), first, second.T.reshape(shape[0], -1, units))
    if node.op_type == _SCALED:  # its factor is in the matrix, and so in the first part
        second = second / float(attribute(node, "alpha", 1.0))
        second = second.T if attribute(node, "transB", 0) else second
    return Halves(_PRODUCT, (), first, np.ascontiguousarray(second))
