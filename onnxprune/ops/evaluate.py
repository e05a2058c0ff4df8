"""Shape arithmetic on small numpy arrays: what exporters compute from Shape to build a Reshape target.

A table for the operators that occur by the thousand; any other goes through onnx's reference implementation, which
knows them all but takes fifty times as long per node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from typing import cast as cast_type

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir

from onnxprune.ops.base import Array, attribute, evaluator

# Longer ranges are not shape arithmetic.
_MAX_COUNT = 1 << 20

_BINARY = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Equal": np.equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Min": np.minimum,
    "Max": np.maximum,
}
_UNARY = {"Not": np.logical_not, "Neg": np.negative, "Sqrt": np.sqrt, "Floor": np.floor, "Ceil": np.ceil, "Abs": np.abs}


def _register_numpy() -> None:
    for name, function in _BINARY.items():
        evaluator(name)(lambda _, *arrays, f=function: _fold_left(f, arrays))
    for name, unary in _UNARY.items():
        evaluator(name)(lambda _, x, f=unary: f(x))


def _fold_left(function: Any, arrays: tuple[Array, ...]) -> Array:
    result = arrays[0]
    for array in arrays[1:]:
        result = function(result, array)
    return np.asarray(result)


_register_numpy()


@evaluator("Identity")
def identity(_: ir.Node, x: Array) -> Array:
    """The input."""
    return x


@evaluator("Div")
def div(_: ir.Node, a: Array, b: Array) -> Array:
    """ONNX truncates integer division towards zero."""
    if np.issubdtype(np.result_type(a, b), np.integer):
        return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)), dtype=a.dtype)
    return np.asarray(a / b)


@evaluator("Cast")
def cast(node: ir.Node, x: Array) -> Array:
    """Change of type."""
    return x.astype(ir.DataType(attribute(node, "to")).numpy())


@evaluator("Gather")
def gather(node: ir.Node, data: Array, indices: Array) -> Array:
    """Selection along one axis."""
    return np.take(data, indices, axis=attribute(node, "axis", 0))


@evaluator("Concat")
def concat(node: ir.Node, *arrays: Array) -> Array:
    """One after the other."""
    return np.concatenate(arrays, axis=attribute(node, "axis", 0))


@evaluator("Unsqueeze")
def unsqueeze(node: ir.Node, x: Array, axes: Array | None = None) -> Array:
    """New axes of size 1; an attribute before opset 13."""
    chosen = attribute(node, "axes") if axes is None else axes.ravel().tolist()
    return np.expand_dims(x, tuple(int(axis) for axis in chosen))


@evaluator("Squeeze")
def squeeze(node: ir.Node, x: Array, axes: Array | None = None) -> Array:
    """Axes of size 1 dropped; an attribute before opset 13."""
    chosen = attribute(node, "axes") if axes is None else axes.ravel().tolist()
    return np.squeeze(x, None if chosen is None else tuple(int(axis) for axis in chosen))


@evaluator("Reshape")
def reshape(_: ir.Node, x: Array, shape: Array) -> Array:
    """0 copies the input's axis."""
    target = [x.shape[i] if size == 0 else int(size) for i, size in enumerate(shape)]
    return x.reshape(target)


@evaluator("Slice")
def slice_(node: ir.Node, x: Array, *bounds: Array) -> Array:
    """Ranges along axes; attributes before opset 10."""
    starts, ends, axes, steps = slice_arguments(node, bounds, x.ndim)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        reversed_to_front = step < 0 and end < -x.shape[axis]
        index[axis] = slice(start, None if reversed_to_front else end, step)
    return x[tuple(index)]


