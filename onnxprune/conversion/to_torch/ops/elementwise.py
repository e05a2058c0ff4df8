"""Arithmetic, comparisons, logic and activations."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import onnx_ir as ir

from onnxprune.conversion.to_torch.base import DTYPES, Call, python_number, written

_UNARY = {
    "Abs": "torch.abs({})",
    "Acos": "torch.acos({})",
    "Asin": "torch.asin({})",
    "Atan": "torch.atan({})",
    "Ceil": "torch.ceil({})",
    "Cos": "torch.cos({})",
    "Cosh": "torch.cosh({})",
    "Erf": "torch.erf({})",
    "Exp": "torch.exp({})",
    "Floor": "torch.floor({})",
    "HardSwish": "F.hardswish({})",
    "IsInf": "torch.isinf({})",
    "IsNaN": "torch.isnan({})",
    "Log": "torch.log({})",
    "Mish": "F.mish({})",
    "Neg": "-{}",
    "Not": "~{}",
    "Reciprocal": "1 / {}",
    "Relu": "torch.relu({})",
    "Round": "torch.round({})",
    "Sigmoid": "torch.sigmoid({})",
    "Sign": "torch.sign({})",
    "Sin": "torch.sin({})",
    "Sinh": "torch.sinh({})",
    "Softplus": "F.softplus({})",
    "Softsign": "F.softsign({})",
    "Sqrt": "torch.sqrt({})",
    "Tan": "torch.tan({})",
    "Tanh": "torch.tanh({})",
}
_BINARY = {
    "Add": "{} + {}",
    "And": "{} & {}",
    "BitwiseAnd": "{} & {}",
    "BitwiseOr": "{} | {}",
    "Equal": "{} == {}",
    "Greater": "{} > {}",
    "GreaterOrEqual": "{} >= {}",
    "Less": "{} < {}",
    "LessOrEqual": "{} <= {}",
    "Mul": "{} * {}",
    "Or": "{} | {}",
    "Pow": "torch.pow({}, {})",
    "Sub": "{} - {}",
    "Xor": "{} ^ {}",
}


def _register() -> None:
    for name, text in _UNARY.items():
        written(name)(_unary(text))
    for name, text in _BINARY.items():
        written(name)(_binary(text))


def _unary(text: str) -> Callable[[Call], str]:
    return lambda op: text.format(op.tensor(0))


def _binary(text: str) -> Callable[[Call], str]:
    return lambda op: text.format(*_pair(op))


def _pair(op: Call) -> tuple[str, str]:
    """Both operands, one of which may be a number."""
    if op.version < 7 and op.attr("axis") is not None:
        raise op.refuse("it broadcasts as opset 6 did")
    b = op.operand(1, 0)
    a = op.operand(0, 1) if b.isidentifier() or b.startswith("self.") else op.tensor(0)
    return a, b


_register()


@written("Div")
def division(op: Call) -> str:
    """Of floats; of whole numbers towards zero."""
    a, b = _pair(op)
    return f"{a} / {b}" if op.is_float() else f'torch.div({a}, {b}, rounding_mode="trunc")'


@written("Mod")
def remainder(op: Call) -> str:
    """With the sign of the dividend (fmod) or of the divisor."""
    a, b = _pair(op)
    return f"torch.fmod({a}, {b})" if op.attr("fmod", 0) else f"{a} % {b}"


@written("Max", "Min", "Sum", "Mean")
def variadic(op: Call) -> str:
    """Of any number of tensors."""
    count = len(op.node.inputs)
    if op.node.op_type in ("Sum", "Mean"):
        total = " + ".join(op.tensor(slot) for slot in range(count))
        return total if op.node.op_type == "Sum" else f"({total}) / {count}"
    name = "torch.maximum" if op.node.op_type == "Max" else "torch.minimum"
    return reduce(lambda a, b: f"{name}({a}, {b})", (op.tensor(slot) for slot in range(count)))


@written("Where")
def where(op: Call) -> str:
    """One or the other, entry by entry; one of them may be a number."""
    b = op.operand(2, 0, 1)
    a = op.operand(1, 0, 2) if b.isidentifier() or b.startswith("self.") else op.tensor(1)
    return f"torch.where({op.tensor(0)}, {a}, {b})"


@written("Clip")
def clip(op: Call) -> str:
    """Limited to a range, which was an attribute before opset 11."""
    limits = []
    for slot, name in ((1, "min"), (2, "max")):
        array, stated = op.constant(slot), op.attr(name)
        if array is not None:
            limits.append(f"{name}={python_number(array.reshape(-1)[0])}")
        elif op.has(slot):
            limits.append(f"{name}={op.tensor(slot)}")
        elif stated is not None:
            limits.append(f"{name}={stated!r}")
    return f"{op.tensor(0)}.clamp({', '.join(limits)})" if limits else op.tensor(0)


@written("Identity", "Dropout")
def identity(op: Call) -> str:
    """The input; nothing is dropped in evaluation."""
    if op.wants(1):
        raise op.refuse("it gives out a mask")
    return op.tensor(0)


@written("Cast")
def cast(op: Call) -> str:
    """In another type."""
    dtype = DTYPES.get(ir.DataType(op.attr("to")))
    if dtype is None:
        raise op.refuse(f"torch does not know the type {ir.DataType(op.attr('to')).name}")
    return f"{op.tensor(0)}.to({dtype})"


@written("CastLike")
def cast_like(op: Call) -> str:
    """In the type of another tensor."""
    return f"{op.tensor(0)}.to({op.tensor(1)}.dtype)"


@written("LeakyRelu")
def leaky_relu(op: Call) -> str:
    """Negative entries times a slope."""
    return f"F.leaky_relu({op.tensor(0)}, {op.attr('alpha', 0.01):.7g})"


@written("Elu", "Celu")
def elu(op: Call) -> str:
    """Exponential below zero."""
    return f"F.{op.node.op_type.lower()}({op.tensor(0)}, {op.attr('alpha', 1.0):.7g})"


@written("Selu")
def selu(op: Call) -> str:
    """Self-normalizing; torch knows the usual constants only."""
    alpha, gamma = op.attr("alpha", 1.6732632), op.attr("gamma", 1.0507009)
    if abs(alpha - 1.6732632) > 1e-6 or abs(gamma - 1.0507009) > 1e-6:
        raise op.refuse("it has other constants than that of torch")
    return f"F.selu({op.tensor(0)})"


@written("PRelu")
def prelu(op: Call) -> str:
    """Negative entries times a slope that broadcasts."""
    if op.version < 7:
        raise op.refuse("it broadcasts as opset 6 did")
    x, slope = op.tensor(0), op.tensor(1)
    return f"torch.where({x} < 0, {x} * {slope}, {x})"


@written("HardSigmoid")
def hard_sigmoid(op: Call) -> str:
    """A line, limited to [0, 1]."""
    alpha, beta = op.attr("alpha", 0.2), op.attr("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-4 and beta == 0.5:
        return f"F.hardsigmoid({op.tensor(0)})"
    return f"({alpha:.7g} * {op.tensor(0)} + {beta:.7g}).clamp(0, 1)"


@written("Gelu")
def gelu(op: Call) -> str:
    """Exact, or by tanh."""
    mode = op.attr("approximate", "none")
    return f"F.gelu({op.tensor(0)}{'' if mode == 'none' else ', approximate=' + chr(34) + 'tanh' + chr(34)})"


@written("Softmax", "LogSoftmax")
def softmax(op: Call) -> str:
    """Along an axis; before opset 13 along all from it on."""
    rank = op.known_rank(0)
    axis = op.attr("axis", -1 if op.version >= 13 else 1)
    name = "torch.softmax" if op.node.op_type == "Softmax" else "torch.log_softmax"
    x = op.tensor(0)
    if op.version >= 13 or axis % rank == rank - 1:
        return f"{name}({x}, {axis})"
    return f"{name}({x}.flatten({axis % rank}), -1).reshape({x}.shape)"
