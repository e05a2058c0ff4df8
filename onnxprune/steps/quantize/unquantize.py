"""A quantized model as one of floats: the inverse of quantization, but for what was rounded."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir

from onnxprune.model.graph import remove_dead
from onnxprune.ops.base import key_of
from onnxprune.ops.dequantize import dequantized, is_pair, is_real, is_rounding, starts_at_zero
from onnxprune.ops.float_forms import FLOAT_FORMS, FloatForm
from onnxprune.ops.integer_kernels import is_merged_into_grid, keeps_grid
from onnxprune.ops.traits import moves, rectifies, squashes


def put_floats(model: ir.Model) -> tuple[bool, list[str]]:
    """Put floats in place of integers and their scales, in place; were there any, and what could not be changed?

    Before:  x ── QuantizeLinear ── DequantizeLinear ── Conv(DequantizeLinear(w)) ── y
    After:   x ── Conv(scale * (w - zero)) ── y

    Operators that take integers themselves (QLinearConv, MatMulNBits, DynamicQuantizeLSTM) become those of floats.
    Exact but for the rounding of activations, which goes: weights are what the integers represent.
    """
    done, left = 0, Counter[str]()
    for node in list(model.graph):
        if key_of(node) in FLOAT_FORMS:
            form = FloatForm(node)
            try:
                results = FLOAT_FORMS[key_of(node)](form)
            except ValueError:
                left[node.op_type] += 1
                continue
            _put(model, form, results)
            done += 1
    for node in list(model.graph):
        _round_later(model, node)
    for node in list(model.graph):
        done += _fold(model, node) or _bypass(model, node)
    if done:
        remove_dead(model)
    notes = [f"left as integers: {', '.join(f'{name} {count}' for name, count in left.items())}"] if left else []
    return done > 0, notes


def _put(model: ir.Model, form: FloatForm, results: list[ir.Value | None]) -> None:
    """The new nodes in place of the old one, under the names of its outputs."""
    old_name = form.node.name or form.node.outputs[0].name or form.node.op_type
    for number, value in enumerate(form.constants):
        value.name = _free_name(model, f"{old_name}/weight{number or ''}")
        model.graph.register_initializer(value)
    for number, node in enumerate(form.nodes):
        node.name = f"{old_name}/{number}"
        for output in node.outputs:
            output.name = None
    model.graph.insert_before(form.node, form.nodes)
    made = {output for node in form.nodes for output in node.outputs}
    for old, new in zip(form.node.outputs, results, strict=True):
        if new is None or not old.name:
            continue
        if new in made:
            name = old.name
            sums = old.dtype == ir.DataType.INT32  # of products of integers
            new.type = ir.TensorType(ir.DataType.FLOAT) if sums else old.type
            new.shape = None if new.type is None else old.shape
            old.name = f"{name}/integers"
            new.name = name
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    for node in form.nodes:
        for number, output in enumerate(node.outputs):
            output.name = output.name or f"{node.name}/{number}"


def _round_later(model: ir.Model, node: ir.Node) -> None:
    """Have an operator that moves integers about move floats, and round them behind it."""
    down = node.inputs[0].producer() if keeps_grid(node) and node.inputs[0] is not None else None
    if down is None or not is_rounding(down) or node.outputs[0].is_graph_output():
        return
    old, moved = node.outputs[0], down.inputs[0]
    assert moved is not None
    later = ir.node(down.op_type, [old, *down.inputs[1:]], domain=down.domain, name=f"{node.name or old.name}/rounded")
    later.outputs[0].name, later.outputs[0].shape = _free_name(model, f"{old.name}/rounded"), old.shape
    later.outputs[0].type, old.type = old.type, moved.type
    old.replace_all_uses_with(later.outputs[0])
    later.replace_input_with(0, old)
    node.replace_input_with(0, moved)
    model.graph.insert_after(node, later)


def _fold(model: ir.Model, node: ir.Node) -> bool:
    """Weights behind a DequantizeLinear become what they represent."""
    integers = node.inputs[0] if is_real(node) else None
    if integers is None or integers.const_value is None:
        return False
    array = dequantized(node, 0, integers.const_value.numpy())
    if array is None:
        return False
    old = node.outputs[0]
    dtype = old.dtype or ir.DataType.FLOAT
    name = _free_name(model, f"{integers.name}/float")
    tensor = ir.Tensor(np.ascontiguousarray(array.astype(dtype.numpy())), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(dtype), const_value=tensor)
    model.graph.register_initializer(value)
    old.replace_all_uses_with(value)
    return True


def _bypass(model: ir.Model, node: ir.Node) -> bool:
    """What a QuantizeLinear and a DequantizeLinear give is what they read, before it was rounded.

    Quantizers drop a Relu in front of integers that begin at zero, which do the same: it is put back.
    """
    down = node.inputs[0].producer() if is_real(node) and node.inputs[0] is not None else None
    if down is None or not is_pair(down, node):
        return False
    source, old = down.inputs[0], node.outputs[0]
    assert source is not None
    if starts_at_zero(down) and not _is_rectified(source):
        relu = ir.node("Relu", [source], name=f"{down.name or old.name}/relu")
        model.graph.insert_before(down, relu)
        source = relu.outputs[0]
        source.name, source.shape, source.type = _free_name(model, f"{old.name}/rectified"), old.shape, old.type
    if not old.is_graph_output():
        old.replace_all_uses_with(source)
        return True
    if source.producer() is None or source.is_graph_output():
        return False  # an input that is an output, too, keeps the pair
    name = old.name
    old.name, source.name = f"{name}/rounded", name
    source.shape, source.type = old.shape, old.type
    ir.convenience.replace_all_uses_with(old, source, replace_graph_outputs=True)
    return True


def _is_rectified(value: ir.Value) -> bool:
    """Does a value come from a Relu or a Sigmoid, as it is or through what moves or averages it?"""
    node = value.producer()
    if node is None or not node.inputs or node.inputs[0] is None:
        return False
    if rectifies(node) or squashes(node) or is_merged_into_grid(node, node.inputs[0]):
        return True
    return (moves(node) or is_real(node) or keeps_grid(node)) and _is_rectified(node.inputs[0])


def _free_name(model: ir.Model, name: str) -> str:
    taken = {*model.graph.initializers, *(value.name for node in model.graph for value in node.outputs)}
    while name in taken:
        name += "'"
    return name
