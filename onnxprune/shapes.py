"""The concrete shape of every value, and every small value that follows from shapes alone.

One forward pass: small constants and shape arithmetic are computed in numpy, every other node asks onnx for the types
of its outputs. Dynamic axes are bound to sizes and the pass is made twice, with different ones: what comes out the same
is static, what differs varies at run time. So the rest of the tool only ever sees numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from onnxprune.dims import Atom, Dim, kept_size
from onnxprune.graph import branches, captured
from onnxprune.ops import find_evaluator, find_shape_rule
from onnxprune.ops.base import Array, key_of
from onnxprune.ops.evaluate import by_reference, constant_tensor, shape_of

# Larger arrays are data, not shape arithmetic.
MAX_KNOWN = 65_536
_MAX_KNOWN_WEIGHT = 4_096
_MAX_SCALES = 16

# Unequal primes, so that two dynamic axes never meet by accident of equal size.
_PRIMES = ((7, 11, 13, 17, 19, 23, 29, 31), (5, 3, 37, 41, 43, 47, 53, 59))
_DATA_SIZES = (1_009, 1_000_003)
_IMAGE_SIDES = ((224, 160, 96), (192, 256, 320))

Shape = tuple[int, ...]
Observe = Callable[[ir.Model, list[str], dict[str, int]], dict[str, tuple[Shape, ir.DataType]]]


@dataclass
class Shapes:
    """What is known of the values of a model, by name.

    Attributes:
        shapes: concrete shapes, dynamic axes at the sizes of `bindings`; values without an entry are unknown.
        dtypes: element types.
        known: small values that follow from constants and static shapes.
        dynamic: (value, axis) pairs whose size differs from run to run.
        bindings: the size given to each dynamic axis of the graph inputs, by its symbol.
        failures: nodes whose types onnx could not infer, with the reason.
        invented: values with a size that depends on data and was made up (the count of non-zero entries, say).
        observed: values whose shape was seen in a trial run, and what follows from them: not to be folded.
    """

    shapes: dict[str, Shape] = field(default_factory=dict)
    dtypes: dict[str, ir.DataType] = field(default_factory=dict)
    known: dict[str, Array] = field(default_factory=dict)
    dynamic: set[tuple[str, int]] = field(default_factory=set)
    bindings: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    invented: set[str] = field(default_factory=set)
    observed: set[str] = field(default_factory=set)


def infer(model: ir.Model, observe: Observe | None = None) -> Shapes:
    """Shapes and known values of a model.

    Args:
        model: the model; local functions are to be inlined before (see passes.canonicalize).
        observe: where an operator without a schema hides its shapes, called with the model, the names of the values in
            question and the bindings, to see them in a trial run. It may come back empty: then what the file itself
            declares is taken. Not asked where sizes depend on data: what one run shows would not hold for another.
    """
    first, second = _two_passes(model)
    questions = _unknown(model, first)
    if questions and not first.invented:
        look: Observe = observe or _declared
        seen = look(model, questions, first.bindings) or _declared(model, questions, first.bindings)
        again = seen
        if second.bindings != first.bindings:
            again = look(model, questions, second.bindings) or _declared(model, questions, second.bindings)
        if seen and again:
            first, second = forward(model, first.bindings, 0, seen), forward(model, second.bindings, 1, again)
    return first if first is second else _merge(first, second)


def _declared(model: ir.Model, names: list[str], bindings: dict[str, int]) -> dict[str, tuple[Shape, ir.DataType]]:
    """The shapes that the file states beside the named values, where all their symbols are those of inputs."""
    wanted = set(names)
    found: dict[str, tuple[Shape, ir.DataType]] = {}
    for value in (value for node in model.graph for value in node.outputs):
        if value.name not in wanted or value.shape is None or value.dtype is None:
            continue
        sizes = [size if isinstance(size, int) else bindings.get(size.value or "") for size in value.shape]
        if None not in sizes:
            found[value.name or ""] = tuple(size for size in sizes if size is not None), value.dtype
    return found


def _two_passes(model: ir.Model) -> tuple[Shapes, Shapes]:
    """The same pass twice where nothing varies."""
    symbols = _symbols(model)
    if not symbols:
        found = forward(model, {})
        return found, forward(model, {}, turn=1) if found.invented else found
    best: tuple[Shapes, Shapes] | None = None
    for first, second in _candidates(symbols):
        pair = forward(model, first), forward(model, second, turn=1)
        if best is None or _troubles(pair) < _troubles(best):
            best = pair
        if not _troubles(pair):
            break
    assert best is not None
    return best


def _unknown(model: ir.Model, found: Shapes) -> list[str]:
    names = [value.name for node in model.graph for value in node.outputs if value.name]
    return [name for name in names if name not in found.shapes]


def _troubles(pair: tuple[Shapes, Shapes]) -> int:
    return sum(len(shapes.failures) for shapes in pair)


def _symbols(model: ir.Model) -> dict[str, tuple[int, int, bool]]:
    """Each dynamic axis of the graph inputs by its symbol: (axis, rank, is floating point)."""
    symbols: dict[str, tuple[int, int, bool]] = {}
    for value in model.graph.inputs:
        if value.name in model.graph.initializers or value.shape is None:
            continue
        floating = value.dtype is not None and value.dtype.is_floating_point()
        for axis, size in enumerate(value.shape):
            if not isinstance(size, int):
                symbols.setdefault(symbol_of(value, axis), (axis, len(value.shape), floating))
    return symbols


def symbol_of(value: ir.Value, axis: int) -> str:
    """The name of a dynamic axis of a graph input: axes that share one share their size."""
    assert value.shape is not None
    size = value.shape[axis]
    return getattr(size, "value", None) or f"{value.name}[{axis}]"


def _candidates(symbols: dict[str, tuple[int, int, bool]]) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """Pairs of bindings to try: primes; one batch size for all inputs; sizes with many divisors, for windows."""
    for divisible, one_batch in ((False, False), (False, True), (True, False), (True, True)):
        pair: tuple[dict[str, int], dict[str, int]] = ({}, {})
        for turn, bindings in enumerate(pair):
            for index, (symbol, (axis, rank, floating)) in enumerate(symbols.items()):
                prime = _PRIMES[turn][0 if one_batch and axis == 0 else index % len(_PRIMES[turn])]
                if floating and rank >= 4 and axis >= 1:
                    bindings[symbol] = _IMAGE_SIDES[turn][(axis + index) % 3]
                elif floating and axis == rank - 1 and axis >= 1:
                    bindings[symbol] = 400 * prime
                else:
                    bindings[symbol] = prime * 16 if divisible and axis else prime
        yield pair


def _merge(first: Shapes, second: Shapes) -> Shapes:
    """Keep the first pass; drop what the second one contradicts."""
    for name in set(first.shapes) - set(second.shapes):
        del first.shapes[name]
    for name, shape in first.shapes.items():
        other = second.shapes[name]
        if len(shape) != len(other):
            first.dynamic.update((name, axis) for axis in range(len(shape)))
        else:
            first.dynamic.update((name, axis) for axis, size in enumerate(shape) if size != other[axis])
    first.known = {
        name: array
        for name, array in first.known.items()
        if name in second.known and name not in first.observed and np.array_equal(array, second.known[name])
    }
    first.failures.update(second.failures)
    return first


def forward(
    model: ir.Model,
    bindings: dict[str, int],
    turn: int = 0,
    seen: Mapping[str, tuple[Shape, ir.DataType]] | None = None,
) -> Shapes:
    """One pass in graph order with the given sizes of dynamic axes.

    Sizes that depend on data are those `seen` in a trial run, or made up, others in each `turn`.
    """
    found = Shapes(bindings=bindings)
    types: dict[str, onnx.TypeProto] = {}
    for value in model.graph.inputs:
        if value.shape is not None and value.dtype is not None and value.name is not None:
            sizes = [
                size if isinstance(size, int) else bindings[symbol_of(value, axis)]
                for axis, size in enumerate(value.shape)
            ]
            _record(found, types, value.name, tuple(sizes), value.dtype)
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.name is not None:
            _record_constant(found, types, value.name, value.const_value)
    _visit(model.graph, found, types, dict(model.graph.opset_imports), turn, seen)
    return found


def _visit(
    nodes: Iterable[ir.Node],
    found: Shapes,
    types: dict[str, onnx.TypeProto],
    opsets: dict[str, int],
    turn: int,
    seen: Mapping[str, tuple[Shape, ir.DataType]] | None,
) -> None:
    """Every node in order, the branches inside one before it."""
    for node in nodes:
        for body in branches(node):
            _visit(body, found, types, opsets, turn, seen)
        constant = constant_tensor(node)
        if constant is not None:
            _record_constant(found, types, node.outputs[0].name or "", constant)
        elif not _evaluate(node, found, types, opsets):
            _infer_node(node, found, types, opsets, turn)
        if seen is not None:
            _take_seen(node, found, types, seen)


def _is_shape_like(tensor: ir.TensorProtocol) -> bool:
    """Constants worth computing with: integers, booleans and scalars; float vectors are weights."""
    if tensor.dtype == ir.DataType.STRING:
        return False
    return tensor.size <= 1 or (tensor.size <= _MAX_KNOWN_WEIGHT and not tensor.dtype.is_floating_point())


def _take_seen(
    node: ir.Node, found: Shapes, types: dict[str, onnx.TypeProto], seen: Mapping[str, tuple[Shape, ir.DataType]]
) -> None:
    """Use what a trial run showed; everything computed from it is marked, since another run may show something else."""
    follows = any(value is not None and value.name in found.observed for value in node.inputs)
    for value in node.outputs:
        if value.name and value.name in seen:
            _record(found, types, value.name, *seen[value.name])
            follows = True
    if follows:
        found.observed.update(value.name for value in node.outputs if value.name)


def _record_constant(found: Shapes, types: dict[str, onnx.TypeProto], name: str, tensor: ir.TensorProtocol) -> None:
    _record(found, types, name, tuple(tensor.shape.numpy()), tensor.dtype)
    if _is_shape_like(tensor):
        found.known[name] = tensor.numpy()


def _record(found: Shapes, types: dict[str, onnx.TypeProto], name: str, shape: Shape, dtype: ir.DataType) -> None:
    found.shapes[name] = shape
    found.dtypes[name] = dtype
    types[name] = onnx.helper.make_tensor_type_proto(dtype.value, shape)


def _evaluate(node: ir.Node, found: Shapes, types: dict[str, onnx.TypeProto], opsets: dict[str, int]) -> bool:
    """Compute the node if all its inputs are known and small; True when that was done."""
    if not node.outputs:
        return False
    first = node.inputs[0] if node.inputs else None
    if first is not None and first.name in found.shapes:
        sizes = shape_of(node, found.shapes[first.name])
        if sizes is not None:
            return _know(node, [sizes], found, types)
    arrays = [None if value is None else found.known.get(value.name or "") for value in node.inputs]
    if any(array is None and value is not None for array, value in zip(arrays, node.inputs, strict=True)):
        return False
    results = compute(node, arrays, opsets)
    return results is not None and _know(node, results, found, types)


def compute(node: ir.Node, arrays: list[Array | None], opsets: dict[str, int]) -> list[Array] | None:
    """The outputs of a node on small arrays; None when it cannot be computed (control flow, random, no code)."""
    if sum(array.size for array in arrays if array is not None) > MAX_KNOWN or node.op_type in _NOT_COMPUTED:
        return None
    evaluate = find_evaluator(key_of(node))
    try:
        with np.errstate(all="ignore"):
            if evaluate is not None and len(node.outputs) == 1:
                while arrays and arrays[-1] is None:
                    arrays.pop()
                return [np.asarray(evaluate(node, *arrays))]
            return by_reference(node, arrays, opsets)
    except Exception:
        return None  # not computable is not an error: the node keeps its place in the graph


_NOT_COMPUTED = frozenset(
    (
        *("If", "Loop", "Scan", "Multinomial", "Bernoulli"),
        *(
            "QuantizeLinear",
            "DequantizeLinear",
            "DynamicQuantizeLinear",
        ),  # that would undo the quantization of a weight
        *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"),
    )
)


def _know(node: ir.Node, arrays: list[Array], found: Shapes, types: dict[str, onnx.TypeProto]) -> bool:
    if any(array.size > MAX_KNOWN for array in arrays):
        return False
    for value, array in zip(node.outputs, arrays, strict=False):
        if value.name:
            _record(found, types, value.name, array.shape, ir.DataType.from_numpy(array.dtype))
            found.known[value.name] = array
    return True


def _infer_node(
    node: ir.Node, found: Shapes, types: dict[str, onnx.TypeProto], opsets: dict[str, int], turn: int
) -> None:
    """Ask onnx for the types of one node's outputs."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    read = [value for value in (*node.inputs, *captured(node)) if value is not None]
    if any(value.name not in types for value in read):
        return
    schema = _schema(domain, node.op_type, opsets.get(domain, opsets.get("", 1)))
    if schema is None:
        _infer_by_table(node, found, types)
        return
    inputs = {value.name or "": types[value.name or ""] for value in read}
    contents = {value.name or "": _content(value, found) for value in read}
    data = {name: onnx.numpy_helper.from_array(array, name) for name, array in contents.items() if array is not None}
    imports = [onnx.helper.make_opsetid(name, version) for name, version in opsets.items()]
    try:
        outputs = onnx.shape_inference.infer_node_outputs(
            schema, ir.serde.serialize_node(node), inputs, data, opset_imports=imports
        )
    except Exception as error:
        found.failures[node.name or node.op_type] = str(error).strip().splitlines()[0]
        return
    for name, proto in outputs.items():
        if name:
            _record_type(found, types, name, proto, turn)


