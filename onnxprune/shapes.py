"""The concrete shape of every value, and every small value that follows from shapes alone.

One forward pass: small constants and shape arithmetic are computed in numpy, every other node asks onnx for the types
of its outputs. Dynamic axes are bound to sizes and the pass is made twice, with different ones: what comes out the same
is static, what differs varies at run time. So the rest of the tool only ever sees numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx
import onnx_ir as ir

from onnxprune.arithmetic import MAX_KNOWN, compute, is_shape_like
from onnxprune.bindings import candidates, symbol_of, symbols_of
from onnxprune.graph import captured, subgraphs
from onnxprune.ops import find_shape_rule
from onnxprune.ops.base import Array, key_of
from onnxprune.ops.control_flow import Ports, ports
from onnxprune.ops.evaluate import constant_tensor, shape_of

_MAX_SCALES = 16
_MAX_SIZES = 8

# Some input of theirs says how large the output is.
_SIZED_BY_CONTENT = frozenset(
    ("Reshape", "Expand", "ConstantOfShape", "Tile", "Range", "Slice", "Pad", "OneHot", "TopK", "Resize", "Upsample")
)

# A large one and a small one, so that the smaller of such a size and a constant is seen to vary.
_DATA_SIZES = (1_009, 3)

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
    symbols = symbols_of(model)
    if not symbols:
        found = forward(model, {})
        return found, forward(model, {}, turn=1) if found.invented else found
    best: tuple[Shapes, Shapes] | None = None
    for first, second in candidates(symbols):
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
    """Every node in order, the bodies inside one before it."""
    for node in nodes:
        tied = ports(node)
        if tied is not None:
            _enter(node, tied, found, types)
        for body in subgraphs(node):
            _visit(body, found, types, opsets, turn, seen)
        constant = constant_tensor(node)
        if constant is not None:
            _record_constant(found, types, node.outputs[0].name or "", constant)
        elif tied is not None:
            _leave(node, tied, found, types, turn)
        elif not _evaluate(node, found, types, opsets):
            _infer_node(node, found, types, opsets, turn)
        if seen is not None:
            _take_seen(node, found, types, seen)


def _enter(node: ir.Node, tied: Ports, found: Shapes, types: dict[str, onnx.TypeProto]) -> None:
    """What a body that is run again and again reads in the first step."""
    body = next(subgraphs(node)).inputs
    for value in body[:2] if not tied.slices else ():  # the count and the condition of a Loop, where they are declared
        if value.shape is not None and value.dtype is not None and value.shape.is_static():
            _record(found, types, value.name or "", tuple(value.shape.numpy()), value.dtype)
    starts = [(x, inside, -1) for x, inside, _, _ in tied.states] + [
        (x, inside, axis) for x, axis, inside in tied.slices
    ]
    for x, inside, axis in starts:
        given = node.inputs[x]
        if given is None or given.name not in found.shapes:
            continue
        shape = found.shapes[given.name]
        if (x, axis, inside) in tied.slices:
            shape = tuple(size for i, size in enumerate(shape) if i != axis % len(shape))
        _record(found, types, body[inside].name or "", shape, found.dtypes[given.name])


def _leave(node: ir.Node, tied: Ports, found: Shapes, types: dict[str, onnx.TypeProto], turn: int) -> None:
    """What comes out, if a step leaves every state in the shape that it had; else nothing inside is known."""
    body = next(subgraphs(node))
    names = [value.name or "" for value in body.outputs]
    kept = [(body.inputs[inside].name or "", names[result]) for _, inside, result, _ in tied.states]
    if any(before not in found.shapes or found.shapes[before] != found.shapes.get(after) for before, after in kept):
        inner = (value for each in ir.traversal.RecursiveGraphIterator(body) for value in each.outputs)
        for value in (*body.inputs, *inner):
            for table in (found.shapes, found.known, types):
                table.pop(value.name or "", None)
        return
    for _, _, result, y in tied.states:
        _record(found, types, node.outputs[y].name or "", found.shapes[names[result]], found.dtypes[names[result]])
    steps = [found.shapes[node.inputs[x].name or ""][axis] for x, axis, _ in tied.slices]  # type: ignore[union-attr]
    for result, y, axis in tied.stacks:
        if names[result] not in found.shapes or not node.outputs[y].name:
            continue
        shape = list(found.shapes[names[result]])
        if not steps:
            found.invented.add(node.outputs[y].name or "")
        size = steps[0] if steps else _DATA_SIZES[turn] + 2 * len(found.invented)
        shape.insert(axis % (len(shape) + 1), size)
        _record(found, types, node.outputs[y].name or "", tuple(shape), found.dtypes[names[result]])


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
    if is_shape_like(tensor):
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
    if results is None or not _know(node, results, found, types):
        return False
    if any(value is not None and value.name in found.observed for value in node.inputs):
        found.observed.update(value.name for value in node.outputs if value.name)
    return True


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
    contents = _contents(node, read, found, types, opsets, turn)
    certain = {name: array for name, array in contents.items() if name not in found.observed}
    try:
        outputs = _ask_onnx(schema, node, inputs, contents, opsets)
    except Exception as error:
        try:  # a size that was made up may not fit: more of the largest entries than there are, say
            outputs = _ask_onnx(schema, node, inputs, certain, opsets)
        except Exception:
            found.failures[node.name or node.op_type] = str(error).strip().splitlines()[0]
            return
    for name, proto in outputs.items():
        if name:
            _record_type(found, types, name, proto, turn)


def _ask_onnx(
    schema: onnx.defs.OpSchema,
    node: ir.Node,
    inputs: dict[str, onnx.TypeProto],
    contents: dict[str, Array | None],
    opsets: dict[str, int],
) -> dict[str, onnx.TypeProto]:
    """The types of a node's outputs. Raises one of several exceptions where inputs do not fit."""
    data = {name: onnx.numpy_helper.from_array(array, name) for name, array in contents.items() if array is not None}
    imports = [onnx.helper.make_opsetid(name, version) for name, version in opsets.items()]
    return onnx.shape_inference.infer_node_outputs(schema, _as_run(node, contents), inputs, data, opset_imports=imports)


