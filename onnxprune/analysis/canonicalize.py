"""One form of each thing, so that the analysis sees few forms and numbers that depended on sizes are fixed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from onnxprune.analysis.shape_inference import Shapes
from onnxprune.analysis.shapes import Observe, infer
from onnxprune.model.graph import subgraphs
from onnxprune.ops.base import Array
from onnxprune.ops.control_flow import branch_taken
from onnxprune.ops.evaluate import constant_tensor, is_filled_with_zeros
from onnxprune.ops.proof import moved_slots
from onnxprune.ops.traits import states_from_zero

# A folded array of more entries than this would weigh more than the nodes that compute it.
_MAX_FOLDED = 1024


def canonicalize(model: ir.Model, observe: Observe | None = None, sizes: Mapping[str, int] = {}) -> tuple[bool, Shapes]:
    """Bring a model into canonical form, in place; see `passes.canonicalize.Canonicalize` for what that is.

    Shapes are inferred at the `sizes` of dynamic axes that somebody wants.

    Returns whether anything changed, and the shapes inferred on the way, which hold for the result.
    """
    modified = False
    if model.functions:
        modified |= common.InlinePass()(model).modified
    modified |= _open_bodies(model)
    modified |= _drop_zero_states(model)
    shapes = infer(model, observe, sizes)
    while _take_branches(model, shapes):  # what is in them may say which branch comes next
        modified, shapes = True, infer(model, observe, sizes)
    modified |= _fold(model, shapes)
    modified |= _split_fillers(model, shapes)
    return modified, shapes


def _open_bodies(model: ir.Model) -> bool:
    """Weights inside bodies become weights of the model, and each value gets a name of its own, so all can be cut."""
    if not any(list(subgraphs(node)) for node in model.graph):
        return False
    passes = (
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.NameFixPass(),
    )
    changed = [each(model).modified for each in passes]
    return any(changed)


def _drop_zero_states(model: ir.Model) -> bool:
    """States that start at zero, as they do where none is given: layers that share the zeros are not tied by them."""
    dropped = False
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for slot in states_from_zero(node):
            value = node.inputs[slot] if slot < len(node.inputs) else None
            if value is not None and _is_zero(value):
                node.replace_input_with(slot, None)
                dropped = True
    return dropped


def _is_zero(value: ir.Value) -> bool:
    """Is every entry zero, at whatever size?"""
    node = value.producer()
    if node is None or is_filled_with_zeros(value):
        return is_filled_with_zeros(value)
    pieces = [node.inputs[slot] for slot in moved_slots(node)]
    return bool(pieces) and all(piece is not None and _is_zero(piece) for piece in pieces)


def _take_branches(model: ir.Model, shapes: Shapes) -> bool:
    """Put the branch in place of an If whose condition is known: a squeeze of an axis that has size 1, for example."""
    taken = False
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        condition = node.inputs[0] if node.inputs else None
        known = None if condition is None else shapes.known.get(condition.name or "")
        branch = None if known is None else branch_taken(node, bool(known.all()))
        graph = node.graph
        if branch is None or not isinstance(graph, ir.Graph):
            continue
        results = list(branch.outputs)
        inner = list(branch)
        branch.remove(inner)
        for each in inner:  # names of values are unique, those of nodes in their body only
            each.name = f"{node.name}/{each.outputs[0].name}"
        graph.insert_before(node, inner)
        for old, new in zip(node.outputs, results, strict=True):
            if old.is_graph_output():
                _rename_output(node, old, new)
            else:
                old.replace_all_uses_with(new)
        graph.remove(node, safe=False)
        taken = True
    return taken


def _rename_output(node: ir.Node, old: ir.Value, new: ir.Value) -> None:
    """Hand a value out under the name that an output of the graph has."""
    assert node.graph is not None
    same = ir.node("Identity", [new], name=f"{node.name}/{old.name}")
    made = same.outputs[0]
    made.name, made.shape, made.type = old.name, old.shape, old.type
    old.name = f"{old.name}/taken"
    node.graph.insert_before(node, same)
    old.replace_all_uses_with(made, replace_graph_outputs=True)


def _fold(model: ir.Model, shapes: Shapes) -> bool:
    """Replace values that are known and were computed by initializers, and drop the nodes that computed them.

    Backwards, so that what only fed folded nodes is simply dropped.
    """
    folded = False
    for node in reversed(list(model.graph)):
        outputs = [value for value in node.outputs if value.name]
        if not all(_is_foldable(node, value, shapes) for value in outputs):
            continue
        for value in outputs:
            if value.uses():
                _replace(model, value, constant_tensor(node) or _tensor(shapes.known[value.name or ""]))
        model.graph.remove(node, safe=False)
        folded = True
    return folded


def _is_foldable(node: ir.Node, value: ir.Value, shapes: Shapes) -> bool:
    if value.is_graph_output():
        return False
    array = shapes.known.get(value.name or "")
    return constant_tensor(node) is not None or (array is not None and array.size <= _MAX_FOLDED)


def _tensor(array: Array) -> ir.TensorProtocol:
    return ir.Tensor(np.ascontiguousarray(array).reshape(array.shape))


def _replace(model: ir.Model, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    name = value.name
    tensor.name = name
    shape = ir.Shape(tensor.shape.numpy())
    initializer = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    value.name = f"{name}/folded"
    model.graph.register_initializer(initializer)
    value.replace_all_uses_with(initializer)


def _split_fillers(model: ir.Model, shapes: Shapes) -> bool:
    split = False
    for value in list(model.graph.initializers.values()):
        uses = list(value.uses())
        if len(uses) < 2 or value.is_graph_input() or value.is_graph_output() or not _is_filler(value):
            continue
        assert value.const_value is not None
        for index, (node, position) in enumerate(uses[1:], start=1):
            name = _free_name(model, f"{value.name}/{index}")
            copy = ir.Value(name=name, shape=value.shape, type=value.type)
            copy.const_value = _renamed(value.const_value, name)
            model.graph.register_initializer(copy)
            node.replace_input_with(position, copy)
            shapes.shapes[name] = shapes.shapes[value.name or ""]
            if value.name in shapes.known:
                shapes.known[name] = shapes.known[value.name]
            split = True
    return split


def _renamed(tensor: ir.TensorProtocol, name: str) -> ir.LazyTensor:
    """The same data under another name, read when it is needed."""
    shape = ir.Shape(tensor.shape.numpy())
    return ir.LazyTensor(lambda: tensor, dtype=tensor.dtype, shape=shape, name=name)


def _is_filler(value: ir.Value) -> bool:
    """All entries equal: the zeros of a bias, the ones of a scale."""
    tensor = value.const_value
    if tensor is None or tensor.size < 2 or tensor.dtype == ir.DataType.STRING:
        return False
    array = tensor.numpy()
    return bool((array == array.flat[0]).all())


def _free_name(model: ir.Model, name: str) -> str:
    while name in model.graph.initializers:
        name += "'"
    return name
