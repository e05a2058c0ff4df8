"""Teaches onnxprune the operator ScaledRelu of the domain com.example: relu(x) * scale, one factor per channel.

x [N, C, ...], scale [C] -> y [N, C, ...]
"""

from __future__ import annotations

from math import prod

from onnx_ir import Node

from onnxprune.ops.base import CostView, Op, Typed, cost, rule, shape_rule


@rule("ScaledRelu", domain="com.example")
def scaled_relu(op: Op) -> None:
    """Every axis passes through, and there is one factor per channel."""
    x, scale, y = op.x[0], op.x[1], op.y[0]
    op.same_all(y, x)
    op.same(scale[0], x[1])


@shape_rule("ScaledRelu", domain="com.example")
def scaled_relu_shape(_: Node, inputs: list[Typed | None]) -> list[Typed | None]:
    """The output is like the first input."""
    return inputs[:1]


@cost("ScaledRelu", domain="com.example")
def scaled_relu_macs(view: CostView) -> int:
    """One multiplication per entry."""
    return prod(view.y[0])
