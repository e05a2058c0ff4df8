"""QuantizeLinear and DequantizeLinear around the values that are quantized."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.ops.dequantize import MICROSOFT
from onnxprune.ops.integer_kernels import activation_slots, gives_integers, is_merged_into_grid
from onnxprune.steps.quantize.grids import Grid
from onnxprune.steps.quantize.placement import Placement

# From here on ONNX's own operators take a scale per channel; before, ONNX Runtime's do.
_PER_CHANNEL = 13


class Editor:
    """Puts nodes and constants into a model, under names of their own.

    Attributes:
        model: it is changed in place.
        domain: of QuantizeLinear and DequantizeLinear.
    """

    def __init__(self, model: ir.Model, opset: int = _PER_CHANNEL) -> None:
        self.model = model
        self.domain = "" if model.opset_imports.get("", 0) >= opset else MICROSOFT
        graph = model.graph
        self._names = {*graph.initializers, *(value.name for value in graph.inputs)}
        self._names.update(value.name for node in graph for value in node.outputs)

    def name(self, wanted: str) -> str:
        """The name, or one like it, that no value has."""
        while wanted in self._names:
            wanted += "'"
        self._names.add(wanted)
        return wanted

    def constant(self, name: str, array: npt.NDArray[Any], dtype: ir.DataType | None = None) -> ir.Value:
        """A new initializer; its type follows from the array, but for types that numpy does not know."""
        name = self.name(name)
        stored = np.ascontiguousarray(array).reshape(array.shape)
        tensor = ir.Tensor(stored, dtype=dtype or ir.DataType.from_numpy(stored.dtype), name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.model.graph.register_initializer(value)
        return value

    def node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        dtype: ir.DataType = ir.DataType.FLOAT,
        shape: ir.Shape | None = None,
        domain: str = "",
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Node:
        """A node with one output, which is still to be put into the graph."""
        made = ir.node(operator, inputs, attributes or {}, domain=domain, name=name)
        if domain == MICROSOFT:
            self.model.opset_imports.setdefault(MICROSOFT, 1)
        output = made.outputs[0]
        made.name = output.name = self.name(name)
        output.shape, output.type = shape, ir.TensorType(dtype)
        return made

    def dequantized(
        self, name: str, array: npt.NDArray[Any], scale: npt.NDArray[Any], dtype: ir.DataType, axis: int | None = None
    ) -> ir.Node:
        """DequantizeLinear of stored integers that are symmetric about 0, with a scale or one per entry of an axis."""
        integers = self.constant(f"{name}/integers", array, dtype)
        scales = self.constant(f"{name}/scale", np.asarray(scale, np.float32))
        read: list[ir.Value | None] = [integers, scales]
        if dtype != ir.DataType.INT32:  # of weights; without it a Gemm stays in float
            read.append(self.constant(f"{name}/zero", np.zeros(scale.shape, dtype.numpy()), dtype))
        shape = ir.Shape(array.shape)
        attributes = {} if axis is None else {"axis": axis}
        return self.node(
            "DequantizeLinear",
            read,
            f"{name}/dequantize",
            shape=shape,
            domain=self.domain,
            attributes=attributes,
        )

    def before(self, node: ir.Node, *made: ir.Node) -> None:
        """Put nodes in front of another."""
        self.model.graph.insert_before(node, list(made))

    def swap(self, node: ir.Node, made: ir.Node) -> None:
        """Put a node in place of another, under the names of what that gives."""
        self.before(node, made)
        for old, new in zip(node.outputs, made.outputs, strict=True):
            new.shape, new.type, name = old.shape, old.type, old.name
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
            old.name, new.name = self.name(f"{name}/replaced") if name else None, name
        self.model.graph.remove(node, safe=True)


def insert_pairs(editor: Editor, placement: Placement, grids: Mapping[str, Grid]) -> dict[str, str]:
    """Put the pairs around the values of a placement, in place; the names of what comes out of them, by the values'.

    Integer operators read what comes out, and so does everything behind an operator that has to give integers. Other
    operators keep reading the value itself.
    """
    graph = editor.model.graph
    integer = {layer.node for layer in placement.layers} | set(placement.carriers)
    whole = {layer.last for layer in placement.layers if gives_integers(layer.node)} | set(placement.carriers)
    made: dict[str, str] = {}
    for value in placement.values:
        name, users = value.name or "", [(node, slot) for node, slot in value.uses()]
        outputs = [at for at, output in enumerate(graph.outputs) if output is value]
        if not _comes_from(value, whole):
            users = [use for use in users if use[0] in integer and use[1] in activation_slots(use[0])]
            outputs = []
        pair = _insert_pair(editor, value, grids[name])
        made[name] = name if outputs else pair.name or ""
        for node, slot in users:
            node.replace_input_with(slot, pair)
        for at in outputs:
            graph.outputs[at] = pair
        if outputs:
            value.name, pair.name = editor.name(f"{name}/float"), name
    return made


def _comes_from(value: ir.Value, whole: Collection[ir.Node]) -> bool:
    """Is a value what one of these operators gives, through a Relu or not?"""
    node = value.producer()
    if node is None:
        return False
    first = node.inputs[0] if node.inputs else None
    return node in whole or (first is not None and is_merged_into_grid(node, first) and first.producer() in whole)


def _insert_pair(editor: Editor, value: ir.Value, grid: Grid) -> ir.Value:
    """QuantizeLinear and DequantizeLinear behind a value; what comes out of them."""
    name, domain = value.name or "", editor.domain
    scale = editor.constant(f"{name}/scale", np.array(grid.scale, np.float32))
    zero = editor.constant(f"{name}/zero", np.array(grid.zero, grid.dtype.numpy()))
    down = editor.node("QuantizeLinear", [value, scale, zero], f"{name}/quantize", grid.dtype, value.shape, domain)
    up = editor.node(
        "DequantizeLinear", [down.outputs[0], scale, zero], f"{name}/dequantize", shape=value.shape, domain=domain
    )
    maker, graph = value.producer(), editor.model.graph
    if maker is not None:
        graph.insert_after(maker, [down, up])
    else:
        editor.before(next(iter(graph)), down, up)
    return up.outputs[0]
