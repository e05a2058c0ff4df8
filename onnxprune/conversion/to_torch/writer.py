"""Writes a module of torch for a graph: node after node, each a line of `forward`."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.names import layer_name
from onnxprune.conversion.to_torch.base import (
    DTYPES,
    TORCH_CODE,
    Array,
    Call,
    Sizes,
    Written,
    python_number,
)
from onnxprune.conversion.to_torch.names import of_members, of_variables
from onnxprune.conversion.to_torch.nesting import Assignment
from onnxprune.conversion.to_torch.ops.host import on_host
from onnxprune.errors import ModelError, OnnxpruneError
from onnxprune.ops import find_evaluator
from onnxprune.ops.base import key_of
from onnxprune.ops.evaluate import by_reference, constant_tensor, is_computable

# Names that mean something in the file that is written.
# Longer lists of numbers are tensors, not Python.
_MOST_SIZES = 64


@dataclass(frozen=True)
class ModulePart:
    """A module, parameter or buffer: its line in `__init__`, and the name in it of every weight."""

    line: str
    weights: dict[str, Array]


class Writer:
    """The code written for a graph so far, and the facts known of its values.

    Attributes:
        parts: modules, parameters and buffers by their names in the module.
        lines: of `forward`.
        words: per variable of `forward` the word that it is called after.
    """

    def __init__(self, analysis: Analysis) -> None:
        self.shapes, self.opset = analysis.shapes, analysis.model.opset_imports.get("", 1)
        self.graph, self._activations = analysis.model.graph, analysis.activations
        self.parts: dict[str, ModulePart] = {}
        self.lines: list[Assignment] = []
        self.words: dict[str, str] = {}
        self._opsets = dict(analysis.model.opset_imports)
        self._constants: dict[ir.Value, Array | None] = {}
        self._said: dict[ir.Value, str | Sizes] = {}
        self._shared: dict[object, str] = {}
        self._joined: dict[ir.Node, ir.Node] = {}
        self._modules: dict[ir.Node, str] = {}
        self._variables, self._members = of_variables(), of_members()
        self.inputs = [value for value in self.graph.inputs if not value.is_initializer()]
        for value in self.inputs:
            self._said[value] = self._variables.new(value.name or "x")

    def write(self) -> list[str]:
        """Write every node, and give the expressions of the outputs. Raises ModelError for what cannot be written."""
        without = (each for each in self.graph if key_of(each) not in TORCH_CODE and constant_tensor(each) is None)
        missing = sorted({each.op_type for each in without})
        for node in self.graph:
            if not any(output.uses() or output.is_graph_output() for output in node.outputs):
                continue
            if all(self.constant(output) is not None for output in node.outputs if output.name):
                continue
            if node in self._joined:
                self._said[node.outputs[0]] = self._said[self._joined[node].outputs[0]]
                continue  # written with the node before it
            self._write(node, missing)
        return [self.tensor(value) for value in self.graph.outputs]

    def _write(self, node: ir.Node, missing: list[str]) -> None:
        call = Call(node, self)
        found: Written | None = on_host(call)
        if found is None:
            write = TORCH_CODE.get(key_of(node))
            if write is None:
                more = f" (nor: {', '.join(missing)})" if len(missing) > 1 else ""
                raise call.refuse(f"there is no code for this operator{more}")
            try:
                found = write(call)
            except OnnxpruneError:
                raise
            except (TypeError, ValueError, IndexError, KeyError) as error:
                raise call.refuse(f"{type(error).__name__}: {error}") from error
        if isinstance(found, list):
            self._assign_all(node, found)
        elif isinstance(found, Sizes) or found.isidentifier() or found.isdecimal():
            self._said[node.outputs[0]] = found
        else:
            self._said[node.outputs[0]] = self.assign(self._called(node), found)

    def _called(self, node: ir.Node) -> str:
        """A word for what a node gives: the last of its module's name, or the operator's."""
        words = [word for word in self._modules.get(node, "").split(".") if word and not word.isdigit()]
        return words[-1] if words else re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.op_type)

    def _assign_all(self, node: ir.Node, found: list[str]) -> None:
        """Several outputs: an expression for each, or one for all of them."""
        if len(found) == 1:
            names = [self.name(node.op_type) for _ in node.outputs]
            self.lines.append(Assignment(f"{', '.join(names)}{',' if len(names) == 1 else ''}", found[0]))
        else:
            names = [each if each.isidentifier() or not each else self.assign(node.op_type, each) for each in found]
        self._said.update(zip(node.outputs, names, strict=False))

    def assign(self, called: str, expression: str) -> str:
        """A line that gives an expression a name."""
        name = self.name(called)
        self.lines.append(Assignment(name, expression))
        return name

    def name(self, called: str) -> str:
        """A name for a variable that is not taken yet."""
        name = self._variables.new(called)
        self.words[name] = called
        return name

    def device(self) -> str:
        """Where tensors are made that come from no other."""
        return f"{self._said[self.inputs[0]]}.device" if self.inputs else '"cpu"'

    def join(self, node: ir.Node, before: ir.Node) -> None:
        """A node is written together with the one before it: both have the same output."""
        self._joined[node] = before

    def constant(self, value: ir.Value) -> Array | None:
        """The content of a value that follows from weights alone."""
        if value not in self._constants:
            self._constants[value] = self._computed(value)
        return self._constants[value]

    def _computed(self, value: ir.Value) -> Array | None:
        if value.is_initializer() and value.const_value is not None:
            return None if value.is_graph_input() else np.asarray(value.const_value.numpy())
        node = value.producer()
        if node is None or value in self._said:
            return None
        stored = constant_tensor(node)
        if stored is not None:
            return np.asarray(stored.numpy())
        if not node.inputs or any(each is not None and self.constant(each) is None for each in node.inputs):
            return None
        arrays = [None if each is None else self.constant(each) for each in node.inputs]
        results = _results(node, arrays, self._opsets)
        return None if results is None else results[node.outputs.index(value)]

    def sizes(self, value: ir.Value) -> Sizes | None:
        """A value as numbers that Python knows."""
        said = self._said.get(value)
        if isinstance(said, Sizes):
            return said
        array = self.constant(value)
        if array is None or array.dtype.kind not in "iub" or array.ndim > 1 or array.size > _MOST_SIZES:
            return None
        return Sizes(tuple(map(repr, array.reshape(-1).tolist())), array.ndim == 0)

    def number(self, value: ir.Value, rank: int) -> str | None:
        """A value as one number, where it has no more axes than `rank`."""
        said, array = self._said.get(value), self.constant(value)
        if isinstance(said, Sizes) and len(said.entries) == 1 and (said.scalar or rank > 0):
            return said.entries[0] if said.entries[0].isalnum() else f"({said.entries[0]})"
        if array is None or array.size != 1 or array.ndim > rank:
            return None
        return python_number(array)

    def tensor(self, value: ir.Value) -> str:
        """A value as a tensor: the name of a variable, or a part of the module."""
        said = self._said.get(value)
        if isinstance(said, Sizes):
            dtype = DTYPES.get(self.dtype(value) or ir.DataType.INT64, "torch.int64")
            content = said.entries[0] if said.scalar else f"[{', '.join(said.entries)}]"
            said = self.assign("sizes", f"torch.tensor({content}, dtype={dtype}, device={self.device()})")
            self._said[value] = said
        if said is not None:
            return said
        array = self.constant(value)
        if array is None:
            raise ModelError(f"value '{value.name}' is computed nowhere")
        return self.stored(value.name or "constant", array, value)

    def stored(self, called: str, array: Array, key: object) -> str:
        """An array as a parameter, or a buffer where it does not hold floats."""
        if key not in self._shared:
            dtype = DTYPES.get(ir.DataType.from_numpy(array.dtype))
            if dtype is None:
                raise ModelError(f"constant '{called}' holds {array.dtype}, which torch does not know")
            name = self._members.new(called.removesuffix(".weight"))
            made = f"torch.empty({array.shape}, dtype={dtype})".replace(", dtype=torch.float32", "")
            floats = array.dtype.kind not in "iub" and array.size > 1
            line = f"self.{name} = nn.Parameter({made})" if floats else f'self.register_buffer("{name}", {made})'
            self.parts[name] = ModulePart(line, {name: array})
            self._shared[key] = f"self.{name}"
        return self._shared[key]

    def module(self, node: ir.Node, kind: str, arguments: str, parameters: dict[str, Array]) -> str:
        """A module of torch.nn; nodes with the same weights share it."""
        called = self._modules[node] = layer_name(node, self._activations) or node.op_type
        weights = tuple(value for value in node.inputs if value is not None and self.constant(value) is not None)
        contents = tuple((role, hash(array.tobytes())) for role, array in parameters.items())
        key = (kind, arguments, weights, contents)  # a bias may be that of the node behind
        if key not in self._shared or not weights:
            dtype = DTYPES.get(ir.DataType.from_numpy(next(iter(parameters.values())).dtype)) if parameters else None
            arguments += "" if dtype in (None, "torch.float32") else f", dtype={dtype}"
            name = self._members.new(called)
            line = f"self.{name} = nn.{kind}({arguments.removeprefix(', ')})"
            self.parts[name] = ModulePart(line, {f"{name}.{role}": array for role, array in parameters.items()})
            self._shared[key] = f"self.{name}"
        return self._shared[key]

    def size(self, value: ir.Value, axis: int) -> str:
        """The size of an axis: a number where it is the same in every run."""
        name = value.name or ""
        shape = self.shapes.shapes.get(name)
        if shape is None or (name, axis) in self.shapes.dynamic or name in self.shapes.observed:
            return f"{self.tensor(value)}.shape[{axis}]"
        return str(shape[axis])

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """The element type of a value."""
        return self.shapes.dtypes.get(value.name or "") or value.dtype


def _results(node: ir.Node, arrays: list[Array | None], opsets: dict[str, int]) -> list[Array] | None:
    """A node on constants of any size; None where it cannot be computed, and keeps its line."""
    if not is_computable(node):
        return None
    evaluate = find_evaluator(key_of(node)) if len(node.outputs) == 1 else None
    try:
        found = by_reference(node, arrays, opsets) if evaluate is None else [evaluate(node, *arrays)]
    except Exception:
        return None
    return [np.asarray(array) for array in found]
