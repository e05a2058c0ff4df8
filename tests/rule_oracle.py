"""The rule oracle: what a rule calls removable is removed from one node, and nothing else about its result may change.

    op(slice(x)) == slice(op(x))        in ONNX Runtime, on inputs of unequal, coprime sizes

Samples stand beside the rule, see onnxprune/ops/samples.py; more of them in tests/ops/. A test file declares those of
its operator family and ends with `test_rule = oracle(__name__)`.

The node is analysed as in a model, except that its inputs and outputs are not frozen as an interface. A unit that the
node sums over is set to zero in the full run; a unit that statistics are taken over is compared with `reference`, a
function of the sliced inputs and the attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from onnxprune.analysis import coupling, shapes
from onnxprune.dims import Atom, Dim, Mask, atoms, keep_mask, kept_size
from onnxprune.ops.base import attribute
from onnxprune.ops.samples import (
    FAR,
    NEWEST,
    SAMPLES,
    Array,
    Build,
    Case,
    Sample,
    SampleDraw,
    case,
    declared,
    ints,
    number,
    sample,
    shapes_only,
)
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.steps.plan import plan_from_masks

__all__ = [
    "FAR",
    "SAMPLES",
    "Array",
    "Build",
    "Case",
    "SampleDraw",
    "case",
    "declared",
    "ints",
    "number",
    "sample",
    "shapes_only",
]

Arrays = dict[str, Array | None]
Emptied = tuple[str, int, Array | None]  # an input, the axis of it that loses entries, and what its zero is

PRIMES = (2, 3, 5, 7, 11, 13)


def _versions() -> dict[str, list[int]]:
    """The opsets at which each standard operator changed."""
    versions: dict[str, list[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            versions.setdefault(schema.name, []).append(schema.since_version)
    return versions


VERSIONS = _versions()


def opsets(sample: Sample) -> list[int]:
    """The oldest and the newest opset at which the form has a definition of its own."""
    domain, name = sample.key
    if domain or name not in VERSIONS:
        return [1 if domain else NEWEST]
    known = VERSIONS[name]
    newest = max((v for v in known if v <= min(sample.until, NEWEST)), default=NEWEST)
    oldest = max(sample.since, min(known))
    return sorted({oldest, max(newest, oldest)})


@dataclass(frozen=True)
class Form:
    """A sample at one opset."""

    sample: Sample
    opset: int

    def __str__(self) -> str:
        return f"{self.sample.key[1]}-{self.sample.label}-{self.opset}"


def forms(of: Callable[[Sample], bool]) -> list[Form]:
    """Those samples that are declared so far, at each opset."""
    found = [sample for samples in SAMPLES.values() for sample in samples if of(sample)]
    return [Form(sample, opset) for sample in found for opset in opsets(sample)]


def in_tests(sample: Sample) -> bool:
    """Does it stand in a test file, rather than beside what it is a sample of?"""
    return sample.module.startswith("tests.")


def beside_a_rule(sample: Sample) -> bool:
    """Does it stand beside a rule, in this package or a plug-in? Operators of torch have samples of their own."""
    return not in_tests(sample) and not sample.module.startswith("onnxprune.runtime.")


def oracle(module: str, max_examples: int = 10) -> Callable[..., None]:
    """The test of all samples that a test module has declared so far."""
    return oracle_of(forms(lambda sample: sample.module == module), max_examples)


def oracle_of(found: list[Form], max_examples: int = 10) -> Callable[..., None]:
    """The test of samples."""

    @settings(max_examples=max_examples, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(draw=st.builds(SampleDraw, st.permutations(PRIMES), st.integers(0, 2**32 - 1)))
    def test_rule(form: Form, draw: SampleDraw) -> None:
        check(form, draw)

    parametrized: Callable[..., None] = pytest.mark.parametrize("form", found, ids=str)(test_rule)
    return parametrized


def check(form: Form, draw: SampleDraw) -> None:
    """Remove units from every removable dimension in turn, then from all at once."""
    drawn = form.sample.build(draw)
    inputs: Arrays = {name: value for name, value in drawn.items() if value is None or isinstance(value, np.ndarray)}
    node = Node(form, inputs, {name: value for name, value in drawn.items() if name not in inputs})
    results = node.run(node.proto(inputs), inputs)
    trial = Trial(node, results)
    for place in form.sample.prunable:
        reasons = [str(atom.reason) for atom in atoms(trial.at(place))]
        assert any(atom in trial.atoms for atom in atoms(trial.at(place))), f"{form}: {place} keeps its size: {reasons}"
    choices = [[index] for index in range(len(trial.atoms))]
    if len(choices) > 1:
        choices.append(list(range(len(trial.atoms))))
    for chosen in choices:
        trial = Trial(node, results)
        trial.check({trial.atoms[index]: some_kept(trial.atoms[index].size, draw.rng) for index in chosen})


def some_kept(size: int, rng: np.random.Generator) -> Mask:
    """At least one unit goes, and at least one stays."""
    mask = np.zeros(size, dtype=np.bool_)
    mask[rng.permutation(size)[: rng.integers(1, size)]] = True
    return mask


@dataclass(frozen=True)
class Node:
    """One node with its full inputs."""

    form: Form
    inputs: Arrays
    attributes: dict[str, Any]

    @property
    def fed(self) -> tuple[str, ...]:
        """The inputs that are graph inputs."""
        return tuple(self.inputs)[:1] if self.form.sample.fed is None else self.form.sample.fed

    @property
    def is_standard(self) -> bool:
        """Does onnx define the operator at this opset?"""
        (domain, name), opset = self.form.sample.key, self.form.opset
        return onnx.defs.has(name, opset, domain) and not onnx.defs.get_schema(name, opset, domain).deprecated

    def proto(self, inputs: Arrays) -> onnx.ModelProto:
        """The model around the node."""
        domain, name = self.form.sample.key
        names = [name if array is not None else "" for name, array in inputs.items()]
        attributes = {name: value for name, value in self.attributes.items() if value is not None}
        node = onnx.helper.make_node(name, names, self.form.sample.outputs, name="node", domain=domain, **attributes)
        given = {name: array for name, array in inputs.items() if array is not None}
        graph = onnx.helper.make_graph(
            [node],
            "sample",
            [onnx.helper.make_tensor_value_info(name, _elem_type(given[name]), given[name].shape) for name in self.fed],
            [onnx.helper.make_empty_tensor_value_info(name) for name in self.form.sample.outputs if name],
            [onnx.numpy_helper.from_array(array, name) for name, array in given.items() if name not in self.fed],
        )
        opset = NEWEST if domain else self.form.opset
        imports = [onnx.helper.make_opsetid("", opset), *([onnx.helper.make_opsetid(domain, 1)] if domain else [])]
        return onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)

    def run(self, model: onnx.ModelProto, inputs: Arrays) -> list[Array]:
        """The outputs of a model around the node."""
        feed = {name: inputs[name] for name in self.fed}
        if self.form.sample.runtime == "reference":
            return self._refer(model, feed)
        if self.form.sample.runtime == "onnx":
            return list(onnx.reference.ReferenceEvaluator(model).run(None, feed))
        return run_in_ort(model, feed)

    def _refer(self, model: onnx.ModelProto, feed: Mapping[str, Array | None]) -> list[Array]:
        """The outputs by the sample's own `reference`."""
        assert self.form.sample.reference is not None
        given = {**feed, **{tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}}
        node = next(node for node in model.graph.node if node.name == "node")
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        outputs = self.form.sample.reference(*[given.get(name) for name in node.input], **attributes)
        return list(outputs) if isinstance(outputs, tuple) else [outputs]


