"""Products of integers whose input is quantized at run time, as ONNX Runtime's dynamic quantization writes them.

    x ── DynamicQuantizeLinear ── MatMulInteger, ConvInteger ── Cast ── Mul ── y
                    └── scale ── Mul with the scale of the weight ────┘

Seen from outside that is a product of x and a weight, which a few nodes share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.ops.base import Array, key_of
from onnxprune.ops.dequantize import constant_input, dequantized, layout_of
from onnxprune.ops.matmul_view import FORMS, Form, affine
from onnxprune.ops.requantize import rescaled
from onnxprune.ops.weight_paths import Beside, Link


@dataclass(frozen=True)
class DynamicProduct:
    """The real product around a node of integers.

    Attributes:
        x: the real input.
        end: the node that makes the real result.
        link: how the real weight is stored.
    """

    x: ir.Value
    end: ir.Node
    link: Link


def dynamic_product(node: ir.Node) -> DynamicProduct | None:
    """The surroundings of a node; None where it is not a product of integers, or not in that form."""
    if key_of(node) not in (("", "MatMulInteger"), ("", "ConvInteger")):
        return None
    given = node.inputs[0]
    source = None if given is None else given.producer()
    cast = _reader(node.outputs[0], "Cast")
    end = None if cast is None else _reader(cast.outputs[0], "Mul")
    if source is None or key_of(source) != ("", "DynamicQuantizeLinear") or end is None or source.inputs[0] is None:
        return None
    other = next((value for value in end.inputs if value is not None and value is not cast.outputs[0]), None)  # type: ignore[union-attr]
    scales = None if other is None else other.producer()
    if scales is None or key_of(scales) != ("", "Mul") or source.outputs[1] not in scales.inputs:
        return None
    slot = 1 - scales.inputs.index(source.outputs[1])
    scale = constant_input(scales, slot)
    along = node.op_type == "MatMulInteger" and scale is not None and scale.ndim == 1
    if scale is None or not (scale.size == 1 or along):
        return None
    return DynamicProduct(source.inputs[0], end, _link(node, scales, slot))


def _link(node: ir.Node, scales: ir.Node, slot: int) -> Link:
    def scale() -> Array:
        found = constant_input(scales, slot)
        assert found is not None
        return found

    def ahead(array: Array) -> Array:
        found = dequantized(node, 1, array)
        if found is None:
            raise ValueError("not quantized as its operator says")
        return np.asarray(found * scale())

    def back(array: Array, old: Array) -> tuple[Array, Beside]:
        layout = layout_of(node)[1]
        stored, new = rescaled(array, old, scale(), constant_input(node, layout.zero), layout)
        return stored, [(scales, slot, new)]

    return Link(node, 1, ahead, back, scale=(scales, slot))


def _reader(value: ir.Value, operator: str) -> ir.Node | None:
    uses = list(value.uses())
    alone = len(uses) == 1 and not value.is_graph_output() and key_of(uses[0][0]) == ("", operator)
    return uses[0][0] if alone else None


@affine("MatMulInteger")
def matmul_integer_form(node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """MatMul of the real input by a matrix."""
    return FORMS["", "MatMul"](node, x, w) if len(w) == 2 else None


@affine("ConvInteger")
def conv_integer_form(node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """Conv of the real input; a bias is added behind it."""
    form = FORMS["", "Conv"](node, x, w)
    return form and replace(form, bias=None, behind=len(w) - 2)
