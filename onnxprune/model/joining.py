"""Two models as one, where an input of the second takes an output of the first; and the two of one again.

Between the two the value is an inner one like any other, so an encoder and a decoder in files of their own can be
worked on together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import onnx_ir.passes.common as common

from onnxprune.errors import UsageError
from onnxprune.model.file import Given, as_model, estimated_bytes, name_of
from onnxprune.model.graph import remove_dead
from onnxprune.support.messages import did_you_mean


@dataclass(frozen=True)
class Side:
    """The inputs and outputs of one of two models, by their names in the joined model, with those in its own file.

    Attributes:
        name: of the file.
        inputs: input by input: the name in the joined model, and its own.
        outputs: likewise.
        shapes: of inputs and outputs, by their names in the joined model, as its file declares them.
    """

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    shapes: Mapping[str, Sequence[int | ir.SymbolicDim]]


@dataclass(frozen=True)
class Joined:
    """Two models as one.

    Attributes:
        model: both; its inputs are those of the first, then those of the second that nothing in the first gives.
        first, second: the two.
    """

    model: ir.Model
    first: Side
    second: Side

    @property
    def tied(self) -> list[str]:
        """The values that both sides see, by their names in the joined model."""
        given = {*self.first.inputs, *self.first.outputs}
        return [name for name in self.second.inputs if name in given]


def join(first: Given, second: Given, ties: Mapping[str, str]) -> Joined:
    """Both models as one; neither is changed.

    Args:
        first: the model that runs first.
        second: the model that takes what it gives.
        ties: inputs of the second, by the outputs (or inputs) of the first that go into them.

    Names of the second that the first has, too, get the name of its file in front: `decoder.input_ids`. Raises
    UsageError for names that are not there, values that differ in type or rank, and models of different opsets.
    """
    one, two = as_model(first), as_model(second)
    stems = _stems(first, second)
    for model in (one, two):
        common.InlinePass()(model)
    _check_versions(one, two)
    ties_found = _pairs(one, two, ties)
    entries, ends = ([*graph] for graph in (_entries(two), two.graph.outputs))
    given, made = ([*graph] for graph in (_entries(one), one.graph.outputs))
    own = {value: value.name or "" for value in (*given, *made, *entries, *ends)}
    shapes = {value: tuple(value.shape or ()) for value in own}
    _rename_sizes(one, two, ties_found, stems[1])
    _rename(one, two, stems[1])
    tied = {right: left for left, right in ties_found}
    for right, left in tied.items():
        right.replace_all_uses_with(left)
    _take_over(one.graph, two.graph)
    one.graph.inputs.extend(value for value in entries if value not in tied)
    one.graph.outputs[:] = [*(value for value in made if value not in tied.values()), *ends]
    one.ir_version = max(one.ir_version, two.ir_version)
    notes = [*one.meta.get("notes", ()), *two.meta.get("notes", ())]
    one.meta.update(notes=notes, files=(), from_file=False, bytes=estimated_bytes(one))
    return Joined(one, _side(stems[0], given, made, own, shapes), _side(stems[1], entries, ends, own, shapes, tied))


def _side(
    stem: str,
    entries: Iterable[ir.Value],
    ends: Iterable[ir.Value],
    own: Mapping[ir.Value, str],
    shapes: Mapping[ir.Value, Sequence[int | ir.SymbolicDim]],
    tied: Mapping[ir.Value, ir.Value] = {},
) -> Side:
    """One of two models, after its values got their names in the joined one."""
    names = {value: tied.get(value, value).name or "" for value in (*entries, *ends)}
    return Side(
        stem,
        {names[value]: own[value] for value in entries},
        {names[value]: own[value] for value in ends},
        {name: shapes[value] for value, name in names.items()},
    )


def _entries(model: ir.Model) -> list[ir.Value]:
    """The inputs that have to be fed."""
    return [value for value in model.graph.inputs if not value.is_initializer()]


def _take_over(one: ir.Graph, two: ir.Graph) -> None:
    """Move nodes and weights of a graph into another one."""
    nodes, weights = list(two), list(two.initializers.values())
    two.inputs.clear()
    two.outputs.clear()
    two.initializers.clear()
    two.remove(nodes)
    one.extend(nodes)
    for value in weights:
        one.register_initializer(value)


def part_of(model: ir.Model, joined: Joined, side: Side, sizes: Mapping[str, Sequence[int]]) -> ir.Model:
    """One of the two models, with the names of its file, of what became of the joined model.

    Args:
        model: the joined model, changed inside; it stays as it is.
        joined: as it was made.
        side: which of the two.
        sizes: of the axes of the values that both see, as they are now.
    """
    copy = model.clone()
    values = {value.name: value for value in (*copy.graph.inputs, *(v for node in copy.graph for v in node.outputs))}
    graph, entries = copy.graph, []
    outputs = [values[name] for name in side.outputs]
    for name in side.inputs:
        value = values[name]
        if side is joined.second and name in joined.tied:
            entry = ir.Value(name=f"{name}/tied", type=value.type)
            value.replace_all_uses_with(entry)
            value = entry
        entries.append(value)
    graph.outputs[:] = outputs
    graph.inputs[:] = entries
    remove_dead(copy)
    for name, value in zip((*side.inputs, *side.outputs), (*entries, *outputs), strict=True):
        declared = side.shapes.get(name, ())
        if declared:
            kept = zip(declared, sizes.get(name, declared), strict=True)
            value.shape = ir.Shape([now if isinstance(size, int) else size for size, now in kept])
    _give_names(copy, dict(zip((*entries, *outputs), (*side.inputs.values(), *side.outputs.values()), strict=True)))
    copy.meta.update(external=joined.model.meta.get("external"))
    return copy


def _give_names(model: ir.Model, wanted: Mapping[ir.Value, str]) -> None:
    """Names for inputs and outputs; other values of these names get others."""
    taken = set(wanted.values())
    for value in _values(model):
        if value not in wanted and value.name in taken:
            value.name = f"{value.name}/inner"
    for value, name in wanted.items():
        value.name = name


def _values(model: ir.Model) -> Iterable[ir.Value]:
    """All values, those inside bodies included."""
    for graph in model.graphs():
        yield from graph.inputs
        yield from list(graph.initializers.values())
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        yield from node.outputs


def _stems(first: Given, second: Given) -> tuple[str, str]:
    names = [name_of(given).rpartition("/")[2].removesuffix(".onnx") for given in (first, second)]
    return (names[0], names[1]) if names[0] != names[1] else ("first", "second")


def _check_versions(one: ir.Model, two: ir.Model) -> None:
    for domain in one.opset_imports.keys() & two.opset_imports.keys():
        versions = one.opset_imports[domain], two.opset_imports[domain]
        if versions[0] != versions[1]:
            raise UsageError(
                f"the two models have opset {versions[0]} and {versions[1]} of '{domain or 'ai.onnx'}': bring them to "
                "one, with onnx.version_converter or by another export"
            )
    one.opset_imports.update(two.opset_imports)


def _pairs(one: ir.Model, two: ir.Model, ties: Mapping[str, str]) -> list[tuple[ir.Value, ir.Value]]:
    """The values that are tied: what the first has, and the input of the second."""
    if not ties:
        raise UsageError("say which output of the first model goes into which input of the second: --tie out=in")
    known = {value.name: value for value in (*one.graph.inputs, *one.graph.outputs)}
    entries = {value.name: value for value in _entries(two)}
    found = []
    for name, entry in ties.items():
        for each, names, said in ((name, known, "first model has no output"), (entry, entries, "second has no input")):
            if each not in names:
                raise UsageError(
                    f"--tie {name}={entry}: the {said} '{each}'{did_you_mean(each, list(map(str, names)))}"
                )
        left, right = known[name], entries[entry]
        ranks = [None if value.shape is None else len(value.shape) for value in (left, right)]
        if left.dtype != right.dtype or (None not in ranks and ranks[0] != ranks[1]):
            raise UsageError(f"--tie {name}={entry}: {_said(left)} does not go into {_said(right)}")
        found.append((left, right))
    return found


def _said(value: ir.Value) -> str:
    shape = "?" if value.shape is None else ", ".join(str(size) for size in value.shape)
    return f"'{value.name}', {'?' if value.dtype is None else value.dtype.name.lower()}[{shape}],"


def _rename_sizes(one: ir.Model, two: ir.Model, pairs: Iterable[tuple[ir.Value, ir.Value]], stem: str) -> None:
    """Names of dynamic axes: those of tied axes are one, others that are alike by chance are not."""
    same: dict[str, str] = {}
    for left, right in pairs:
        for ours, theirs in zip(left.shape or (), right.shape or (), strict=False):
            if isinstance(ours, ir.SymbolicDim) and isinstance(theirs, ir.SymbolicDim) and ours.value and theirs.value:
                same.setdefault(theirs.value, ours.value)
    taken = {
        size.value
        for value in (*one.graph.inputs, *one.graph.outputs)
        for size in value.shape or ()
        if isinstance(size, ir.SymbolicDim)
    }
    for value in _values(two):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(size, same, taken, stem) for size in value.shape])


def _renamed(
    size: int | ir.SymbolicDim, same: Mapping[str, str], taken: set[str | None], stem: str
) -> int | str | ir.SymbolicDim | None:
    if isinstance(size, int) or size.value is None:
        return size
    return same.get(size.value, f"{stem}.{size.value}" if size.value in taken else size.value)


def _rename(one: ir.Model, two: ir.Model, stem: str) -> None:
    """Values and nodes of the second whose names the first has."""
    taken = {value.name for value in _values(one)}
    own = {value.name for value in _values(two)}
    for value in _values(two):
        if value.name and value.name in taken:
            name = f"{stem}.{value.name}"
            while name in taken or name in own:
                name += "'"
            value.name = name
    nodes = {node.name for node in one.graph.all_nodes()}
    for node in two.graph.all_nodes():
        if node.name and node.name in nodes:
            node.name = f"{stem}.{node.name}"
