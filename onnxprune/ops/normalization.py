"""Normalizations: units pass through; where statistics run over them, that is marked."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.ops.base import Array, Op, Typed, attribute, key_of, rule, shape_rule
from onnxprune.ops.matmul_view import Form, Positions, affine, by_sample, constant_of, read


@rule("BatchNormalization")
def batch_normalization(op: Op) -> None:
    """Per-channel scale, bias, mean and variance; in training mode (weight standardization) statistics of the rest."""
    if op.attr("training_mode", 0):
        op.tag("statistics", op.x[0][0], *op.x[0][2:])
    op.tag("scale", *op.x[1])
    op.same_all(op.y[0], op.x[0])
    for parameter in op.x[1:5]:
        op.same(parameter[0], op.x[0][1])
    for statistic in op.y[1:]:
        for dim in statistic:
            op.same(dim, op.x[0][1])


@rule("InstanceNormalization")
def instance_normalization(op: Op) -> None:
    """Statistics over the spatial axes of each channel."""
    x = op.x[0]
    op.same_all(op.y[0], x)
    op.same(op.x[1][0], x[1])
    op.same(op.x[2][0], x[1])
    op.tag("statistics", *x[2:])
    op.tag("scale", *op.x[1])


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_normalization(op: Op) -> None:
    """Statistics over the last axes, from `axis` on; scale and bias align with them."""
    x = op.x[0]
    axis = op.axis(default=-1)
    op.same_all(op.y[0], x)
    for parameter in op.x[1:]:
        for offset in range(1, len(parameter) + 1):
            if parameter[-offset].size == x[-offset].size:
                op.same(parameter[-offset], x[-offset])
            else:
                op.free(parameter[-offset])
    op.tag("statistics", *x[axis:])
    op.tag("normalized", *x[axis:])
    op.tag("scale", *op.x[1])
    for statistic in op.y[1:]:
        if len(statistic) == len(x):
            op.same_all(statistic[:axis], x[:axis])


@rule("GroupNormalization")
def group_normalization(op: Op) -> None:
    """X [N, G*C, ...]: statistics over C and space; scale and bias are per group before opset 21, per channel since."""
    x = op.x[0]
    op.same_all(op.y[0], x)
    groups, inner = op.factor(x[1], int(op.attr("num_groups")))
    op.names("num_groups", None, groups)
    for parameter in op.x[1:3]:
        op.same(parameter[0], x[1] if parameter[0].size == x[1].size else groups)
    op.tag("statistics", inner, *x[2:])
    op.tag("scale", *op.x[1])


@rule("LpNormalization", "MeanVarianceNormalization")
def normalization_without_parameters(op: Op) -> None:
    """Statistics over the axes given."""
    x = op.x[0]
    op.same_all(op.y[0], x)
    lp = op.node.op_type == "LpNormalization"
    axes = [op.axis(default=-1)] if lp else list(op.attr("axes", [0, 2, 3]))
    op.tag("statistics", *[x[axis] for axis in axes])


@rule("LRN")
def local_response_normalization(op: Op) -> None:
    """Every channel reads its neighbours, so the channels keep their places."""
    for axis, (x, y) in enumerate(zip(op.x[0], op.y[0], strict=True)):
        op.same(x, y)
        if axis == 1:
            op.freeze(x, "neighbouring channels are read together")


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(op: Op) -> None:
    """The axis competes with itself: it keeps its size. Before opset 13 all axes from `axis` on are one."""
    x, y = op.x[0], op.y[0]
    op.same_all(y, x)
    axis = op.axis(default=-1 if op.opset >= 13 else 1)
    for dim in x[axis : axis + 1] if op.opset >= 13 else x[axis:]:
        op.freeze(dim, "softmax runs over it")


@shape_rule("GroupNormalization", "MeanVarianceNormalization")
def as_first_input(_: ir.Node, inputs: list[Typed | None]) -> list[Typed | None]:
    """Onnx defines these by a function body and tells no types for a single node."""
    return inputs[:1]


def is_batch_norm(node: ir.Node) -> bool:
    """One that runs on constant statistics?"""
    return (
        key_of(node) == ("", "BatchNormalization")
        and not attribute(node, "training_mode", 0)
        and all(constant_of(value) is not None for value in node.inputs[1:5])
    )


def norm_scale(norm: ir.Node) -> npt.NDArray[np.float64]:
    """The factor of a BatchNormalization for each channel."""
    return read(norm.inputs[1]).astype(np.float64) / norm_deviation(norm)


def norm_deviation(norm: ir.Node) -> npt.NDArray[np.float64]:
    """The divisor of a BatchNormalization for each channel."""
    variance = read(norm.inputs[4]).astype(np.float64)
    deviation: npt.NDArray[np.float64] = np.sqrt(variance + float(attribute(norm, "epsilon", 1e-5)))
    return deviation


@affine("BatchNormalization")
def batch_norm_form(node: ir.Node, _x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """Input [N, C, ...], scale [C]: a product of its own per channel. Its rows are taken relative to the mean."""
    if not is_batch_norm(node):
        return None

    def rows(array: Array, positions: Positions | None) -> Array:
        mean = read(node.inputs[3]).astype(array.dtype)
        centered: Array = by_sample(np.moveaxis(array, 1, -1), positions) - mean
        return centered.T[:, :, None]

    return Form(
        1,
        1,
        1,
        w[0],
        rows,
        lambda scale: (scale / norm_deviation(node))[:, None, None],
        lambda matrix: matrix[:, 0, 0] * norm_deviation(node),
        bias=2,
    )