def run_in_ort(model: onnx.ModelProto, feed: Mapping[str, Array | None]) -> list[Array]:
    """The outputs, without any rewriting of the graph by ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    return list(onnxruntime.InferenceSession(model.SerializeToString(), options, providers).run(None, feed))


def removed(analysis: coupling.Analysis, free: list[Atom], keep: Mapping[Atom, Mask]) -> onnx.ModelProto:
    """The model as the real pass leaves it, with the interface that a model around it would have."""
    analysis.groups = [coupling.Group(f"group {index}", atom, []) for index, atom in enumerate(free)]
    chosen = [(group, keep[group.atom]) for group in analysis.groups if group.atom in keep]
    RemoveUnits(analysis, plan_from_masks(chosen, {}).keep(analysis))(analysis.model)
    for value in (*analysis.model.graph.inputs, *analysis.model.graph.outputs):
        name = value.name or ""
        value.shape = ir.Shape([kept_size(dim, _counts(keep)) for dim in analysis.dims[name]])
        if value.type is None and name in analysis.shapes.dtypes:
            value.type = ir.TensorType(analysis.shapes.dtypes[name])
    return ir.to_proto(analysis.model)


def _check_valid(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise AssertionError(f"what is left is not a valid model: {error}") from error


def _elem_type(array: Array) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


def analyze_without_interface(model: ir.Model, found: shapes.Shapes | None = None) -> coupling.Analysis:
    """As coupling.analyze; the inputs and outputs of the model may lose units like any other value."""
    with mock.patch.object(coupling, "freeze_interface", _nothing):
        return coupling.analyze(model, found)


def _nothing(*_: Any) -> None:
    pass


class Trial:
    """One analysis of a node, and one removal from it. Output shapes are those of the full results."""

    def __init__(self, node: Node, results: list[Array]) -> None:
        self.node = node
        self.model = ir.from_proto(node.proto(node.inputs))
        self.outputs = [name for name in node.form.sample.outputs if name]
        found = shapes.infer(self.model)
        for name, result in zip(self.outputs, results, strict=True):
            found.shapes[name] = result.shape
            found.dtypes[name] = ir.DataType.from_numpy(result.dtype)
        found.dynamic.clear()
        self.analysis = analyze_without_interface(self.model, found)
        values = [name for name, array in node.inputs.items() if array is not None]
        self.atoms = list(dict.fromkeys(self._removable([*values, *self.outputs])))

    def _removable(self, values: list[str]) -> Iterator[Atom]:
        for value in values:
            for dim in self.analysis.dims.get(value, []):
                yield from (atom for atom in atoms(dim) if atom.reason is None and atom.size > 1)

    def at(self, place: str) -> Dim:
        """The dimension at a place like `w[0]`."""
        value, _, axis = place.rstrip("]").partition("[")
        return self.analysis.dims[value][int(axis)]

    def check(self, keep: Mapping[Atom, Mask]) -> None:
        """Remove, run, compare."""
        sliced = {
            name: array if array is None else self._slice(name, array, keep) for name, array in self.node.inputs.items()
        }
        model = removed(self.analysis, self.atoms, keep)
        if self.node.is_standard:
            _check_valid(model)
        results = self.node.run(model, sliced)
        described = {str(index): mask.astype(int).tolist() for index, mask in enumerate(keep.values())}
        for name, result in zip(self.outputs, results, strict=True):
            predicted = tuple(kept_size(dim, _counts(keep)) for dim in self.analysis.dims[name])
            assert result.shape == predicted, f"{name} has shape {result.shape}, not {predicted}, kept {described}"
        for outputs in self._expected(keep, sliced):
            for name, result, wanted in zip(self.outputs, results, outputs, strict=True):
                message = f"{name} of {self.node.form}, kept {described}"
                np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5, err_msg=message)

    def _expected(self, keep: Mapping[Atom, Mask], sliced: Arrays) -> Iterator[list[Array]]:
        """What the outputs must be: the slices of the full outputs, once per way of zeroing what is summed over."""
        sample = self.node.form.sample
        tagged = {atom for tag, dim, _ in self.analysis.findings.tags if tag == "statistics" for atom in atoms(dim)}
        if sample.always or not tagged.isdisjoint(keep):
            assert sample.reference is not None, f"{self.node.form}: statistics run over units, give it a reference"
            if sample.reference is not shapes_only:
                yield self._by_reference(sample.reference, sliced)
            return
        for places in self._ways_to_zero(keep):
            inputs = dict(self.node.inputs)
            for name, axis, zero in places:
                mask = keep_mask(self.analysis.dims[name][axis], keep)
                inputs[name] = _emptied(inputs[name], axis, mask, zero)
            full = self.node.run(self.node.proto(inputs), inputs)
            yield [self._slice(name, array, keep) for name, array in zip(self.outputs, full, strict=True)]

    def _by_reference(self, reference: Callable[..., Any], sliced: Arrays) -> list[Array]:
        node = next(node for node in self.model.graph if node.name == "node")
        attributes = {name: attribute(node, name) for name in self.node.attributes}
        outputs = reference(*sliced.values(), **attributes)
        return list(outputs) if isinstance(outputs, tuple) else [outputs]

    def _ways_to_zero(self, keep: Mapping[Atom, Mask]) -> Iterator[list[Emptied]]:
        """What to zero: the operands that the rule names, or else the constants that they meet."""
        names, given = list(self.node.inputs), list(self.node.inputs.values())
        sums = self.analysis.findings.contractions
        yield [(names[ref.operand[0]], ref.operand[1], None if ref.zero is None else given[ref.zero]) for ref in sums]
        contracted = {atom for ref in sums for atom in atoms(ref.dim)}
        outside = contracted & set(keep) - {atom for name in self.outputs for atom in self._removable([name])}
        met: list[Emptied] = [
            (name, axis, None)
            for name, array in self.node.inputs.items()
            for axis, dim in enumerate(self.analysis.dims.get(name, []))
            if name not in self.node.fed and array is not None and not contracted.isdisjoint(atoms(dim))
        ]
        inside = {atom for name, axis, _ in met for atom in atoms(self.analysis.dims[name][axis])}
        complete = any(names[ref.operand[0]] not in self.node.fed for ref in sums)  # the rule names constants itself
        if outside and outside <= inside and not complete and all(ref.zero is None for ref in sums):
            yield met

    def _slice(self, name: str, array: Array, keep: Mapping[Atom, Mask]) -> Array:
        for axis, dim in enumerate(self.analysis.dims[name]):
            array = np.compress(keep_mask(dim, keep), array, axis=axis)
        return array


def _emptied(array: Array | None, axis: int, mask: Mask, zero: Array | None) -> Array:
    assert array is not None
    shape = [-1 if i == axis else 1 for i in range(array.ndim)]
    return np.where(mask.reshape(shape), array, np.zeros((), array.dtype) if zero is None else zero)


def _counts(keep: Mapping[Atom, Mask]) -> dict[Atom, int]:
    return {atom: int(mask.sum()) for atom, mask in keep.items()}
