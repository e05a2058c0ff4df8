"""Element-wise and broadcasting operators: every axis passes through."""

from __future__ import annotations

from onnxprune.ops.base import Op, RefuseError, rule


def elementwise(*names: str) -> None:
    """Register operators whose outputs are the numpy-style broadcast of their inputs."""
    rule(*names)(broadcast)


def broadcast(op: Op) -> None:
    """Axes align from the right; an axis of size 1 is repeated and stays."""
    if "broadcast" in op.node.attributes:
        raise RefuseError("the broadcasting of opset 6 and older")
    for y in op.y:
        for i, x in enumerate(op.x):
            for offset in range(1, len(x) + 1):
                if x[-offset].size == y[-offset].size:
                    op.same(y[-offset], x[-offset])
                elif x[-offset].size == 1:
                    op.free(x[-offset], y[-offset])
                else:
                    raise RefuseError("it does not broadcast as numpy does")
            if op.node.op_type == "Add" and op.is_activation(0) and op.is_activation(1) and i == 0:
                op.tag("residual", *[dim for dim in x if dim.size > 1])


elementwise("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor")
elementwise("IsInf", "IsNaN", "Log", "Neg", "Not", "Reciprocal", "Round", "Sign", "Sin", "Sinh", "Sqrt", "Tan", "Tanh")
elementwise("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "HardSigmoid", "HardSwish", "Mish", "Sigmoid", "Swish")
elementwise("Shrink", "Softplus", "Softsign", "ThresholdedRelu", "Clip", "PRelu", "Identity", "Cast", "BitwiseNot")
elementwise("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Mean", "Sum", "Where", "BitShift")
elementwise("And", "Or", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
elementwise("BitwiseAnd", "BitwiseOr", "BitwiseXor", "Bernoulli", "RandomNormalLike", "RandomUniformLike")


@rule("Dropout")
def dropout(op: Op) -> None:
    """The data, and a mask of the same shape."""
    for y in filter(None, op.y):
        op.same_all(y, op.x[0])


@rule("CastLike")
def cast_like(op: Op) -> None:
    """The second input lends its type only."""
    op.same_all(op.y[0], op.x[0])
    op.free(*op.x[1])