def _schema(domain: str, op_type: str, version: int) -> onnx.defs.OpSchema | None:
    """What onnx knows of an operator; None for one of another domain, or without type inference of its own."""
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    return schema if schema.has_type_and_shape_inference_function else None


def _content(value: ir.Value, found: Shapes) -> Array | None:
    """What onnx may look at to tell shapes: what is known, and short float constants (the scales of a Resize)."""
    if value.name in found.known:
        return found.known[value.name]
    producer = value.producer()
    tensor = value.const_value if producer is None else constant_tensor(producer)
    fits = tensor is not None and tensor.dtype.is_floating_point() and tensor.size <= _MAX_SCALES
    return tensor.numpy() if tensor is not None and fits else None


def _infer_by_table(node: ir.Node, found: Shapes, types: dict[str, onnx.TypeProto]) -> None:
    """Use the shape rule that lies beside the operator's axis rule, if it has one."""
    rule = find_shape_rule(key_of(node))
    if rule is None:
        return
    names = [None if value is None else value.name for value in node.inputs]
    if any(name and name not in found.shapes for name in names):
        return
    try:
        outputs = rule(node, [(found.shapes[name], found.dtypes[name]) if name else None for name in names])
    except (IndexError, TypeError, ValueError, ZeroDivisionError) as error:  # a form that the rule did not foresee
        found.failures[node.name or node.op_type] = f"its shape rule does not fit this form of it ({error})"
        return
    for value, known in zip(node.outputs, outputs, strict=False):
        if value.name and known is not None:
            _record(found, types, value.name, *known)


