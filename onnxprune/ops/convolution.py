"""Convolutions: channels in, channels out, and the `group` attribute between them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.dims import Atom, product
from onnxprune.ops.base import Array, CostView, Op, attribute, cost, rule
from onnxprune.ops.matmul_view import Form, Positions, affine

_SAME = ("SAME_UPPER", "SAME_LOWER")


@rule("Conv")
def conv(op: Op) -> None:
    """X [N, G*I, ...], w [G*O, I, ...] -> y [N, G*O, ...]; spatial axes keep their sizes."""
    op.same(op.y[0][0], op.x[0][0])
    _channels(op, op.x[1], op.y[0])
    _finish(op)


def _channels(op: Op, w: list[Atom], y: list[Atom]) -> None:
    """Filters [G*O, I, ...] over channels [G*I] give channels [G*O]."""
    groups = int(op.attr("group", 1))
    op.same(y[1], w[0])
    if groups == 1:
        op.contract(0, 1, w[1])
        return
    outer, _ = op.factor(w[0], groups)
    op.same(op.x[0][1], product(outer, w[1]))
    op.free(w[1])
    op.names("group", None, outer)
    if w[1].size > 1:
        op.contract(0, 1, over=w[1])


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
            op.contract(0, 1, over=inner)
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
    """As Conv; offsets [N, D*window*2, ...] and masks [N, D*window, ...] are those of D blocks of input channels."""
    x, w, offsets, y = op.x[0], op.x[1], op.x[2], op.y[0]
    blocks = int(op.attr("offset_group", 1))
    _channels(op, w, y)
    deformed = [offsets, *([op.x[4]] if op.has(4) else [])]
    for batched in (x, *deformed):
        op.same(y[0], batched[0])
    if blocks > 1:
        outer, _ = op.factor(x[1], blocks)
        op.names("offset_group", None, outer)
        for given in deformed:
            inner = Atom(given[1].size // blocks, op.reason("the window of the filters"))
            op.same(given[1], product(outer, inner))
    op.tag("channels", y[1])
    if op.has(3):
        op.same(op.x[3][0], y[1])


@cost("DeformConv")
def deform_conv_macs(view: CostView) -> int:
    """As Conv; the interpolation is not counted."""
    return attribute(view.node, "group", 1) and prod(view.y[0]) * prod(view.x[1][1:])


# -- as products of rows and a matrix, see ops.affine


@affine("Conv")
def conv_form(node: ir.Node, _x: tuple[int, ...], w: tuple[int, ...]) -> Form:
    """Input [N, G*I, ...], weight [G*O, I, window]; features are (input channel, tap)."""
    groups, window = int(attribute(node, "group", 1)), w[2:]
    taps, rank = prod(window), len(window)
    strides, dilations, given = _steps(node, rank)
    padded = attribute(node, "auto_pad", "NOTSET") in _SAME or any(map(any, given))

    def rows(array: Array, positions: Positions | None) -> Array:
        pads = _pads(node, array.shape[2:], window, strides, dilations)
        seen = _windows(np.pad(array, [(0, 0), (0, 0), *pads]), window, strides, dilations)
        return _grouped(seen, groups, rank, positions)

    def matrix(weight: Array) -> Array:
        return weight.reshape(groups, len(weight) // groups, -1).transpose(0, 2, 1)

    def back(matrix: Array) -> Array:
        outputs = matrix.shape[0] * matrix.shape[2]
        return matrix.transpose(0, 2, 1).reshape(outputs, -1, *window)

    return Form(1, 1, taps, groups, rows, matrix, back, bias=2, even=not padded)


@affine("ConvTranspose")
def conv_transpose_form(node: ir.Node, _x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """Input [N, G*I, ...], weight [G*I, O, window]: a Conv with the window reversed over the input spread out."""
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID") or attribute(node, "output_shape", None):
        return None
    groups, window = int(attribute(node, "group", 1)), w[2:]
    taps, rank = prod(window), len(window)
    strides, dilations, pads = _steps(node, rank)
    extra = attribute(node, "output_padding", None) or [0] * rank
    reach = [(size - 1) * dilation for size, dilation in zip(window, dilations, strict=True)]
    around = [(r - a, r - b + e) for r, (a, b), e in zip(reach, pads, extra, strict=True)]

    def rows(array: Array, positions: Positions | None) -> Array:
        sizes = [(size - 1) * stride + 1 for size, stride in zip(array.shape[2:], strides, strict=True)]
        spread = np.zeros((*array.shape[:2], *sizes), array.dtype)
        steps: Any = tuple(slice(None, None, stride) for stride in strides)
        spread[(slice(None), slice(None), *steps)] = array
        padded = np.pad(spread, [(0, 0), (0, 0), *((max(a, 0), max(b, 0)) for a, b in around)])
        inside: Any = tuple(
            slice(max(-a, 0), size - max(-b, 0)) for (a, b), size in zip(around, padded.shape[2:], strict=True)
        )
        return _grouped(
            _windows(padded[(slice(None), slice(None), *inside)], window, (1,) * rank, dilations),
            groups,
            rank,
            positions,
        )

    def matrix(weight: Array) -> Array:
        flipped = np.flip(weight, tuple(range(2, weight.ndim))).reshape(groups, -1, w[1], taps)
        return flipped.transpose(0, 1, 3, 2).reshape(groups, -1, w[1])

    def back(matrix: Array) -> Array:
        flipped = matrix.reshape(groups, -1, taps, w[1]).transpose(0, 1, 3, 2).reshape(-1, w[1], *window)
        return np.flip(flipped, tuple(range(2, flipped.ndim)))

    return Form(1, 1, taps, groups, rows, matrix, back, bias=2, even=False)


def _grouped(seen: Array, groups: int, rank: int, positions: Positions | None) -> Array:
    """The entries that each place sees [N, C, places..., window...] as rows [groups, N * places, channels * taps]."""
    n, channels, *places = seen.shape[: 2 + rank]
    if positions is not None:
        at: tuple[Any, ...] = np.unravel_index(positions, places)
        seen = seen[(slice(None), slice(None), *at)]
    taps = prod(seen.shape[-rank:])
    chosen = seen.reshape(n, groups, channels // groups, -1, taps)
    return np.ascontiguousarray(chosen.transpose(1, 0, 3, 2, 4)).reshape(groups, -1, channels // groups * taps)


Steps = tuple[int, ...]


def _steps(node: ir.Node, rank: int) -> tuple[Steps, Steps, list[tuple[int, int]]]:
    """Strides, dilations and the pads that are given, per spatial axis."""
    strides = tuple(attribute(node, "strides", None) or [1] * rank)
    dilations = tuple(attribute(node, "dilations", None) or [1] * rank)
    flat = list(attribute(node, "pads", None) or [0] * 2 * rank)
    return strides, dilations, list(zip(flat[:rank], flat[rank:], strict=True))


def _windows(x: Array, window: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]) -> Array:
    """The entries that each place of a convolution sees: a view [N, C, places..., window...]."""
    axes = tuple(range(2, x.ndim))
    reach = tuple((size - 1) * dilation + 1 for size, dilation in zip(window, dilations, strict=True))
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, axis=axes)
    places = tuple(slice(None, None, stride) for stride in strides)
    inside = tuple(slice(None, None, dilation) for dilation in dilations)
    return seen[(slice(None), slice(None), *places, *inside)]


def _pads(
    node: ir.Node, sizes: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> list[tuple[int, int]]:
    """Zeros before and behind each spatial axis (ONNX Conv, attributes auto_pad and pads)."""
    auto = attribute(node, "auto_pad", "NOTSET")
    if auto in _SAME:
        pads = []
        for size, taps, stride, dilation in zip(sizes, window, strides, dilations, strict=True):
            total = max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if auto == "SAME_UPPER" else (large, small))
        return pads
    return _steps(node, len(window))[2] if auto != "VALID" else [(0, 0)] * len(window)
