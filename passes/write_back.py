"""Write matrices and biases back into the layers that they came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import (
    Layer,
    bias_of,
    bias_scale,
    constant_of,
    held_bias,
    norm_deviation,
    norm_scale,
    read,
)
from onnxprune.dims import Atom, concat, handle
from onnxprune.ops.base import Dims
from onnxprune.ops.dequantize import scale_slot
from onnxprune.ops.requantize import requantized_vector
from onnxprune.ops.weight_paths import constant, weight_path


def set_matrix(model: ir.Model, layer: Layer, matrix: npt.NDArray[Any], analysis: Analysis | None = None) -> None:
    """Replace the weight by one with this matrix [groups, features, outputs]; its type stays.

    An analysis of the model, if given, takes in what is new.
    """
    if layer.norm is not None:
        scale = norm_scale(layer.norm)
        if not scale.all():  # a channel that was switched off has to let something through
            scale = np.where(scale == 0, 1.0, scale)
            _note(analysis, layer, _set_input(model, layer.norm, 1, scale * norm_deviation(layer.norm)))
        matrix = matrix / scale.reshape(len(matrix), 1, -1)
    bias = bias_of(layer, matrix.shape[0] * matrix.shape[2]) if layer.path.quantized else None
    array, changes = layer.path.back(layer.form.weight(matrix))
    for node, slot, other in changes:
        _replace(model, node, slot, other, analysis)
    dtype = layer.stored.dtype
    assert dtype is not None
    assign(layer.stored, array, dtype)
    if bias is not None and layer.norm is None and bias_scale(layer) is not None and held_bias(layer) is not None:
        set_bias(model, layer, bias, analysis)  # its unit has changed


def set_bias(model: ir.Model, layer: Layer, bias: npt.NDArray[Any], analysis: Analysis | None = None) -> None:
    """Give the layer this bias [groups * outputs]: in its node, in the Add or norm behind it, or in a new Add.

    After `set_matrix`, where both change. An analysis of the model, if given, takes in what is new.
    """
    bias = bias.reshape(-1)
    if layer.norm is not None:
        shift = read(layer.norm.inputs[2]).astype(np.float64)
        _note(analysis, layer, _set_input(model, layer.norm, 2, shift + bias - bias_of(layer, len(bias))))
        return
    unit = bias_scale(layer) if layer.add is None else None
    if unit is not None:
        _set_integers(model, layer, bias, unit, analysis)
        return
    if layer.add is not None and _set_quantized(model, *layer.add, bias, analysis):
        return
    node, slot = layer.add or (layer.node, layer.form.bias)
    if slot is None:
        node, slot = _insert_add(model, layer.end), 1
        if analysis is not None:
            analysis.note_like(layer.end.outputs[0].name or "", layer.y)
    if layer.form.bias_parts == 2:
        ours = bias.reshape(len(layer.path.read()), -1)  # per direction; what the state adds comes behind
        held = len(node.inputs) > slot and node.inputs[slot] is not None
        bias = np.hstack([ours, np.split(constant(node.inputs[slot]), 2, axis=1)[1] if held else np.zeros_like(ours)])
    elif layer.form.stack is not None:
        bias = bias.reshape(layer.form.groups, 1, -1)
    else:
        node.attributes.pop(layer.form.bias_factor, None)
        bias = bias.reshape(-1, *[1] * layer.form.behind)
    _note(analysis, layer, _set_input(model, node, slot, bias, _seen_type(layer)))


def set_recurrence(
    model: ir.Model,
    layer: Layer,
    slot: int,
    matrix: npt.NDArray[Any],
    bias: npt.NDArray[Any],
    analysis: Analysis | None = None,
) -> None:
    """Give a recurrent cell these weights [directions, units, gates * units] for its states, and the bias with them.

    `slot` is the input with the weights, an initializer that nothing else reads.
    """
    weight, node, at = layer.node.inputs[slot], layer.node, layer.form.bias
    assert weight is not None
    assert weight.dtype is not None
    assert at is not None
    assign(weight, matrix.transpose(0, 2, 1), weight.dtype)
    held = node.inputs[at] if at < len(node.inputs) else None
    ours = np.zeros_like(bias) if held is None else np.split(constant(held), 2, axis=1)[0]
    _note(analysis, layer, _set_input(model, node, at, np.hstack([ours, bias]), weight.dtype))


def _seen_type(layer: Layer) -> ir.DataType:
    """The type of the real numbers that the node of a layer computes with."""
    dtype = layer.operand.dtype if layer.path.links else layer.stored.dtype
    if dtype is None or not dtype.is_floating_point():
        return ir.DataType.from_numpy(layer.path.read().dtype)
    return dtype


def _set_integers(
    model: ir.Model, layer: Layer, bias: npt.NDArray[Any], unit: npt.NDArray[Any], analysis: Analysis | None
) -> None:
    """Store a bias as integers of 32 bits that count the unit of the layer's products."""
    slot = layer.form.bias
    assert slot is not None
    ends = np.iinfo(np.int32)
    stored = np.clip(np.rint(bias / unit.astype(np.float64)), ends.min, ends.max).astype(np.int32)
    node = layer.node
    held = node.inputs[slot] if slot < len(node.inputs) else None
    if layer.path.quantized is None or layer.path.quantized.node is node:  # the node reads the integers themselves
        _note(analysis, layer, _set_input(model, node, slot, stored, ir.DataType.INT32))
        return
    real = None if held is None else held.producer()
    if real is None or scale_slot(real, 0) is None or len(list(held.uses())) > 1:  # type: ignore[union-attr]
        real = ir.node("DequantizeLinear", [None, None], {"axis": 0}, name=_free_name(model, f"{node.name}/bias"))
        real.outputs[0].name = _free_name(model, f"{node.name}/bias")
        real.outputs[0].dtype, real.outputs[0].shape = ir.DataType.FLOAT, ir.Shape(stored.shape)
        _graph_of(node).insert_before(node, real)
        node.resize_inputs(max(len(node.inputs), slot + 1))
        node.replace_input_with(slot, real.outputs[0])
    _note(analysis, layer, _set_input(model, real, 0, stored, ir.DataType.INT32))
    scale = _set_input(model, real, 1, unit, ir.DataType.FLOAT)
    if analysis is not None and scale.name not in analysis.dims:
        analysis.note(scale, _dims_of_bias(layer, analysis) if unit.ndim else [])
    if analysis is not None and real.outputs[0].name not in analysis.dims:
        given = real.inputs[0]
        assert given is not None
        analysis.note_like(real.outputs[0].name or "", given.name or "")
        analysis.shapes.dtypes[real.outputs[0].name or ""] = ir.DataType.FLOAT