def _record_type(found: Shapes, types: dict[str, onnx.TypeProto], name: str, proto: onnx.TypeProto, turn: int) -> None:
    tensor = proto.tensor_type
    if not tensor.HasField("shape"):
        return
    for dim in tensor.shape.dim:
        if not dim.HasField("dim_value"):  # known only in a run: any size of its own will do, another one each turn
            dim.dim_value = _DATA_SIZES[turn] + 2 * len(found.invented)
            found.invented.add(name)
    types[name] = proto
    found.shapes[name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    found.dtypes[name] = ir.DataType(tensor.elem_type)


class SizeArithmetic:
    """What the size arithmetic left in a graph will compute once sizes have changed.

    Evaluates values that follow from constants and from Shape of tensors whose axes are `dims` with `kept` units left.
    """

    def __init__(self, model: ir.Model, dims: Mapping[str, Sequence[Dim]], kept: Mapping[Atom, int]) -> None:
        self._dims = dims
        self._kept = kept
        self._opsets = dict(model.graph.opset_imports)
        self._values: dict[ir.Value, Array | None] = {}

    def value(self, value: ir.Value) -> Array | None:
        """The array, or None when the value depends on data."""
        if value not in self._values:
            self._values[value] = self._compute(value)
        return self._values[value]

    def sources(self, value: ir.Value) -> Iterator[ir.Value]:
        """The tensors whose sizes enter a value."""
        node = value.producer()
        if node is None:
            return
        first = node.inputs[0] if node.inputs else None
        if first is not None and shape_of(node, (1,)) is not None:
            yield first
            return
        for given in node.inputs:
            if given is not None:
                yield from self.sources(given)

    def _compute(self, value: ir.Value) -> Array | None:
        node = value.producer()
        if node is None:
            tensor = value.const_value
            return tensor.numpy() if tensor is not None and _is_shape_like(tensor) else None
        first = node.inputs[0] if node.inputs else None
        if first is not None and first.name and first.name in self._dims:
            sizes = shape_of(node, tuple(kept_size(dim, self._kept) for dim in self._dims[first.name]))
            if sizes is not None:
                return sizes
        arrays = [None if given is None else self.value(given) for given in node.inputs]
        if not arrays or any(
            array is None and given is not None for array, given in zip(arrays, node.inputs, strict=True)
        ):
            return None
        results = compute(node, arrays, self._opsets)
        return None if results is None else results[node.outputs.index(value)]
