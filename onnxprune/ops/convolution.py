"""Convolutions: channels in, channels out, and the `group` attribute between them."""

from __future__ import annotations

from math import prod

from onnxprune.dims import product
from onnxprune.ops.base import CostView, Op, attribute, cost, rule


@rule("Conv")
def conv(op: Op) -> None:
    """X [N, G*I, ...], w [G*O, I, ...] -> y [N, G*O, ...]; spatial axes keep their sizes."""
    x, w, y = op.x[0], op.x[1], op.y[0]
    groups = int(op.attr("group", 1))
    op.same(y[0], x[0])
    op.same(y[1], w[0])
    if groups == 1:
        op.contract(0, 1, w[1])
    else:
        outer, _ = op.factor(w[0], groups)
        op.same(x[1], product(outer, w[1]))
        op.free(w[1])
        op.names("group", None, outer)
        if w[1].size > 1:
            op.contract(0, 1)
    _finish(op)


@rule("ConvTranspose")
def conv_transpose(op: Op) -> None:
    """X [N, G*I, ...], w [G*I, O, ...] -> y [N, G*O, ...]."""
    x, w, y = op.x[0], op.x[1], op.y[0]
    groups = int(op.attr("group", 1))
    op.same(y[0], x[0])
    if groups == 1:
        op.contract(0, 1, w[0])
        op.same(y[1], w[1])
    else:
        outer, inner = op.factor(w[0], groups)
        op.same(x[1], w[0])
        op.same(y[1], product(outer, w[1]))
        op.free(w[1])
        op.names("group", None, outer)
        if inner.size > 1:
            op.contract(0, 1)
    _finish(op)


def _finish(op: Op) -> None:
    """Bias and labels: a convolution with a real window sees channels, a 1x1 one may as well be a projection."""
    y, w = op.y[0], op.x[1]
    if op.has(2):
        op.same(op.x[2][0], y[1])
    for dim in w[2:]:
        op.freeze(dim, "the window of the filters")
    for axis, (before, after) in enumerate(zip(op.x[0][2:], y[2:], strict=True)):
        if _is_pointwise(op, axis):
            op.same(before, after)
        else:
            for dim in (before, after):
                op.freeze(dim, "a spatial axis")
    op.tag("channels", y[1], op.x[0][1])
    if any(dim.size > 1 for dim in w[2:]):
        op.tag("spatial", y[1])


def _is_pointwise(op: Op, axis: int) -> bool:
    """Does a window of 1 read every place along a spatial axis as it is, like a projection? Tokens may lie there."""
    steps, pads = op.attr("strides", []), op.attr("pads", [])
    around = (
        *pads[axis : axis + 1],
        *pads[len(pads) // 2 + axis :][:1],
        *op.attr("output_padding", [])[axis : axis + 1],
    )
    return op.x[1][2 + axis].size == 1 and (not steps or steps[axis] == 1) and not any(around)


@cost("Conv", "ConvInteger", "QLinearConv")
def conv_macs(view: CostView) -> int:
    """Every output entry reads one filter."""
    weight = view.x[3] if view.node.op_type == "QLinearConv" else view.x[1]
    return prod(view.y[0]) * prod(weight[1:])


@cost("ConvTranspose")
def conv_transpose_macs(view: CostView) -> int:
    """Every input entry is spread over one filter."""
    return prod(view.x[0]) * prod(view.x[1][1:])


@rule("DeformConv")
def deform_conv(op: Op) -> None:
    """As Conv with one group; offsets and masks keep their shapes."""
    if int(op.attr("group", 1)) != 1 or int(op.attr("offset_group", 1)) != 1:
        op.freeze_everything("a grouped deformable convolution")
        return
    for batched in (op.x[0], op.x[2], *([op.x[4]] if op.has(4) else [])):
        op.same(op.y[0][0], batched[0])
    op.same(op.y[0][1], op.x[1][0])
    op.contract(0, 1, op.x[1][1])
    op.tag("channels", op.y[0][1])
    if op.has(3):
        op.same(op.x[3][0], op.y[0][1])


@cost("DeformConv")
def deform_conv_macs(view: CostView) -> int:
    """As Conv; the interpolation is not counted."""
    return attribute(view.node, "group", 1) and prod(view.y[0]) * prod(view.x[1][1:])
