"""The types and small values of one node after another, from those of its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx
import onnx_ir as ir

from onnxprune.model.graph import captured
from onnxprune.ops import find_shape_rule
from onnxprune.ops.base import Array, key_of
from onnxprune.ops.compute import MAX_KNOWN, compute, is_shape_like
from onnxprune.ops.evaluate import as_run, bounds, constant_tensor, is_sized_by_content, shape_of
from onnxprune.ops.traits import joins

_MAX_SCALES = 16
_MAX_SIZES = 8

# A large one and a small one, so that the smaller of such a size and a constant is seen to vary.
_DATA_SIZES = (1_009, 3)

Shape = tuple[int, ...]


@dataclass
class Shapes:
    """The facts about the values of a model, by name.

    Attributes:
        shapes: concrete shapes, dynamic axes at the sizes of `bindings`; values without an entry are unknown.
        dtypes: element types.
        known: small values that follow from constants and static shapes.
        dynamic: (value, axis) pairs whose size differs from run to run.
        bindings: the size given to each dynamic axis of the graph inputs, by its symbol.
        failures: nodes whose types onnx could not infer, with the reason.
        invented: values with a size that depends on data and was made up (the count of non-zero entries, say).
        observed: values that were made up or whose shape was seen in a trial run, and what follows: not to be folded.
    """

    shapes: dict[str, Shape] = field(default_factory=dict)
    dtypes: dict[str, ir.DataType] = field(default_factory=dict)
    known: dict[str, Array] = field(default_factory=dict)
    dynamic: set[tuple[str, int]] = field(default_factory=set)
    bindings: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    invented: set[str] = field(default_factory=set)
    observed: set[str] = field(default_factory=set)


class Inference:
    """One walk over the nodes, which are given in topological order.

    Attributes:
        found: what is known so far.
        types: the same as onnx takes it, as far as that was asked for; of sequences always.
    """

    def __init__(self, found: Shapes, opsets: dict[str, int], turn: int) -> None:
        """Sizes that depend on data are others in each `turn`, 0 or 1."""
        self.found = found
        self.types: dict[str, onnx.TypeProto] = {}
        self.opsets = opsets
        self.turn = turn
        self._imports = [onnx.helper.make_opsetid(name, version) for name, version in opsets.items()]

    def fresh_size(self, name: str) -> int:
        """A number for a size of `name` that is known only in a run: unlike all others, in either turn."""
        size = _DATA_SIZES[self.turn] + 2 * len(self.found.invented)
        self.found.invented.add(name)
        return size

    def record_constant(self, name: str, tensor: ir.TensorProtocol) -> None:
        """Note the type of a constant, and its content where it may be shape arithmetic."""
        self.record(name, tuple(tensor.shape.numpy()), tensor.dtype)
        if is_shape_like(tensor):
            self.found.known[name] = tensor.numpy()

    def record(self, name: str, shape: Shape, dtype: ir.DataType) -> None:
        """Note the type of a value."""
        self.found.shapes[name] = shape
        self.found.dtypes[name] = dtype
        self.types.pop(name, None)

    def _type(self, name: str) -> onnx.TypeProto | None:
        """As onnx takes it; made where it is asked for, for most values never are. None where nothing is known."""
        if name not in self.types and name in self.found.shapes:
            self.types[name] = onnx.helper.make_tensor_type_proto(
                self.found.dtypes[name].value, self.found.shapes[name]
            )
        return self.types.get(name)

    def evaluate(self, node: ir.Node) -> bool:
        """Compute the node if all its inputs are known and small; True when that was done."""
        if not node.outputs:
            return False
        first = node.inputs[0] if node.inputs else None
        if first is not None and first.name in self.found.shapes:
            sizes = shape_of(node, self.found.shapes[first.name])
            if sizes is not None:
                return self._know(node, [sizes])
        arrays: list[Array | None] = []
        for value in node.inputs:  # of every node in every pass: it ends at the first that is not known
            if value is not None and value.name not in self.found.known:
                return False
            arrays.append(None if value is None else self.found.known[value.name or ""])
        results = compute(node, arrays, self.opsets)
        if results is None or not self._know(node, results):
            return False
        if any(value is not None and value.name in self.found.observed for value in node.inputs):
            self.found.observed.update(value.name for value in node.outputs if value.name)
        return True

    def _know(self, node: ir.Node, arrays: list[Array]) -> bool:
        if any(array.size > MAX_KNOWN for array in arrays):
            return False
        for value, array in zip(node.outputs, arrays, strict=False):
            if value.name:
                self.record(value.name, array.shape, ir.DataType.from_numpy(array.dtype))
                self.found.known[value.name] = array
        return True

    def infer(self, node: ir.Node) -> None:
        """Ask onnx for the types of one node's outputs."""
        domain = "" if node.domain == "ai.onnx" else node.domain
        read = [value for value in (*node.inputs, *captured(node)) if value is not None]
        inputs: dict[str, onnx.TypeProto] = {}
        for value in read:
            known = self._type(value.name or "")
            if known is None:
                return
            inputs[value.name or ""] = known
        schema = _schema(domain, node.op_type, self.opsets.get(domain, self.opsets.get("", 1)))
        if schema is None:
            self._infer_by_table(node)
            return
        contents = self._contents(node, read)
        certain = {name: array for name, array in contents.items() if name not in self.found.observed}
        try:
            outputs = self._ask_onnx(schema, node, inputs, contents)
        except Exception as error:
            try:  # a size that was made up may not fit: more of the largest entries than there are, say
                outputs = self._ask_onnx(schema, node, inputs, certain)
            except Exception:
                self.found.failures[node.name or node.op_type] = str(error).strip().splitlines()[0]
                return
        for name, proto in outputs.items():
            if name:
                self._record_type(name, proto)

    def _ask_onnx(
        self,
        schema: onnx.defs.OpSchema,
        node: ir.Node,
        inputs: dict[str, onnx.TypeProto],
        contents: dict[str, Array | None],
    ) -> dict[str, onnx.TypeProto]:
        """The types of a node's outputs. Raises one of several exceptions where inputs do not fit."""
        data = {
            name: onnx.numpy_helper.from_array(array, name) for name, array in contents.items() if array is not None
        }
        return onnx.shape_inference.infer_node_outputs(
            schema, as_run(node, contents), inputs, data, opset_imports=self._imports
        )

    def _contents(self, node: ir.Node, read: list[ir.Value]) -> dict[str, Array | None]:
        """The contents that onnx may look at to infer shapes; sizes computed from data are made up where needed."""
        for value in node.inputs if is_sized_by_content(node) else ():
            if value is not None and self._is_size_like(value):
                self._make_up(value)
        contents = {value.name or "": self._content(value) for value in read}
        starts_and_ends = bounds(node)
        if starts_and_ends and any(name in self.found.observed for name in contents):
            longest = max(self.found.shapes[node.inputs[0].name or ""], default=0)  # type: ignore[union-attr]
            if any(bound is not None and (abs(bound) > longest).any() for bound in map(contents.get, starts_and_ends)):
                contents.update(dict.fromkeys(starts_and_ends))  # a bound beyond the end would look like none
        return contents

    def _is_size_like(self, value: ir.Value) -> bool:
        """Whole numbers, and few of them."""
        name = value.name or ""
        whole = name in self.found.dtypes and self.found.dtypes[name].is_integer()
        return whole and len(self.found.shapes[name]) < 2 and prod(self.found.shapes[name]) <= _MAX_SIZES

    def _make_up(self, value: ir.Value) -> None:
        """Know a value that depends on data: computed where it is arithmetic on others like it, else any number.

        So a size keeps its number wherever it is used. What was made up is marked so as not to be folded.
        """
        name, node = value.name or "", value.producer()
        if name in self.found.known:
            return
        if node is not None and all(given is None or self._is_size_like(given) for given in node.inputs):
            for given in filter(None, node.inputs):
                self._make_up(given)
            if self.evaluate(node):
                self.found.observed.add(name)
                return
        self.found.known[name] = np.zeros(self.found.shapes[name], self.found.dtypes[name].numpy())
        for place in np.ndindex(self.found.shapes[name]):
            self.found.known[name][place] = self.fresh_size(f"{name}{list(place)}")
        self.found.observed.add(name)

    def _content(self, value: ir.Value) -> Array | None:
        """The content that onnx may look at to infer shapes: known values, and short float constants (scales)."""
        if value.name in self.found.known:
            return self.found.known[value.name]
        producer = value.producer()
        if producer is not None and joins(producer):  # scales: constants of channels, computed ones of space
            pieces = [None if piece is None else self._content(piece) for piece in producer.inputs]
            known = [piece for piece in pieces if piece is not None and piece.ndim == 1]
            return np.concatenate(known) if len(known) == len(pieces) else None
        tensor = value.const_value if producer is None else constant_tensor(producer)
        fits = tensor is not None and tensor.dtype.is_floating_point() and tensor.size <= _MAX_SCALES
        return tensor.numpy() if tensor is not None and fits else None

    def _infer_by_table(self, node: ir.Node) -> None:
        """Use the shape rule that lies beside the operator's axis rule, if it has one."""
        rule = find_shape_rule(key_of(node))
        if rule is None:
            return
        names = [None if value is None else value.name for value in node.inputs]
        if any(name and name not in self.found.shapes for name in names):
            return
        try:
            outputs = rule(
                node, [(self.found.shapes[name], self.found.dtypes[name]) if name else None for name in names]
            )
        except (IndexError, TypeError, ValueError, ZeroDivisionError) as error:  # a form that the rule did not foresee
            self.found.failures[node.name or node.op_type] = f"its shape rule does not fit this form of it ({error})"
            return
        for value, known in zip(node.outputs, outputs, strict=False):
            if value.name and known is not None:
                self.record(value.name, *known)

    def _record_type(self, name: str, proto: onnx.TypeProto) -> None:
        if proto.HasField("sequence_type"):  # no axes of its own, but what is taken out of it has some
            self.types[name] = proto
            return
        tensor = proto.tensor_type
        if not tensor.HasField("shape"):
            return
        for dim in tensor.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = self.fresh_size(name)
        self.types[name] = proto
        self.found.shapes[name] = tuple(dim.dim_value for dim in tensor.shape.dim)
        self.found.dtypes[name] = ir.DataType(tensor.elem_type)


def _schema(domain: str, op_type: str, version: int) -> onnx.defs.OpSchema | None:
    """The schema of an operator; None for one of another domain, or without type inference of its own."""
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    return schema if schema.has_type_and_shape_inference_function else None