def slice_arguments(
    node: ir.Node, bounds: tuple[Array | None, ...], rank: int
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Starts, ends, axes (counted from the front) and steps of a Slice of any opset."""
    given: list[list[int] | None] = [None if bound is None else [int(v) for v in bound.ravel()] for bound in bounds]
    if not given:
        given = [list(attribute(node, "starts")), list(attribute(node, "ends")), attribute(node, "axes")]
    given += [None] * (4 - len(given))
    starts, ends, axes, steps = given
    assert starts is not None
    assert ends is not None
    axes = list(range(len(starts))) if axes is None else [int(axis) % rank for axis in axes]
    return starts, ends, axes, [1] * len(starts) if steps is None else steps


@evaluator("Where")
def where(_: ir.Node, condition: Array, a: Array, b: Array) -> Array:
    """Choice."""
    return np.where(condition, a, b)


@evaluator("Range")
def range_(_: ir.Node, start: Array, limit: Array, delta: Array) -> Array:
    """Counting; as far as it is shape arithmetic."""
    if abs(limit.item() - start.item()) > _MAX_COUNT * abs(delta.item()):
        raise ValueError("too many numbers to write down")
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


@evaluator("Expand")
def expand(_: ir.Node, x: Array, shape: Array) -> Array:
    """Broadcast to at least a shape."""
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(size) for size in shape)))


@evaluator("ConstantOfShape")
def constant_of_shape(node: ir.Node, shape: Array) -> Array:
    """A filled tensor: one entry that is read everywhere, whatever size a file asks for."""
    value = attribute(node, "value", np.zeros(1, np.float32))
    return np.broadcast_to(value.reshape(()), tuple(int(size) for size in shape))


@evaluator("Transpose")
def transpose(node: ir.Node, x: Array) -> Array:
    """Permuted axes."""
    return np.transpose(x, attribute(node, "perm"))


def constant_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor that a Constant node holds, whichever attribute it is in; None for any other node."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    name, found = next(iter(node.attributes.items()))
    if name == "value":
        return cast_type(ir.TensorProtocol, found.value)  # as_tensor() checks the protocol: 100 us a time
    types = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    return ir.Tensor(np.asarray(found.value, dtype=types[name])) if name in types else None


def filler_of(node: ir.Node) -> ir.TensorProtocol | None:
    """The one number that a node fills a tensor with; None for a node that does not."""
    if node.op_type != "ConstantOfShape" or node.domain not in ("", "ai.onnx"):
        return None
    value = node.attributes.get("value")
    return ir.Tensor(np.zeros(1, np.float32)) if value is None else cast_type(ir.TensorProtocol, value.value)


def is_filled_with_zeros(value: ir.Value) -> bool:
    """Is it a constant or a filler, and is every entry zero?"""
    node = value.producer()
    if node is None:
        tensor = None if value.is_graph_input() else value.const_value
    else:
        tensor = filler_of(node) if constant_tensor(node) is None else constant_tensor(node)
    return tensor is not None and not tensor.numpy().any()


_NOT_COMPUTED = frozenset(
    (
        *("If", "Loop", "Scan", "Multinomial", "Bernoulli"),
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),  # that would undo a weight's quantization
        *("SplitToSequence", "SequenceConstruct", "SequenceInsert", "SequenceEmpty", "SequenceMap"),  # not arrays
        *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"),
    )
)


def is_computable(node: ir.Node) -> bool:
    """Is there any use in computing it beforehand? Control flow, random numbers and sequences are left."""
    return node.op_type not in _NOT_COMPUTED


_SIZED_BY_CONTENT = frozenset(
    ("Reshape", "Expand", "ConstantOfShape", "Tile", "Range", "Slice", "Pad", "OneHot", "TopK", "Resize", "Upsample")
)


def is_sized_by_content(node: ir.Node) -> bool:
    """Does some input of it say how large the output is?"""
    return node.op_type in _SIZED_BY_CONTENT and node.domain in ("", "ai.onnx")


def bounds(node: ir.Node) -> list[str]:
    """Names of the inputs with the starts and ends of a slice; empty for any other operator."""
    given = node.inputs[1:3] if node.op_type == "Slice" else ()
    return [value.name or "" for value in given if value is not None]


def as_run(node: ir.Node, contents: Mapping[str, Array | None]) -> onnx.NodeProto:
    """The node as ONNX Runtime understands it: sequences of single entries lose the axis, contrary to onnx's word."""
    proto = ir.serde.serialize_node(node)
    if node.op_type == "SplitToSequence" and len(proto.input) > 1:
        size = contents.get(proto.input[1])
        if size is not None and size.shape == () and size == 1:
            del proto.input[1:]
    return proto


def shape_of(node: ir.Node, shape: tuple[int, ...]) -> Array | None:
    """Shape and Size need the shape of their input, not its value; None for any other operator."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Shape":
        sizes = np.asarray(shape, dtype=np.int64)
        return sizes[slice(attribute(node, "start", 0), attribute(node, "end"))]
    if node.op_type == "Size":
        return np.asarray(np.prod(shape, dtype=np.int64))
    return None


def by_reference(node: ir.Node, arrays: list[Array | None], opsets: dict[str, int]) -> list[Array]:
    """Any operator through onnx's reference implementation. Raises whatever that raises."""
    import onnx.reference  # takes a while to load, and most models have no such operator

    proto = ir.serde.serialize_node(node)
    inputs = {value.name or "": array for value, array in zip(node.inputs, arrays, strict=True) if value is not None}
    graph = onnx.helper.make_graph(
        [proto],
        "node",
        [onnx.helper.make_empty_tensor_value_info(name or "") for name in inputs],
        [onnx.helper.make_empty_tensor_value_info(name) for name in proto.output if name],
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    session = onnx.reference.ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=imports))
    return [np.asarray(array) for array in session.run(None, inputs)]


def shape_as(name: str, node: ir.Node, shapes: Sequence[tuple[int, ...] | None]) -> tuple[int, ...]:
    """The shape of the first output of `node` if it were the standard operator `name` on inputs of these shapes.

    Raises ValueError when onnx cannot tell.
    """
    schema = onnx.defs.get_schema(name)
    inputs = ["" if shape is None else f"x{i}" for i, shape in enumerate(shapes)]
    types = {
        f"x{i}": onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, shape)
        for i, shape in enumerate(shapes)
        if shape is not None
    }
    proto = onnx.helper.make_node(name, inputs, ["y"])
    proto.attribute.extend(a for a in ir.serde.serialize_node(node).attribute if a.name in schema.attributes)
    try:
        found = onnx.shape_inference.infer_node_outputs(schema, proto, types)["y"].tensor_type.shape
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, KeyError) as error:
        raise ValueError(f"not a form of {name}: {error}") from error
    if not all(dim.HasField("dim_value") for dim in found.dim):
        raise ValueError(f"not a form of {name}")
    return tuple(dim.dim_value for dim in found.dim)
