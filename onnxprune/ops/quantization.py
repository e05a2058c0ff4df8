"""Quantized graphs of the standard domain: scales and zero points follow the axes that they belong to."""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from onnxprune.dims import Atom, Dim
from onnxprune.ops.base import CostView, Dims, Op, Typed, cost, rule, shape_rule
from onnxprune.ops.matmul_view import FORMS, Form, affine, of_integers

MICROSOFT = "com.microsoft"


@rule("QuantizeLinear", "DequantizeLinear")
@rule("QuantizeLinear", "DequantizeLinear", domain=MICROSOFT)
def quantize(op: Op) -> None:
    """Scale and zero point: one, or [C] for axis C of the input, or one per block of `block_size` entries along it."""
    x, scale = op.x[0], op.x[1]
    op.same_all(op.y[0], x)
    axis = op.axis(default=1) if len(x) > 1 else 0
    block = int(op.attr("block_size", 0))
    if block and len(scale) == len(x):
        for i, (dim, given) in enumerate(zip(x, scale, strict=True)):
            op.same(given, _blocks(op, dim, given.size, block) if i == axis else dim)
    elif len(scale) == 1 and scale[0].size > 1:
        op.same(scale[0], x[axis])
    if op.has(2) and len(op.x[2]) == len(scale):
        op.same_all(op.x[2], scale)


def _blocks(op: Op, dim: Atom, count: int, block: int) -> Dim:
    """The blocks along `dim`, which go as a whole; nothing goes where the last one is not full."""
    if dim.size != count * block:
        op.freeze(dim, "the last block of a scale is not full")
        return Atom(count, op.reason("the last block of a scale is not full"))
    outer, inner = op.factor(dim, count)
    op.freeze(inner, "a block of entries shares its scale")
    return outer


@shape_rule("QuantizeLinear", "DequantizeLinear", domain=MICROSOFT)
def quantize_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As the input, in the type of the zero point (bytes without one) or of the scale."""
    assert x[0] is not None
    assert x[1] is not None
    if node.op_type == "DequantizeLinear":
        return [(x[0][0], x[1][1])]
    zero = x[2] if len(x) > 2 else None
    return [(x[0][0], zero[1] if zero else ir.DataType.UINT8)]


@rule("DynamicQuantizeLinear")
def dynamic_quantize(op: Op) -> None:
    """The scale follows from the extremes of everything."""
    op.same_all(op.y[0], op.x[0])
    op.tag("statistics", *op.x[0])


@rule("QLinearConv")
def qlinear_conv(op: Op) -> None:
    """Inputs x, w and bias as for Conv, each but the bias before its scale and zero point; those of w one or [G*O]."""
    op.like("Conv", (0, 3, 8), zeros={0: 2, 3: 5})
    _follow(op, (4, 5), op.x[3][:1])


@affine("QLinearConv", weight=3)
def qlinear_conv_form(node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """Conv of what the integers represent."""
    form = FORMS["", "Conv"](node, x, w)
    return form and of_integers(form, node, result_zero=7, hidden=0, bias=8)


@rule("ConvInteger")
def conv_integer(op: Op) -> None:
    """Inputs x and w as for Conv, then their zero points, that of w one or [G*O]."""
    op.like("Conv", (0, 1), zeros={0: 2, 1: 3})
    _follow(op, (3,), op.x[1][:1])


@rule("MatMulInteger")
def matmul_integer(op: Op) -> None:
    """Inputs a and b as for MatMul, then their zero points: one, per row of a, per column of b."""
    op.like("MatMul", (0, 1), zeros={0: 2, 1: 3})
    _follow(op, (3,), op.x[1])
    _keep_rows(op, 2)


@rule("QLinearMatMul")
def qlinear_matmul(op: Op) -> None:
    """Inputs a and b as for MatMul, each before its scale and zero point; then those of y."""
    op.like("MatMul", (0, 3), zeros={0: 2, 3: 5})
    _follow(op, (4, 5), op.x[3])
    _keep_rows(op, 1, 2, 6, 7)


@affine("QLinearMatMul", weight=3)
def qlinear_matmul_form(node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """MatMul of what the integers represent, by a matrix."""
    form = FORMS["", "MatMul"](node, x, w) if len(w) == 2 else None
    return form and of_integers(form, node, result_zero=7, hidden=1, bias=None)


def _follow(op: Op, inputs: tuple[int, ...], dims: Dims) -> None:
    """Scales and zero points align with the last of `dims`; those of size 1 are for all."""
    for i in inputs:
        for given, dim in zip(reversed(op.x[i] if op.has(i) else []), reversed(dims), strict=False):
            if given.size == dim.size:
                op.same(given, dim)


def _keep_rows(op: Op, *inputs: int) -> None:
    """Scales per row of a keep the rows."""
    if any(dim.size > 1 for i in inputs if op.has(i) for dim in op.x[i]) and len(op.x[0]) > 1:
        op.freeze(op.x[0][-2], "a scale or zero point per row")


@cost("MatMulInteger", "QLinearMatMul")
def matmul_macs(view: CostView) -> int:
    """One multiply-accumulate per output entry and summed index."""
    return prod(view.y[0]) * view.x[0][-1]
