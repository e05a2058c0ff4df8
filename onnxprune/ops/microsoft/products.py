"""ONNX Runtime's products (com.microsoft): MatMul, Gemm and Conv with what was fused into them, mixtures of experts."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import onnx_ir as ir

from onnxprune.dims import Atom, Dim, concat, product
from onnxprune.ops.base import CostView, Dims, Op, Typed, attribute, cost, rule, shape_rule
from onnxprune.ops.evaluate import shape_as
from onnxprune.ops.matmul_view import FORMS, Form, affine, reordered

MICROSOFT = "com.microsoft"


@rule("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul(op: Op) -> None:
    """MatMul behind transposes of its operands, times `alpha`."""
    op.like("MatMul", x={i: [op.x[i][axis] for axis in _order(op.node, i, len(op.x[i]))] for i in (0, 1)})


def _order(node: ir.Node, i: int, rank: int) -> list[int]:
    """Where the axes of operand `i` come from: [M, b..., K] becomes [b..., M, K], then the last two change places."""
    side = "AB"[i]
    order = list(range(rank))
    if attribute(node, f"transBatch{side}", 0) and rank > 2:
        order = [*order[1:-1], order[0], order[-1]]
    if attribute(node, f"trans{side}", 0) and rank > 1:
        order[-2:] = order[:-3:-1]
    return order


@shape_rule("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As MatMul of the operands once transposed."""
    assert x[0] is not None
    assert x[1] is not None
    operands = [tuple(shape[axis] for axis in _order(node, i, len(shape))) for i, (shape, _) in enumerate((x[0], x[1]))]
    return [(shape_as("MatMul", node, operands), x[0][1])]


@rule("FusedGemm", domain=MICROSOFT)
def fused_gemm(op: Op) -> None:
    """Gemm before an activation."""
    op.like("Gemm")


@shape_rule("FusedGemm", domain=MICROSOFT)
def fused_gemm_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As Gemm."""
    assert x[0] is not None
    return [(shape_as("Gemm", node, [given and given[0] for given in x]), x[0][1])]


@rule("FusedConv", domain=MICROSOFT)
def fused_conv(op: Op) -> None:
    """Conv, then the sum with a fourth input, then an activation."""
    op.like("Conv", (0, 1, 2))
    if op.has(3):
        op.same_all(op.x[3][:2], op.y[0][:2])
        op.tag("residual", op.y[0][1])


@shape_rule("FusedConv", domain=MICROSOFT)
def fused_conv_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As Conv."""
    assert x[0] is not None
    return [(shape_as("Conv", node, [given and given[0] for given in x[:2]]), x[0][1])]


@rule("NhwcConv", domain=MICROSOFT)
def nhwc_conv(op: Op) -> None:
    """Conv with the channels last: x [N, ..., G*I], w [G*O, ..., I] -> y [N, ..., G*O]."""
    front = {0: _channels_first(op.x[0]), 1: _channels_first(op.x[1])}
    op.like("Conv", x=front, y=_channels_first(op.y[0]))


def _channels_first(dims: Dims) -> Dims:
    """[N, ..., C] as [N, C, ...]."""
    return [dims[0], dims[-1], *dims[1:-1]]


@shape_rule("NhwcConv", domain=MICROSOFT)
def nhwc_conv_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As Conv, moved."""
    assert x[0] is not None
    assert x[1] is not None
    front = [(shape[0], shape[-1], *shape[1:-1]) for shape, _ in (x[0], x[1])]
    batch, channels, *space = shape_as("Conv", node, front)
    return [((batch, *space, channels), x[0][1])]


@rule("MoE", domain=MICROSOFT)
def mixture_of_experts(op: Op) -> None:
    """Input [..., H], w1 [E, F*I, H], b1 [E, F*I], w2 [E, H, I], b2 [E, H], w3 [E, I, H], b3 [E, I] -> y [..., H].

    F is 2 where the gate lies in w1: beside each unit, or behind all of them. Experts are chosen by data.
    """
    x, up, down, y = op.x[0], op.x[2], op.x[4], op.y[0]
    op.same_all(y, x)
    op.same(y[-1], down[1])
    op.contract(0, len(x) - 1, up[2])
    op.contract(4, 2)
    inner: Dim = down[2]
    if up[1].size == 2 * down[2].size:
        gates = Atom(2, op.reason("a gate beside each unit"))
        inner = product(inner, gates) if op.attr("swiglu_fusion", 0) == 1 else concat(inner, inner)
    op.same(up[1], inner)
    for i, dim in ((3, up[1]), (5, down[1]), (7, down[2])):
        if op.has(i):
            op.same(op.x[i][1], dim)
    if op.has(6):
        op.same(op.x[6][1], down[2])
        op.same(op.x[6][2], x[-1])
    op.freeze(x[0], "tokens are counted through")
    op.tag("produced", up[1], y[-1])
    op.tag("read", x[-1], down[2])


@shape_rule("MoE", domain=MICROSOFT)
def mixture_of_experts_shape(_: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As the input."""
    return x[:1]


@cost("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul_macs(view: CostView) -> int:
    """One multiply-accumulate per output entry and summed index."""
    return prod(view.y[0]) * view.x[0][_order(view.node, 0, len(view.x[0]))[-1]]


@cost("FusedGemm", domain=MICROSOFT)
def fused_gemm_macs(view: CostView) -> int:
    """The same, transposed or not."""
    return prod(view.y[0]) * view.x[0][0 if attribute(view.node, "transA", 0) else 1]


@cost("FusedConv", "NhwcConv", domain=MICROSOFT)
def fused_conv_macs(view: CostView) -> int:
    """Every output entry reads one filter."""
    return prod(view.y[0]) * prod(view.x[1][1:])


@cost("MoE", domain=MICROSOFT)
def mixture_of_experts_macs(view: CostView) -> int:
    """Every token passes through `k` experts."""
    tokens = prod(view.x[0][:-1])
    weights = sum(prod(view.x[i][1:]) for i in (2, 4, 6) if i < len(view.x) and view.x[i])
    return tokens * weights * int(attribute(view.node, "k", 1))


@affine("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul_form(node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """MatMul of a weight that may be transposed, times `alpha`."""
    if any(attribute(node, name, 0) for name in ("transA", "transBatchA", "transBatchB")):
        return None
    order, alpha = _order(node, 1, len(w)), float(attribute(node, "alpha", 1.0))
    plain = FORMS["", "MatMul"](node, x, tuple(w[axis] for axis in order))
    if plain is None:
        return None
    form = reordered(plain, order)
    return replace(
        form,
        matrix=lambda weight: alpha * form.matrix(weight),
        weight=lambda matrix: form.weight(matrix / alpha),
    )


@affine("FusedGemm", domain=MICROSOFT)
def fused_gemm_form(node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """Gemm before an activation."""
    form = FORMS["", "Gemm"](node, x, w)
    return form and replace(form, hidden=0 if attribute(node, "transB", 0) else 1, rectified=_is_rectified(node))


@affine("FusedConv", domain=MICROSOFT)
def fused_conv_form(node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """Conv before a sum and an activation."""
    form = FORMS["", "Conv"](node, x, w)
    summed = len(node.inputs) > 3 and node.inputs[3] is not None
    return form and replace(form, hidden=0, rectified=_is_rectified(node) and not summed)


def _is_rectified(node: ir.Node) -> bool:
    return bool(attribute(node, "activation", "") == "Relu")
