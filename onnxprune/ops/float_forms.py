"""Operators on integers as those of floats: per operator, the nodes that compute the same without rounding.

    @float_form("QLinearMatMul")
    def qlinear_matmul(form):
        return [form.rounded(form.node_of("MatMul", [form.real(0), form.real(3)]), 6)]

A form gives a value for each output of the node, None for one that nothing needs then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.ops.base import Array, Key, attribute, keys
from onnxprune.ops.dequantize import MICROSOFT, dequantized
from onnxprune.support.registry import Registry


@dataclass
class FloatForm:
    """The form in floats of a node on integers.

    Attributes:
        node: the node.
        nodes: those that are made, in order.
        constants: the weights that are made.
    """

    node: ir.Node
    nodes: list[ir.Node] = field(default_factory=list)
    constants: list[ir.Value] = field(default_factory=list)

    def given(self, slot: int) -> ir.Value | None:
        """The value that the node reads there."""
        return self.node.inputs[slot] if slot < len(self.node.inputs) else None

    def array(self, slot: int) -> Array:
        """A constant that the node reads. Raises ValueError where it is none."""
        value = self.given(slot)
        if value is None or value.const_value is None:
            raise ValueError(f"input {slot} of {self.node.op_type} is not a constant")
        return value.const_value.numpy()

    def constant(self, array: Array) -> ir.Value:
        """A float32 weight."""
        tensor = ir.Tensor(np.ascontiguousarray(array, np.float32))
        made = ir.Value(shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)
        self.constants.append(made)
        return made

    def node_of(
        self, operator: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any] | None = None
    ) -> ir.Value:
        """The output of a new node; with the attributes of the old one where none are said."""
        kept = list(self.node.attributes.values()) if attributes is None else []
        made = ir.node(operator, inputs, attributes or {})
        for each in kept:
            made.attributes[each.name] = each
        self.nodes.append(made)
        return made.outputs[0]

    def weight(self, slot: int) -> ir.Value:
        """The numbers of the integers at an input, as a weight. Raises ValueError where that is not known."""
        array = dequantized(self.node, slot, self.array(slot))
        if array is None:
            raise ValueError(f"what input {slot} of {self.node.op_type} represents is not known")
        return self.constant(array)

    def real(self, slot: int, scale: int | None = None, zero: int | None = None) -> ir.Value:
        """The numbers of the integers at an input; scale and zero point come next, where nothing else is said."""
        value = self.given(slot)
        if value is not None and value.const_value is not None:
            return self._constant_real(slot)
        inputs = [
            value,
            self.given(slot + 1 if scale is None else scale),
            self.given(slot + 2 if zero is None else zero),
        ]
        return self.node_of("DequantizeLinear", inputs, {})

    def _constant_real(self, slot: int) -> ir.Value:
        """A weight, or a constant operand with one scale behind it."""
        array = self.array(slot)
        known = dequantized(self.node, slot, array)
        if known is None:
            known = (array.astype(np.float32) - self.array(slot + 2).astype(np.float32)) * self.array(slot + 1)
        return self.constant(known)

    def rounded(self, value: ir.Value, slot: int) -> ir.Value:
        """A result as integers again, with the scale at an input and the zero point at the next."""
        return self.node_of("QuantizeLinear", [value, self.given(slot), self.given(slot + 1)], {})

    def shifted(self, value: ir.Value, slot: int) -> ir.Value:
        """A product plus the bias at an input, if there is one."""
        bias = self.given(slot)
        return value if bias is None else self.node_of("Add", [value, bias], {})


MakeFloats = Callable[[FloatForm], "list[ir.Value | None]"]
FLOAT_FORMS: Registry[Key, MakeFloats] = Registry("float form", "onnxprune.ops", "onnxprune.ops")


def float_form(*names: str, domain: str = "") -> Callable[[MakeFloats], MakeFloats]:
    """Decorator: this is what the operators `names` are in floats."""
    return FLOAT_FORMS.register(*keys(names, domain))


@float_form("QLinearConv")
def qlinear_conv_floats(form: FloatForm) -> list[ir.Value | None]:
    """The bias is stored in units of scale of x times scale of w."""
    inputs = [form.real(0), form.weight(3)]
    if form.given(8) is not None:
        inputs.append(form.constant(form.array(8) * form.array(1).reshape(-1) * form.array(4).reshape(-1)))
    return [form.rounded(form.node_of("Conv", inputs), 6)]


@float_form("QLinearMatMul")
def qlinear_matmul_floats(form: FloatForm) -> list[ir.Value | None]:
    """Both operands may be activations."""
    return [form.rounded(form.node_of("MatMul", [form.real(0), form.real(3)]), 6)]


@float_form("QGemm", domain=MICROSOFT)
def qgemm_floats(form: FloatForm) -> list[ir.Value | None]:
    """Without an output scale the result is in floats."""
    inputs = [form.real(0), form.weight(3)]
    if form.given(6) is not None:
        unit = form.array(1).reshape(-1) * form.array(4).reshape(-1) * attribute(form.node, "alpha", 1.0)
        inputs.append(form.constant(form.array(6) * unit))
    made = form.node_of("Gemm", inputs)
    return [made if form.given(7) is None else form.rounded(made, 7)]


@float_form("QLinearAdd", domain=MICROSOFT)
def qlinear_add_floats(form: FloatForm) -> list[ir.Value | None]:
    """Each operand before its scale."""
    return [form.rounded(form.node_of("Add", [form.real(0), form.real(3)]), 6)]


@float_form("QLinearMul", domain=MICROSOFT)
def qlinear_mul_floats(form: FloatForm) -> list[ir.Value | None]:
    """Each operand before its scale."""
    return [form.rounded(form.node_of("Mul", [form.real(0), form.real(3)]), 6)]


@float_form("QLinearSigmoid", "QLinearLeakyRelu", "QLinearGlobalAveragePool", "QLinearAveragePool", domain=MICROSOFT)
def qlinear_unary_floats(form: FloatForm) -> list[ir.Value | None]:
    """One operand."""
    if attribute(form.node, "channels_last", 0):
        raise ValueError(f"{form.node.op_type} with channels last")
    attributes = {key: each.value for key, each in form.node.attributes.items() if key != "channels_last"}
    made = form.node_of(form.node.op_type.removeprefix("QLinear"), [form.real(0)], attributes)
    return [form.rounded(made, 3)]


@float_form("QLinearConcat", domain=MICROSOFT)
def qlinear_concat_floats(form: FloatForm) -> list[ir.Value | None]:
    """Scale and zero point of the result come first."""
    made = form.node_of("Concat", [form.real(slot) for slot in range(2, len(form.node.inputs), 3)])
    return [form.rounded(made, 0)]


@float_form("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float_floats(form: FloatForm) -> list[ir.Value | None]:
    """Scales behind both operands, then zero points and a bias."""
    return [form.shifted(form.node_of("MatMul", [form.real(0, 2, 4), form.weight(1)], {}), 6)]


@float_form("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul_floats(form: FloatForm) -> list[ir.Value | None]:
    """The first operand is in floats already."""
    return [form.shifted(form.node_of("MatMul", [form.given(0), form.weight(1)], {}), 4)]


@float_form("DynamicQuantizeLinear")
def dynamic_quantize_linear_floats(form: FloatForm) -> list[ir.Value | None]:
    """The value itself, in units of 1, for products of integers that become those of floats and need no zero point."""
    readers = {node.op_type for node, _ in form.node.outputs[0].uses()}
    if not readers <= {"MatMulInteger", "ConvInteger"}:
        raise ValueError(f"integers of DynamicQuantizeLinear that {', '.join(sorted(readers))} reads")
    return [form.given(0), form.constant(np.array(1.0)), None]


@float_form("MatMulInteger")
def matmul_integer_floats(form: FloatForm) -> list[ir.Value | None]:
    """Scales follow behind; the zero point of the first operand belongs to what DynamicQuantizeLinear made of it."""
    return [form.node_of("MatMul", [_floats(form), form.weight(1)], {})]


@float_form("ConvInteger")
def conv_integer_floats(form: FloatForm) -> list[ir.Value | None]:
    """As MatMulInteger."""
    return [form.node_of("Conv", [_floats(form), form.weight(1)])]


def _floats(form: FloatForm) -> ir.Value:
    """The first operand, which is what DynamicQuantizeLinear read by now. Raises ValueError where it is not."""
    value = form.given(0)
    node = None if value is None else value.producer()
    integers = value is None or value.dtype in (ir.DataType.UINT8, ir.DataType.INT8)
    if value is None or integers or (node is not None and node.op_type.endswith("QuantizeLinear")):
        raise ValueError(f"the first operand of {form.node.op_type} is not of DynamicQuantizeLinear")
    return value


@float_form("MatMulNBits", domain=MICROSOFT)
def matmul_n_bits_floats(form: FloatForm) -> list[ir.Value | None]:
    """Weights [outputs, blocks, entries] of which the last block may be filled up."""
    array = dequantized(form.node, 1, form.array(1))
    if array is None:
        raise ValueError("what the weights of MatMulNBits represent is not known")
    features, outputs = attribute(form.node, "K", 0), attribute(form.node, "N", 0)
    matrix = array.reshape(outputs, -1)[:, :features].T
    return [form.shifted(form.node_of("MatMul", [form.given(0), form.constant(matrix)], {}), 5)]


@float_form("DynamicQuantizeLSTM", domain=MICROSOFT)
def dynamic_quantize_lstm_floats(form: FloatForm) -> list[ir.Value | None]:
    """Weights with their last two axes the other way round."""
    weights = []
    for slot in (1, 2):
        array = dequantized(form.node, slot, form.array(slot))
        if array is None:
            raise ValueError("what the weights of DynamicQuantizeLSTM represent is not known")
        weights.append(form.constant(array.transpose(0, 2, 1)))
    made = ir.node("LSTM", [form.given(0), *weights, *form.node.inputs[3:8]], num_outputs=len(form.node.outputs))
    for each in form.node.attributes.values():
        made.attributes[each.name] = each
    form.nodes.append(made)
    return list(made.outputs)