def _set_quantized(
    model: ir.Model, node: ir.Node, slot: int, array: npt.NDArray[Any], analysis: Analysis | None
) -> bool:
    """Store a vector in the few bits that a DequantizeLinear of its own has it in; False where there is none."""
    path = weight_path(node.inputs[slot])
    link = None if path is None else path.quantized
    if path is None or link is None or len(path.links) > 1 or len(list(link.node.outputs[0].uses())) > 1:
        return False
    for at, other in requantized_vector(link.node, array.reshape(path.read().shape)).items():
        _replace(model, link.node, at, other, analysis)
    return True


def _replace(model: ir.Model, node: ir.Node, slot: int, array: npt.NDArray[Any], analysis: Analysis | None) -> None:
    """Give a node a constant of its own, of the shape of the one that it had."""
    old = node.inputs[slot]
    dims = None if analysis is None or old is None else analysis.dims.get(old.name or "")
    value = _set_input(model, node, slot, array)
    if analysis is not None and dims is not None and value.name not in analysis.dims:
        analysis.note(value, list(dims))


def _note(analysis: Analysis | None, layer: Layer, value: ir.Value) -> None:
    """Let the analysis know of a bias, or of a scale, that was put in."""
    if analysis is not None and value.name not in analysis.dims:
        analysis.note(value, _dims_of_bias(layer, analysis))


def _dims_of_bias(layer: Layer, analysis: Analysis) -> Dims:
    """The dimensions of a bias as `set_bias` stores it, and of the scale of a norm."""
    form, dims = layer.form, analysis.dims[layer.y]
    if form.hidden is not None:
        of_weight = analysis.dims[layer.operand.name or ""]
        return [of_weight[0], handle(concat(*[of_weight[form.hidden]] * form.bias_parts))]
    if form.stack is not None:
        return [dims[form.stack], Atom(1), dims[form.out_axis]]
    return [dims[form.out_axis], *(Atom(1) for _ in range(form.behind))]


def _set_input(
    model: ir.Model, node: ir.Node, slot: int, array: npt.NDArray[Any], dtype: ir.DataType | None = None
) -> ir.Value:
    """Give a node a constant of its own in place of what it read; of the type of that, or of another.

    It takes over the name, too, where nothing else reads that.
    """
    old = node.inputs[slot] if slot < len(node.inputs) else None
    tensor = constant_of(old)
    dtype = dtype or (None if tensor is None else tensor.dtype)
    assert dtype is not None
    value = ir.Value(name=_free_name(model, f"{node.name or node.op_type}/recovered"))
    if slot >= len(node.inputs):
        node.resize_inputs(slot + 1)
    node.replace_input_with(slot, value)
    if old is not None and not old.uses() and old.is_initializer() and not old.is_graph_input():
        del model.graph.initializers[old.name or ""]
        value.name, old.name = old.name, value.name
    assign(value, array, dtype)
    model.graph.register_initializer(value)
    return value


def assign(value: ir.Value, array: npt.NDArray[Any], dtype: ir.DataType) -> None:
    """Give an initializer other content, stored in a type."""
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
    _graph_of(node).insert_after(node, add)
    return add


def _graph_of(node: ir.Node) -> ir.Graph:
    """The main graph, or the body that a node is in."""
    assert isinstance(node.graph, ir.Graph)
    return node.graph


def _free_name(model: ir.Model, name: str) -> str:
    taken = {*model.graph.initializers, *(node.name for node in model.graph.all_nodes())}
    taken.update(value.name for node in model.graph.all_nodes() for value in node.outputs)
    while name in taken:
        name += "'"
    return name
