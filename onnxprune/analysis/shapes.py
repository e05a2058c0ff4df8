"""The concrete shape of every value, and every small value that follows from shapes alone.

One forward pass: small constants and shape arithmetic are computed in numpy, every other node asks onnx for the types
of its outputs. Dynamic axes are bound to sizes and the pass is made several times, with different ones, 1 and odd ones
among them: what differs varies at run time; what comes out the same is static where analysis.certainty says that this
is not an accident. So the rest of the tool only ever sees numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.certainty import doubtful
from onnxprune.analysis.dynamic_axes import candidates, rounds_of_further, symbol_of, symbols_of
from onnxprune.analysis.input_sizes import agree, misfits, troubles
from onnxprune.analysis.shape_inference import Inference, Shape, Shapes
from onnxprune.model.graph import subgraphs
from onnxprune.ops.control_flow import Ports, loop_ports
from onnxprune.ops.evaluate import constant_tensor

# One pass at some sizes of dynamic axes: bindings, the turn, and what was seen in a trial run.
Pass = Callable[..., Shapes]
Observe = Callable[[ir.Model, list[str], dict[str, int]], dict[str, tuple[Shape, ir.DataType]]]


def infer(model: ir.Model, observe: Observe | None = None, sizes: Mapping[str, int] = {}) -> Shapes:
    """Shapes and known values of a model.

    Args:
        model: the model; local functions are to be inlined before (see passes.canonicalize).
        observe: where an operator without a schema hides its shapes, called with the model, the names of the values in
            question and the bindings, to see them in a trial run. It may come back empty: then what the file itself
            declares is taken. Not asked where sizes depend on data: what one run shows would not hold for another.
        sizes: of dynamic axes, where somebody wants certain ones.
    """
    at: Pass = partial(forward, model, settled=Settled(model))
    first, second = _two_passes(model, sizes, at)
    questions = _unknown(model, first)
    if questions and not first.invented:
        look: Observe = observe or _declared
        seen = look(model, questions, first.bindings) or _declared(model, questions, first.bindings)
        again = seen
        if second.bindings != first.bindings:
            again = look(model, questions, second.bindings) or _declared(model, questions, second.bindings)
        if seen and again:
            first, second = at(first.bindings, 0, seen), at(second.bindings, 1, again)
    return first if first is second else _merge(model, first, second, _further(model, (first, second), at))


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


def _two_passes(model: ir.Model, sizes: Mapping[str, int], at: Pass) -> tuple[Shapes, Shapes]:
    """The same pass twice where nothing varies."""
    symbols = symbols_of(model)
    if not symbols:
        found = at({}, 0)
        return found, at({}, 1) if found.invented else found
    best, least = None, 0
    for first, second in candidates(symbols, sizes):
        pair = at(first, 0), at(second, 1)
        if not any(misfits(model, each) for each in pair):
            return pair
        wrong = sum(troubles(model, each) for each in pair)
        if best is None or wrong < least:
            best, least = pair, wrong
    assert best is not None
    agreed = agree(
        model,
        best[0].bindings,
        fixed={symbol for symbol in sizes if symbol in symbols},
        infer=lambda bindings: at(bindings, 0),
    )
    first, second = (agreed.applied(each.bindings, turn) for turn, each in enumerate(best))
    pair = at(first, 0), at(second, 1)
    return pair if sum(troubles(model, each) for each in pair) < least else best


def _unknown(model: ir.Model, found: Shapes) -> list[str]:
    names = [value.name for node in model.graph for value in node.outputs if value.name]
    return [name for name in names if name not in found.shapes]


def _further(model: ir.Model, pair: tuple[Shapes, Shapes], at: Pass) -> list[Shapes]:
    """Passes at other sizes, as far as the model takes them."""
    found = []
    for round_ in rounds_of_further(symbols_of(model), pair[0].bindings):
        for turn, bindings in enumerate(round_):
            further = at(bindings, turn % 2)
            if set(further.failures) <= set(pair[0].failures):
                found.append(further)
                break
    return found


def _merge(model: ir.Model, first: Shapes, second: Shapes, further: list[Shapes]) -> Shapes:
    """Keep the first pass; drop what another one contradicts, and what agrees by accident."""
    doubted, sized = doubtful(model, [first, second, *further])
    for name in set(first.shapes) - set(second.shapes):
        del first.shapes[name]
    first.dynamic.update((name, axis) for name, axis in sized if name in first.shapes)
    for name, shape in first.shapes.items():
        if len(shape) != len(second.shapes[name]):
            first.dynamic.update((name, axis) for axis in range(len(shape)))
        for other in (found.shapes.get(name, ()) for found in (second, *further)):
            if len(other) == len(shape):
                first.dynamic.update((name, axis) for axis, size in enumerate(shape) if size != other[axis])
    first.known = {
        name: array
        for name, array in first.known.items()
        if name in second.known and name not in first.observed and name not in doubted
        if all(np.array_equal(array, found.known[name]) for found in (second, *further) if name in found.known)
    }
    first.failures.update(second.failures)
    return first


class Settled:
    """Values that are the same in every pass: constants, and what is computed from nothing else."""

    def __init__(self, model: ir.Model) -> None:
        inference = Inference(Shapes(), dict(model.graph.opset_imports), 0)
        for value in model.graph.initializers.values():
            if value.const_value is not None and value.name is not None:
                inference.record_constant(value.name, value.const_value)
        self.nodes: set[ir.Node] = set()
        for node in model.graph:
            constant = constant_tensor(node)
            if constant is not None:
                inference.record_constant(node.outputs[0].name or "", constant)
                self.nodes.add(node)
            elif node.inputs and _all_known(node, inference.found) and inference.evaluate(node):
                self.nodes.add(node)
        self._inference = inference

    def inference(self, bindings: dict[str, int], turn: int) -> Inference:
        """An inference that knows it already."""
        found = self._inference.found
        shapes = Shapes(dict(found.shapes), dict(found.dtypes), dict(found.known), bindings=bindings)
        inference = Inference(shapes, self._inference.opsets, turn)
        inference.types = dict(self._inference.types)
        return inference


def _all_known(node: ir.Node, found: Shapes) -> bool:
    return all(value is None or value.name in found.known for value in node.inputs)


def forward(
    model: ir.Model,
    bindings: dict[str, int],
    turn: int = 0,
    seen: Mapping[str, tuple[Shape, ir.DataType]] | None = None,
    settled: Settled | None = None,
) -> Shapes:
    """One pass in graph order with the given sizes of dynamic axes.

    Sizes that depend on data are those `seen` in a trial run, or made up, others in each `turn`. What is `settled` is
    found out here where no other pass has done it.
    """
    settled = settled or Settled(model)
    inference = settled.inference(bindings, turn)
    for value in model.graph.inputs:
        if value.shape is not None and value.dtype is not None and value.name is not None:
            sizes = [
                size if isinstance(size, int) else bindings[symbol_of(value, axis)]
                for axis, size in enumerate(value.shape)
            ]
            inference.record(value.name, tuple(sizes), value.dtype)
    _visit((node for node in model.graph if node not in settled.nodes), inference, seen)
    return inference.found


def _visit(
    nodes: Iterable[ir.Node], inference: Inference, seen: Mapping[str, tuple[Shape, ir.DataType]] | None
) -> None:
    """Every node in order, the bodies inside one before it."""
    for node in nodes:
        tied = loop_ports(node)
        if tied is not None:
            _enter(node, tied, inference)
        for body in subgraphs(node):
            _visit(body, inference, seen)
        constant = constant_tensor(node)
        if constant is not None:
            inference.record_constant(node.outputs[0].name or "", constant)
        elif tied is not None:
            _leave(node, tied, inference)
        elif not inference.evaluate(node):
            inference.infer(node)
        if seen is not None:
            _take_seen(node, inference, seen)


def _enter(node: ir.Node, tied: Ports, inference: Inference) -> None:
    """The inputs of a body that is run again and again, in the first step."""
    body, found = next(subgraphs(node)).inputs, inference.found
    for value in body[:2] if not tied.slices else ():  # the count and the condition of a Loop, where they are declared
        if value.shape is not None and value.dtype is not None and value.shape.is_static():
            inference.record(value.name or "", tuple(value.shape.numpy()), value.dtype)
    first = [(x, None, inside) for x, inside, _, _ in tied.states]
    for x, axis, inside in (*first, *tied.slices):
        name = getattr(node.inputs[x], "name", None)
        if name in found.shapes:
            shape = list(found.shapes[name])
            if axis is not None:
                del shape[axis]
            inference.record(body[inside].name or "", tuple(shape), found.dtypes[name])


def _leave(node: ir.Node, tied: Ports, inference: Inference) -> None:
    """The outputs, if a step leaves every state in the shape that it had; else nothing inside is known."""
    body, found = next(subgraphs(node)), inference.found
    names = [value.name or "" for value in body.outputs]
    before = [found.shapes.get(body.inputs[inside].name or "") for _, inside, _, _ in tied.states]
    after = [found.shapes.get(names[result]) for _, _, result, _ in tied.states]
    along = [found.shapes.get(getattr(node.inputs[x], "name", "")) for x, _, _ in tied.slices]
    if before != after or None in before or None in along:
        _forget(body, inference)
        return
    steps = [shape[axis] for shape, (_, axis, _) in zip(along, tied.slices, strict=True) if shape is not None]
    made = [(result, y, None) for _, _, result, y in tied.states]
    for result, y, axis in (*made, *tied.stacks):
        name = node.outputs[y].name
        if name and names[result] in found.shapes:
            shape = list(found.shapes[names[result]])
            if axis is not None:
                shape.insert(axis % (len(shape) + 1), steps[0] if steps else inference.fresh_size(name))
            inference.record(name, tuple(shape), found.dtypes[names[result]])


def _forget(body: ir.Graph, inference: Inference) -> None:
    """Facts that the first step shows of a body do not hold for the next."""
    inner = (value for each in ir.traversal.RecursiveGraphIterator(body) for value in each.outputs)
    for value in (*body.inputs, *inner):
        for table in (inference.found.shapes, inference.found.known, inference.types):
            table.pop(value.name or "", None)


def _take_seen(node: ir.Node, inference: Inference, seen: Mapping[str, tuple[Shape, ir.DataType]]) -> None:
    """Use what a trial run showed; everything computed from it is marked, since another run may show something else."""
    found = inference.found
    follows = any(value is not None and value.name in found.observed for value in node.inputs)
    for value in node.outputs:
        if value.name and value.name in seen:
            inference.record(value.name, *seen[value.name])
            follows = True
    if follows:
        found.observed.update(value.name for value in node.outputs if value.name)