def _as_run(node: ir.Node, contents: dict[str, Array | None]) -> onnx.NodeProto:
    """The node as ONNX Runtime understands it: sequences of single entries lose the axis, contrary to onnx's word."""
    proto = ir.serde.serialize_node(node)
    if node.op_type == "SplitToSequence" and len(proto.input) > 1:
        size = contents.get(proto.input[1])
        if size is not None and size.shape == () and size == 1:
            del proto.input[1:]
    return proto


def _schema(domain: str, op_type: str, version: int) -> onnx.defs.OpSchema | None:
    """What onnx knows of an operator; None for one of another domain, or without type inference of its own."""
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    return schema if schema.has_type_and_shape_inference_function else None


def _contents(
    node: ir.Node,
    read: list[ir.Value],
    found: Shapes,
    types: dict[str, onnx.TypeProto],
    opsets: dict[str, int],
    turn: int,
) -> dict[str, Array | None]:
    """What onnx may look at to tell shapes; sizes that are computed from data are made up where the node needs them."""
    sized = node.op_type in _SIZED_BY_CONTENT and node.domain in ("", "ai.onnx")
    for value in node.inputs if sized else ():
        if value is not None and _is_size_like(value, found):
            _make_up(value, found, types, opsets, turn)
    contents = {value.name or "": _content(value, found) for value in read}
    if node.op_type == "Slice" and any(name in found.observed for name in contents):
        starts_and_ends = [value.name or "" for value in node.inputs[1:3] if value is not None]
        longest = max(found.shapes[node.inputs[0].name or ""], default=0)  # type: ignore[union-attr]
        if any(bound is not None and (abs(bound) > longest).any() for bound in map(contents.get, starts_and_ends)):
            contents.update(dict.fromkeys(starts_and_ends))  # a bound beyond the end would look like none
    return contents


def _is_size_like(value: ir.Value, found: Shapes) -> bool:
    """Whole numbers, and few of them."""
    name = value.name or ""
    whole = name in found.dtypes and found.dtypes[name].is_integer()
    return whole and len(found.shapes[name]) < 2 and prod(found.shapes[name]) <= _MAX_SIZES


def _make_up(
    value: ir.Value, found: Shapes, types: dict[str, onnx.TypeProto], opsets: dict[str, int], turn: int
) -> None:
    """Know a value that depends on data: computed from others made up where it is arithmetic on such, else any number.

    So a size keeps its number wherever it is used; it is another one in each turn, and marked so as not to be folded.
    """
    name, node = value.name or "", value.producer()
    if name in found.known:
        return
    if node is not None and all(given is None or _is_size_like(given, found) for given in node.inputs):
        for given in filter(None, node.inputs):
            _make_up(given, found, types, opsets, turn)
        if _evaluate(node, found, types, opsets):
            found.observed.add(name)
            return
    found.known[name] = np.zeros(found.shapes[name], found.dtypes[name].numpy())
    for place in np.ndindex(found.shapes[name]):
        found.known[name][place] = _DATA_SIZES[turn] + 2 * len(found.invented)
        found.invented.add(f"{name}{list(place)}")
    found.observed.add(name)


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
    if proto.HasField("sequence_type"):  # no axes of its own, but what is taken out of it has some
        types[name] = proto
        return
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
