"""ONNX Runtime's quantized operators (com.microsoft): element-wise on 8 bits, products of integers and floats."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import onnx_ir as ir

from onnxprune.dims import concat
from onnxprune.ops.base import CostView, Dims, Op, Typed, attribute, cost, rule, shape_rule
from onnxprune.ops.evaluate import shape_as
from onnxprune.ops.matmul_view import FORMS, Form, affine, of_integers

MICROSOFT = "com.microsoft"


def per_entry(name: str, standard: str, *inputs: int) -> None:
    """Register an operator that is element-wise on `inputs`; the others are scales and zero points of whole tensors."""
    rule(name, domain=MICROSOFT)(lambda op: op.like(standard, inputs))

    @shape_rule(name, domain=MICROSOFT)
    def shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
        return [(shape_as("Sum", node, [_given(x, i)[0] for i in inputs]), _given(x, inputs[-1])[1])]


def _given(x: list[Typed | None], i: int) -> Typed:
    found = x[i] if i < len(x) else None
    if found is None:
        raise ValueError(f"input {i} is missing")
    return found


per_entry("QLinearMul", "Mul", 0, 3)
per_entry("QLinearWhere", "Where", 0, 1, 4)
per_entry("QLinearSigmoid", "Sigmoid", 0)
per_entry("QLinearLeakyRelu", "LeakyRelu", 0)


@rule("QLinearAdd", domain=MICROSOFT)
def qlinear_add(op: Op) -> None:
    """Inputs a and b, each before its scale and zero point."""
    op.like("Add", (0, 3))
    if op.is_activation(0) and op.is_activation(3):
        op.tag("residual", *[dim for dim in op.y[0] if dim.size > 1])


@shape_rule("QLinearAdd", domain=MICROSOFT)
def qlinear_add_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As Add."""
    return [(shape_as("Add", node, [_given(x, 0)[0], _given(x, 3)[0]]), _given(x, 0)[1])]


