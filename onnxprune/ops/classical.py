"""Preparation of columns in ai.onnx.ml: rows pass through, columns keep their places, for attributes speak of them."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.ops.base import Op, Typed, rule, shape_rule

_ML = "ai.onnx.ml"


@rule("FeatureVectorizer", "Imputer", "LinearRegressor", "Normalizer", "Scaler", domain=_ML)
def rows_pass(op: Op) -> None:
    """The first axis is that of all inputs and the output; the driver freezes the columns."""
    for x in op.x:
        op.same(op.y[0][0], x[0])


@shape_rule("Imputer", domain=_ML)
def as_given(_: ir.Node, inputs: list[Typed | None]) -> list[Typed | None]:
    """The input's own shape and type."""
    return inputs[:1]


@shape_rule("Normalizer", "Scaler", domain=_ML)
def as_given_in_floats(_: ir.Node, inputs: list[Typed | None]) -> list[Typed | None]:
    """The input's shape, float32."""
    return [None if x is None else (x[0], ir.DataType.FLOAT) for x in inputs[:1]]


@shape_rule("FeatureVectorizer", domain=_ML)
def side_by_side(_: ir.Node, inputs: list[Typed | None]) -> list[Typed | None]:
    """The columns of all inputs."""
    shapes = [x[0] for x in inputs if x is not None]
    return [((shapes[0][0], sum(shape[-1] for shape in shapes)), ir.DataType.FLOAT)]


@shape_rule("LinearRegressor", domain=_ML)
def as_many_as_targets(node: ir.Node, inputs: list[Typed | None]) -> list[Typed | None]:
    """Rows [N] and targets."""
    targets = node.attributes.get_int("targets", 1)
    return [None if x is None else ((x[0][0], targets), ir.DataType.FLOAT) for x in inputs[:1]]
