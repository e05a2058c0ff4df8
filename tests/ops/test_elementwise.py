"""Element-wise operators against the rule oracle."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.dims import atoms
from tests.rule_oracle import Case, SampleDraw, analyze_without_interface, case, oracle, sample

_UNARY = ["Abs", "Acos", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "IsInf"]
_UNARY += ["IsNaN", "Neg", "Round", "Sign", "Sin", "Sinh", "Tan", "Tanh", "Relu", "LeakyRelu", "Elu", "Selu", "Celu"]
_UNARY += ["Gelu", "HardSigmoid", "HardSwish", "Mish", "Sigmoid", "Shrink", "Softplus", "Softsign"]
_UNARY += ["ThresholdedRelu", "Identity"]


@sample(*_UNARY, prunable="x[0] x[1] x[2] y[1]")
def unary(d: SampleDraw) -> Case:
    return case(x=d.unit(*d.sizes(3)))


@sample("Swish", prunable="x[0] x[1] y[1]", runtime="onnx")
def unary_by_reference(d: SampleDraw) -> Case:
    return case(x=d.unit(*d.sizes(2)))


@sample("Acosh", "Log", "Reciprocal", "Sqrt", prunable="x[0] x[1] y[1]")
def unary_on_positives(d: SampleDraw) -> Case:
    return case(x=d.positive(*d.sizes(2)))


@sample("Not", prunable="x[0] x[1] y[1]")
def unary_on_booleans(d: SampleDraw) -> Case:
    return case(x=d.bools(*d.sizes(2)))


@sample("BitwiseNot", prunable="x[0] x[1] y[1]")
def unary_on_integers(d: SampleDraw) -> Case:
    return case(x=d.integers(9, *d.sizes(2)))


_BROADCAST = "a[0] a[1] a[3] b[0] b[1] y[0] y[1] y[2] y[3]"


@sample("Add", "Sub", "Mul", "Div", "Pow", "Greater", "Less", prunable=_BROADCAST, fed="a b")
@sample("GreaterOrEqual", "LessOrEqual", prunable=_BROADCAST, fed="a b", since=16)
def both_broadcast(d: SampleDraw) -> Case:
    n, c, h, w = d.sizes(4)
    return case(a=d.positive(n, c, 1, w), b=d.positive(c, h, 1))


@sample("GreaterOrEqual", "LessOrEqual", prunable="a[0] a[1] b[0]", fed="a b", until=12)
def compared_without_shape_inference(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(a=d.normal(n, c), b=d.normal(c))


@sample("Add", "Sub", "Mul", "Div", "Pow", prunable="x[0] x[1] b[0] y[1]")
def with_constant(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.positive(n, c, h), b=d.positive(c, 1))


@sample("Add", "Mul", "Max", prunable="x[0] x[1] y[1]", fed="b x", since=8)
def with_scalar_first(d: SampleDraw) -> Case:
    return case(b=d.positive(), x=d.positive(*d.sizes(2)))


@sample("Mod", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal", prunable=_BROADCAST, fed="a b")
def integers_broadcast(d: SampleDraw) -> Case:
    n, c, h, w = d.sizes(4)
    return case(a=d.integers(4, n, c, 1, w, low=1), b=d.integers(4, c, h, 1, low=1))


@sample("Mod", prunable="a[0] a[1] y[1]", fed="a b")
def remainder_of_floats(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(a=d.normal(n, c), b=d.positive(c), fmod=1)


@sample("BitShift", prunable=_BROADCAST, fed="a b")
def shifted(d: SampleDraw) -> Case:
    n, c, h, w = d.sizes(4)
    a, b = d.integers(9, n, c, 1, w), d.integers(3, c, h, 1)
    return case(a=a.astype(np.uint8), b=b.astype(np.uint8), direction="LEFT")


@sample("And", "Or", "Xor", prunable=_BROADCAST, fed="a b")
def booleans_broadcast(d: SampleDraw) -> Case:
    n, c, h, w = d.sizes(4)
    return case(a=d.bools(n, c, 1, w), b=d.bools(c, h, 1))


@sample("Min", "Max", "Mean", "Sum", prunable=_BROADCAST, fed="a b c", since=8)
def three_broadcast(d: SampleDraw) -> Case:
    n, c, h, w = d.sizes(4)
    return case(a=d.normal(n, c, 1, w), b=d.normal(c, h, 1), c=d.normal(1, 1))


@sample("Min", "Max", "Mean", "Sum", prunable="a[0] a[1] y[1]", fed="a b", until=7)
def two_alike(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(a=d.normal(n, c), b=d.normal(n, c))


@sample("Where", prunable="c[0] a[1] a[0] b[0] y[2]", fed="c a b")
def chosen(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(c=d.bools(n, 1, h), a=d.normal(c, h), b=d.normal(n, c, 1))


@sample("PRelu", prunable="x[0] x[1] slope[0] y[1]")
def slope_per_channel(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.normal(n, c, h), slope=d.normal(c, 1))


@sample("PRelu", prunable="x[0] x[1] y[1]")
def one_slope(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), slope=d.normal(1))


@sample("Clip", prunable="x[0] x[1] y[1]", until=10)
def clipped_by_attributes(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)), min=-0.5, max=0.5)


@sample("Clip", prunable="x[0] x[1] y[1]", since=11)
def clipped_above(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)), low=None, high=np.array(0.5, np.float32))


@sample("Cast", prunable="x[0] x[1] y[1]")
def cast(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)), to=onnx.TensorProto.INT32)


@sample("CastLike", prunable="x[0] x[1] y[1]", fed="x like")
def cast_like(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.normal(n, c), like=d.integers(2, h))


@sample("Dropout", prunable="x[0] x[1] y[1] mask[0] mask[1]", outputs="y mask", since=12)
def dropout_with_mask(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)), ratio=np.array(0.3, np.float32))


@sample("Dropout", prunable="x[0] x[1] y[1]", outputs="y -")
def dropout_with_mask_left_out(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)))


@sample("Dropout", prunable="x[0] x[1] y[1]", until=11)
def dropout_with_attribute(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)), ratio=0.3)


@sample("Bernoulli", prunable="x[0] x[1] y[1]", until=21)
def certain_outcomes(d: SampleDraw) -> Case:
    return case(x=d.bools(*d.sizes(2)).astype(np.float32))


@sample("RandomNormalLike", prunable="x[0] x[1] y[1]", until=21)
def normal_without_spread(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)), mean=3.0, scale=1e-9)


@sample("RandomUniformLike", prunable="x[0] x[1] y[1]", until=21)
def uniform_without_spread(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(2)), low=2.0, high=2.00001)


@pytest.mark.parametrize("inputs", [{"a": (2, 3, 5), "b": (3,)}, {"a": (2, 3, 3), "b": (3,)}])
def test_the_broadcasting_of_old_opsets_is_refused(inputs: dict[str, tuple[int, ...]]) -> None:
    text = {name: f"float[{','.join(map(str, shape))}] {name}" for name, shape in inputs.items()}
    model = onnx.parser.parse_model(
        f"""<ir_version: 3, opset_import: ["" : 6]>
        old ({text["a"]}, {text["b"]}) => ({text["a"].replace(" a", " y")}) {{ y = Add<broadcast=1, axis=1>(a, b) }}"""
    )
    analysis = analyze_without_interface(ir.from_proto(model))
    assert all(atom.reason is not None for dims in analysis.dims.values() for dim in dims for atom in atoms(dim))


test_rule = oracle(__name__, max_examples=5)