@rule("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(op: Op) -> None:
    """Scale and zero point of the output, then the parts, each before its own."""
    op.like("Concat", range(2, len(op.x), 3))


@shape_rule("QLinearConcat", domain=MICROSOFT)
def qlinear_concat_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As Concat."""
    return [(shape_as("Concat", node, [_given(x, i)[0] for i in range(2, len(x), 3)]), _given(x, 2)[1])]


@rule("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax(op: Op) -> None:
    """The axis competes with itself; for old opsets all axes from it on are one."""
    op.same_all(op.y[0], op.x[0])
    for dim in op.x[0][op.axis(default=-1) :]:
        op.freeze(dim, "softmax runs over it")


@shape_rule("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax_shape(_: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As the input."""
    return x[:1]


def windowed(name: str, standard: str, *, last: bool | None = None) -> None:
    """Register a pooling on 8 bits; the channels come last as `last` says, or the attribute `channels_last`."""

    @rule(name, domain=MICROSOFT)
    def pool(op: Op) -> None:
        at_end = op.attr("channels_last", 0) if last is None else last
        x, y = op.x[0], op.y[0]
        channels = len(x) - 1 if at_end else 1
        for axis in {*range(1, len(x))} - {channels}:
            op.freeze(x[axis], "a spatial axis of integers")
        op.like(standard, (0,), x={0: _channels_first(x)} if at_end else None, y=_channels_first(y) if at_end else None)

    @shape_rule(name, domain=MICROSOFT)
    def shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
        given, dtype = _given(x, 0)
        at_end = attribute(node, "channels_last", 0) if last is None else last
        found = shape_as(standard, node, [(given[0], given[-1], *given[1:-1]) if at_end else given])
        return [((found[0], *found[2:], found[1]) if at_end else found, dtype)]


def _channels_first(dims: Dims) -> Dims:
    """[N, ..., C] as [N, C, ...]."""
    return [dims[0], dims[-1], *dims[1:-1]]


windowed("QLinearGlobalAveragePool", "GlobalAveragePool")
windowed("QLinearAveragePool", "AveragePool")
windowed("NhwcMaxPool", "MaxPool", last=True)


@rule("QLinearConv", domain=MICROSOFT)
def qlinear_conv(op: Op) -> None:
    """As in the standard domain, also with the channels of x and y last."""
    last = bool(op.attr("channels_last", 0))
    front = {0: _channels_first(op.x[0])} if last else None
    op.like("Conv", (0, 3, 8), x=front, y=_channels_first(op.y[0]) if last else None, zeros={0: 2, 3: 5})
    _per_column(op, (4, 5), op.x[3][:1])


@affine("QLinearConv", domain=MICROSOFT, weight=3)
def qlinear_conv_form(node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """Conv of what the integers represent, also with the channels last."""
    form = FORMS["", "Conv"](node, x, w)
    if form is not None and attribute(node, "channels_last", 0):
        plain, last = form, len(x) - 1
        form = replace(
            form,
            axis=last,
            out_axis=last,
            rows=lambda array, positions: plain.rows(np.moveaxis(array, -1, 1), positions),
        )
    return form and of_integers(form, node, result_zero=7, hidden=0, bias=8)


@shape_rule("QLinearConv", domain=MICROSOFT)
def qlinear_conv_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As Conv, moved."""
    last = bool(attribute(node, "channels_last", 0))
    given, zero = _given(x, 0)[0], _given(x, 7)
    found = shape_as("Conv", node, [(given[0], given[-1], *given[1:-1]) if last else given, _given(x, 3)[0]])
    return [((found[0], *found[2:], found[1]) if last else found, zero[1])]


def _per_column(op: Op, inputs: tuple[int, ...], dims: Dims) -> None:
    """Scales and zero points align with the last of `dims`; those of size 1 are for all."""
    for i in inputs:
        for given, dim in zip(reversed(op.x[i] if op.has(i) else []), reversed(dims), strict=False):
            if given.size == dim.size:
                op.same(given, dim)


@rule("QGemm", domain=MICROSOFT)
def qgemm(op: Op) -> None:
    """Inputs a and b as for Gemm, each before its scale and zero point, then c; those of b one or per column of y."""
    op.like("Gemm", (0, 3, 6), zeros={0: 2, 3: 5})
    _per_column(op, (4, 5), op.y[0][1:])


@affine("QGemm", domain=MICROSOFT, weight=3)
def qgemm_form(node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """Gemm of what the integers represent."""
    form = FORMS["", "Gemm"](node, x, w)
    hidden = 0 if attribute(node, "transB", 0) else 1
    return form and of_integers(form, node, result_zero=8, hidden=hidden, bias=6)


@shape_rule("QGemm", domain=MICROSOFT)
def qgemm_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As Gemm; floats unless the output has a zero point."""
    zero = x[8] if len(x) > 8 else None
    return [(shape_as("Gemm", node, [_given(x, 0)[0], _given(x, 3)[0]]), zero[1] if zero else ir.DataType.FLOAT)]


@rule("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(op: Op) -> None:
    """Integers a and b as for MatMul, their scales, their zero points (of b one or per column), a bias."""
    op.like("MatMul", (0, 1), zeros={0: 4, 1: 5})
    _per_column(op, (3, 5, 6), op.x[1])
    for i in (2, 4):
        if op.has(i) and any(dim.size > 1 for dim in op.x[i]):
            op.freeze(op.x[0][-2], "a scale or zero point per row")


@rule("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(op: Op) -> None:
    """Floats a, whose scale follows from the extremes of everything; integers b with scale, zero point and bias."""
    op.like("MatMul", (0, 1), zeros={1: 3})
    _per_column(op, (2, 3, 4), op.x[1])
    op.tag("statistics", *op.x[0])


@affine("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul_form(node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """MatMul of floats by what the integers represent; the input is rounded inside."""
    form = FORMS["", "MatMul"](node, x, w) if len(w) == 2 else None
    return form and replace(form, bias=4)


@shape_rule("MatMulIntegerToFloat", "DynamicQuantizeMatMul", domain=MICROSOFT)
def matmul_to_float_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As MatMul, in the type of the scales."""
    return [(shape_as("MatMul", node, [_given(x, 0)[0], _given(x, 1)[0]]), _given(x, 2)[1])]


@rule("DynamicQuantizeLSTM", domain=MICROSOFT)
def dynamic_quantize_lstm(op: Op) -> None:
    """W [D, I, 4*H], R [D, H, 4*H], their scales and zero points [D] or [D, 4*H], the rest as for LSTM.

    Inputs and states are quantized at every step, by scales that follow from their extremes.
    """
    x, weights, recurrence = op.x[0], op.x[1], op.x[2]
    hidden = recurrence[1]
    gates = concat(*[hidden] * 4)
    op.contract(0, 2, weights[1])
    op.free(hidden)
    op.same(weights[2], gates)
    op.same(recurrence[2], gates)
    op.names("hidden_size", None, hidden)
    for i, dim in ((3, concat(gates, gates)), (7, concat(hidden, hidden, hidden))):
        if op.has(i):
            op.same(op.x[i][1], dim)
    for parameter in op.x[8:12]:
        if len(parameter) == 2:
            op.same(parameter[1], gates)
    for state in (*op.x[5:7], *op.y):
        if state:
            op.same(state[-1], hidden)
    for dim in x[:2]:
        op.freeze(dim, "time and batch of a recurrent layer")
    op.tag("recurrent", hidden)
    op.tag("statistics", hidden, x[2])


@shape_rule("DynamicQuantizeLSTM", domain=MICROSOFT)
def dynamic_quantize_lstm_shape(_: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """All states, the last state, the last cell."""
    shape, dtype = _given(x, 0)
    directions, hidden = _given(x, 2)[0][:2]
    last = ((directions, shape[1], hidden), dtype)
    return [((shape[0], directions, shape[1], hidden), dtype), last, last]


@cost("MatMulIntegerToFloat", "DynamicQuantizeMatMul", domain=MICROSOFT)
def matmul_macs(view: CostView) -> int:
    """One multiply-accumulate per output entry and summed index."""
    return prod(view.y[0]) * view.x[0][-1]


@cost("QGemm", domain=MICROSOFT)
def qgemm_macs(view: CostView) -> int:
    """The same, transposed or not."""
    return prod(view.y[0]) * view.x[0][0 if attribute(view.node, "transA", 0) else 1]


@cost("QLinearConv", domain=MICROSOFT)
def qlinear_conv_macs(view: CostView) -> int:
    """Every output entry reads one filter."""
    return prod(view.y[0]) * prod(view.x[3][1:])


@cost("DynamicQuantizeLSTM", domain=MICROSOFT)
def lstm_macs(view: CostView) -> int:
    """Input and recurrent products at every step, for every direction."""
    return prod(view.x[0][:2]) * (prod(view.x[1]) + prod(view.x[2]))
