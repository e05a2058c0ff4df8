"""Write matrices and biases back into the layers that they came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import Layer, bias_of, constant_of, norm_deviation, norm_scale, read
from onnxprune.dims import Atom, concat, handle
from onnxprune.ops.base import Dims


def set_matrix(model: ir.Model, layer: Layer, matrix: npt.NDArray[Any], analysis: Analysis | None = None) -> None:
    """Replace the weight by one with this matrix [groups, features, outputs]; its type stays.

    An analysis of the model, if given, takes in what is new.
    """
    value = model.graph.initializers[layer.weight]
    assert value.const_value is not None
    if layer.norm is not None:
        scale = norm_scale(layer.norm)
        if not scale.all():  # a channel that was switched off has to let something through
            scale = np.where(scale == 0, 1.0, scale)
            _note(analysis, layer, _set_input(model, layer.norm, 1, scale * norm_deviation(layer.norm)))
        matrix = matrix / scale.reshape(len(matrix), 1, -1)
    _assign(value, layer.form.weight(matrix), value.const_value.dtype)


def set_bias(model: ir.Model, layer: Layer, bias: npt.NDArray[Any], analysis: Analysis | None = None) -> None:
    """Give the layer this bias [groups * outputs]: in its node, in the Add or norm behind it, or in a new Add.

    After `set_matrix`, where both change. An analysis of the model, if given, takes in what is new.
    """
    bias = bias.reshape(-1)
    if layer.norm is not None:
        shift = read(layer.norm.inputs[2]).astype(np.float64)
        _note(analysis, layer, _set_input(model, layer.norm, 2, shift + bias - bias_of(layer, len(bias))))
        return
    node, slot = layer.add or (layer.node, layer.form.bias)
    if slot is None:
        node, slot = _insert_add(model, layer.node), 1
        if analysis is not None:
            analysis.note_like(layer.node.outputs[0].name or "", layer.y)
    if layer.form.bias_parts == 2:
        ours = bias.reshape(len(read(layer.stored)), -1)  # per direction; what the state adds comes behind
        held = len(node.inputs) > slot and node.inputs[slot] is not None
        bias = np.hstack([ours, np.split(read(node.inputs[slot]), 2, axis=1)[1] if held else np.zeros_like(ours)])
    elif layer.form.stack is not None:
        bias = bias.reshape(layer.form.groups, 1, -1)
    else:
        node.attributes.pop(layer.form.bias_factor, None)
    _note(analysis, layer, _set_input(model, node, slot, bias, like=layer.stored))


def _note(analysis: Analysis | None, layer: Layer, value: ir.Value) -> None:
    """Let the analysis know of a bias, or of a scale, that was put in."""
    if analysis is not None and value.name not in analysis.dims:
        analysis.note(value, _dims_of_bias(layer, analysis))


def _dims_of_bias(layer: Layer, analysis: Analysis) -> Dims:
    """The dimensions of a bias as `set_bias` stores it, and of the scale of a norm."""
    form, dims = layer.form, analysis.dims[layer.y]
    if form.hidden is not None:
        weight = layer.node.inputs[1]
        assert weight is not None
        of_weight = analysis.dims[weight.name or ""]
        return [of_weight[0], handle(concat(*[of_weight[form.hidden]] * form.bias_parts))]
    if form.stack is not None:
        return [dims[form.stack], Atom(1), dims[form.out_axis]]
    return [dims[form.out_axis]]


def _set_input(
    model: ir.Model, node: ir.Node, slot: int, array: npt.NDArray[Any], like: ir.Value | None = None
) -> ir.Value:
    """Give a node a constant of its own in place of what it read; of the type of that, or of another value.

    It takes over the name, too, where nothing else reads that.
    """
    old = node.inputs[slot] if slot < len(node.inputs) else None
    tensor = constant_of(like or old)
    assert tensor is not None
    dtype = tensor.dtype
    value = ir.Value(name=_free_name(model, f"{node.name or node.op_type}/recovered"))
    if slot >= len(node.inputs):
        node.resize_inputs(slot + 1)
    node.replace_input_with(slot, value)
    if old is not None and not old.uses() and old.is_initializer() and not old.is_graph_input():
        del model.graph.initializers[old.name or ""]
        value.name, old.name = old.name, value.name
    _assign(value, array, dtype)
    model.graph.register_initializer(value)
    return value


def _assign(value: ir.Value, array: npt.NDArray[Any], dtype: ir.DataType) -> None:
    stored = np.ascontiguousarray(array.astype(dtype.numpy()))
    value.const_value = ir.Tensor(stored, dtype=dtype, name=value.name)
    value.shape, value.dtype = ir.Shape(stored.shape), dtype


def _insert_add(model: ir.Model, node: ir.Node) -> ir.Node:
    """An Add behind a node, with its second input still to be given; it takes over the name of the node's output."""
    old = node.outputs[0]
    add = ir.node("Add", [old, None], name=_free_name(model, f"{node.name or node.op_type}/shifted"))
    new = add.outputs[0]
    new.shape, new.type = old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    new.name, old.name = old.name, _free_name(model, f"{old.name}/unshifted")
    add.replace_input_with(0, old)
    model.graph.insert_after(node, add)
    return add


def _free_name(model: ir.Model, name: str) -> str:
    taken = {*model.graph.initializers, *(node.name for node in model.graph)}
    taken.update(value.name for node in model.graph for value in node.outputs)
    while name in taken:
        name += "'"
    return name
