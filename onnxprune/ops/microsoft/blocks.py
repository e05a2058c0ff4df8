"""Weights packed in blocks of 2 to 8 bits (com.microsoft): MatMulNBits, GatherBlockQuantized."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from onnxprune.dims import Atom, Dim, product
from onnxprune.ops.base import Array, CostView, Op, RefuseError, Typed, attribute, cost, rule, shape_rule
from onnxprune.ops.matmul_view import Form, affine, by_sample

MICROSOFT = "com.microsoft"
_SHARED_SCALE = "a block of weights shares its scale"
_SHARED_BYTE = "several entries share a byte"


@rule("MatMulNBits", domain=MICROSOFT)
def matmul_n_bits(op: Op) -> None:
    """Input a [..., K], b [N, K/block, bytes], scales [N, K/block] or flat, zero points alike or packed -> y [..., N].

    N goes by units, K by whole blocks.
    """
    if op.attr("weight_prepacked", 0) or op.has(4):
        raise RefuseError("weights packed for one kernel, or in an order of their own")
    a, b, y = op.x[0], op.x[1], op.y[0]
    columns, blocks = b[0], b[1]
    op.same_all(y[:-1], a[:-1])
    op.same(y[-1], columns)
    op.contract(0, len(a) - 1)
    op.free(blocks)
    if a[-1].size == blocks.size * int(op.attr("block_size")):
        outer, inner = op.factor(a[-1], blocks.size)
        op.freeze(inner, _SHARED_SCALE)
        op.same(blocks, outer)
    else:
        op.freeze(a[-1], "the last block is not full")
        op.freeze(blocks, "the last block is not full")
    _per_block(op, 2, columns, blocks)
    if op.has(3):
        packed = prod(dim.size for dim in op.x[3]) != columns.size * blocks.size
        _per_block(op, 3, columns, _bytes(op, blocks) if packed else blocks)
    if op.has(5):
        op.same(op.x[5][0], columns)
    op.names("N", None, columns)
    op.names("K", None, a[-1])
    op.tag("produced", columns)
    op.tag("read", a[-1])


def _per_block(op: Op, i: int, columns: Dim, blocks: Dim) -> None:
    """Input `i` is [N, blocks], or the same flat."""
    dims = op.x[i]
    if len(dims) == 1:
        op.same(dims[0], product(columns, blocks))
    else:
        op.same_all(dims, (columns, blocks))


def _bytes(op: Op, dim: Dim) -> Dim:
    """The bytes that hold an entry of `bits` bits per entry of `dim`, a new row from a new byte."""
    per = 8 // int(op.attr("bits", 4))
    if dim.size % per:
        op.freeze(dim, _SHARED_BYTE)
        return Atom(-(-dim.size // per), op.reason(_SHARED_BYTE))
    outer, inner = op.factor(dim, dim.size // per)
    op.freeze(inner, _SHARED_BYTE)
    return outer


@affine("MatMulNBits", domain=MICROSOFT)
def matmul_n_bits_form(node: ir.Node, x: tuple[int, ...], _: tuple[int, ...]) -> Form | None:
    """MatMul of floats by what the blocks represent; a last block that is not full ends in zeros."""
    if len(x) < 2 or attribute(node, "weight_prepacked", 0) or (len(node.inputs) > 4 and node.inputs[4] is not None):
        return None
    columns, block, axis = int(attribute(node, "N")), int(attribute(node, "block_size")), len(x) - 1
    features, blocks = x[-1], -(-x[-1] // block)

    def back(matrix: Array) -> Array:
        whole = np.zeros((columns, blocks * block))
        whole[:, :features] = matrix[0].T
        return whole

    return Form(
        axis,
        axis,
        1,
        1,
        lambda array, positions: by_sample(array, positions)[None],
        lambda weight: weight.reshape(columns, -1)[:, :features].T[None],
        back,
        bias=5 if len(node.inputs) > 5 and node.inputs[5] is not None else None,
    )


@shape_rule("MatMulNBits", domain=MICROSOFT)
def matmul_n_bits_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """The last axis becomes N."""
    assert x[0] is not None
    shape, dtype = x[0]
    return [((*shape[:-1], int(attribute(node, "N"))), dtype)]


@cost("MatMulNBits", domain=MICROSOFT)
def matmul_n_bits_macs(view: CostView) -> int:
    """One multiply-accumulate per output entry and summed index."""
    return prod(view.y[0]) * view.x[0][-1]


@rule("GatherBlockQuantized", domain=MICROSOFT)
def gather_block_quantized(op: Op) -> None:
    """Gather from a table packed along its last axis, with scales and zero points per block along `quantize_axis`."""
    data, indices, scales, y = op.x[0], op.x[1], op.x[2], op.y[0]
    gathered = op.axis("gather_axis", 0)
    blocked = op.axis("quantize_axis", 1)
    op.freeze(data[gathered], "entries are looked up by data")
    op.same(scales[gathered], data[gathered])
    op.same_all(y[gathered : gathered + len(indices)], indices)
    rest = [axis for axis in range(len(data)) if axis != gathered]
    outputs = dict(zip(rest, [*y[:gathered], *y[gathered + len(indices) :]], strict=True))
    for axis, dim in outputs.items():
        op.free(dim)
        packed = data[axis].size != dim.size
        if axis == blocked:
            outer, inner = op.factor(dim, scales[axis].size)
            op.freeze(inner, _SHARED_SCALE)
            op.same(scales[axis], outer)
            width = data[axis].size // scales[axis].size
            op.same(data[axis], product(outer, Atom(width, op.reason(_SHARED_SCALE))))
        else:
            op.same(scales[axis], dim)
            op.same(data[axis], _bytes(op, dim) if packed else dim)
    if op.has(3):
        for given, scale in zip(op.x[3], scales, strict=True):
            op.same(given, scale if given.size == scale.size else _bytes(op, scale))


@shape_rule("GatherBlockQuantized", domain=MICROSOFT)
def gather_block_quantized_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As Gather of the unpacked table, in the type of the scales."""
    assert x[0] is not None
    assert x[1] is not None
    assert x[2] is not None
    data, kind = x[0]
    axis = int(attribute(node, "gather_axis", 0)) % len(data)
    per = 8 // int(attribute(node, "bits", 4)) if kind == ir.DataType.UINT8 else 1
    table = (*data[:-1], data[-1] * per)
    return [((*table[:axis], *x[1][0], *table[axis + 1 :]), x[2][1])]
