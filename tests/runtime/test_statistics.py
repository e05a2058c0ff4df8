"""Running a model over data: which values are seen, how often, and that the model stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from onnxprune.analysis.groups import Analysis
from onnxprune.data.base import Batch, Data, length_of
from onnxprune.pipeline.run import inspect
from onnxprune.statistics.accumulators import Summary, axis_columns, layer_rows, units
from onnxprune.statistics.activations import Activations, Array
from tests.conftest import Build

PERCEPTRON = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[5, 8] w, float[8, 6] v, float[6, 3] u>
    { h = MatMul(x, w)  r = Relu(h)  i = MatMul(r, v)  s = Tanh(i)  y = MatMul(s, u) }
"""
SIZES = (7, 4)


class Counted:
    """Two batches for an input x, and how often a pass over them began."""

    def __init__(self, *shape: int) -> None:
        self.passes = 0
        rng = np.random.default_rng(0)
        self.batches = [Batch({"x": rng.standard_normal((size, *shape), np.float32)}) for size in SIZES]
        self.data = Data("counted", False, self._start)

    def _start(self):  # type: ignore[no-untyped-def]
        self.passes += 1
        return iter(self.batches)

    def every(self, path: Path, name: str) -> Array:
        """A value for all samples, as ONNX Runtime gives it for a model that was edited by hand."""
        model = onnx.load(path)
        model.graph.output.append(onnx.ValueInfoProto(name=name))
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.concatenate([session.run([name], batch.feed)[0] for batch in self.batches])


def places(analysis: Analysis, activations: Activations) -> list[list[tuple[str, int, int]]]:
    return [[(p.value, p.axis, p.samples) for p in activations.places(group)] for group in analysis.groups]


def test_units_are_seen_where_they_are_summed(build: Build) -> None:
    analysis = inspect(build(PERCEPTRON))
    assert places(analysis, Activations(analysis, Counted(5).data)) == [[("r", 1, 0)], [("s", 1, 0)]]


def test_group_with_several_readers_has_several_places(build: Build) -> None:
    analysis = inspect(
        build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v, float[8, 3] u>
        { h = MatMul(x, w)  r = Relu(h)  t = Tanh(h)  a = MatMul(r, v)  b = MatMul(t, u)  y = Add(a, b) }
        """)
    )
    assert places(analysis, Activations(analysis, Counted(5).data)) == [[("r", 1, 0), ("t", 1, 0)]]


def test_samples_are_found_where_the_batch_is(digits: dict[str, Path]) -> None:
    """The LSTM works on [steps, batch, units]."""
    analysis = inspect(digits["lstm"])
    activations = Activations(analysis, Counted(1, 8, 8).data)
    found = {place.value: place.samples for group in analysis.groups for place in activations.places(group)}
    assert sorted(found.values()) == [0, 1]


def test_statistics_are_those_of_the_values(build: Build) -> None:
    path, data = build(PERCEPTRON), Counted(5)
    analysis = inspect(path)
    activations = Activations(analysis, data.data)
    found = {
        place.value: summary
        for place, summary in activations.per_place("s", lambda p: Summary(axis_columns(p))).items()
    }
    for name in ("r", "s"):
        np.testing.assert_allclose(found[name].mean[0], data.every(path, name).mean(0, dtype=np.float64), rtol=1e-6)


def test_a_kind_is_collected_once_for_all_groups(build: Build) -> None:
    data = Counted(5)
    analysis = inspect(build(PERCEPTRON))
    activations = Activations(analysis, data.data)
    for _ in analysis.groups:
        activations.per_place("a", lambda place: Summary(axis_columns(place)))
        activations.per_group("b", lambda group, place: Summary(units(place, group.atom)))
        activations.per_layer("c", lambda layer: Summary(layer_rows(layer)))
    assert data.passes == 3
    assert len(activations.per_layer("c", lambda layer: Summary(layer_rows(layer)))) == 3


def test_little_memory_takes_more_passes_and_gives_the_same(build: Build) -> None:
    path, data = build(PERCEPTRON), Counted(5)
    activations = Activations(inspect(path), data.data, memory=1)
    found = activations.per_place("s", lambda place: Summary(axis_columns(place)))
    assert data.passes == 2
    for place, summary in found.items():
        np.testing.assert_allclose(summary.mean[0], data.every(path, place.value).mean(0, dtype=np.float64), rtol=1e-6)


def test_inputs_and_outputs_can_be_seen_too(build: Build) -> None:
    data = Counted(5)
    activations = Activations(inspect(build(PERCEPTRON)), data.data)
    for batch, values in activations.stream(["x", "y", "r"]):
        np.testing.assert_array_equal(values["x"], batch.feed["x"])
        assert values["y"].shape == (len(values["x"]), 3)
        assert values["r"].shape == (len(values["x"]), 8)
    for batch, values in activations.stream(["x"]):
        np.testing.assert_array_equal(values["x"], batch.feed["x"])


def test_the_model_is_left_as_it_was(build: Build) -> None:
    """Also for passes that ask its values whether they are outputs."""
    analysis = inspect(build(PERCEPTRON))
    for _ in range(2):
        list(Activations(analysis, Counted(5).data).stream(["r", "s"]))
        assert [value.name for value in analysis.model.graph.outputs] == ["y"]
        outputs = [value.name for node in analysis.model.graph for value in node.outputs if value.is_graph_output()]
        assert outputs == ["y"]


def test_quantized_values_count_from_their_zero_point(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, int8[8, 3] v, float s = {0.05}, uint8 z = {100}, int8 vz = {0}>
        {
            h = MatMul(x, w)  r = Relu(h)  q = QuantizeLinear(r, s, z)
            i = MatMulInteger(q, v, z, vz)  c = Cast<to = 1>(i)  y = Mul(c, s)
        }
    """)
    data = Counted(5)
    analysis = inspect(path)
    activations = Activations(analysis, data.data)
    ((place, summary),) = activations.per_place("s", lambda p: Summary(axis_columns(p))).items()
    assert place.zero == 100
    expected = data.every(path, "q").astype(np.float64) - 100
    np.testing.assert_allclose(summary.mean[0], expected.mean(0))
    np.testing.assert_allclose(summary.zero_share[0], (expected == 0).mean(0))
    assert summary.zero_share.max() > 0.2


def test_progress_is_told(build: Build) -> None:
    told: list[str] = []
    activations = Activations(inspect(build(PERCEPTRON)), Counted(5).data, memory=1, progress=told.append)
    activations.per_place("s", lambda place: Summary(axis_columns(place)))
    assert told[0] == "observing activations, batch 1 (pass 1 of 2)"
    assert told[-1].startswith("observing activations, batch 11 (pass 2 of 2)")


def test_batches_are_cut_to_what_fits_into_memory(build: Build) -> None:
    """Two values of eight floats a sample: so many samples at a time, and one pass is enough."""
    path, data = build(PERCEPTRON), Counted(5)
    activations = Activations(inspect(path), data.data, memory=3 * 2 * 8 * 4)
    seen: list[int] = []

    class Lengths:
        def update(self, value: Array, batch: Batch) -> None:
            seen.append(len(value))
            assert len(value) == length_of(batch)

    activations.collect({"r": [Lengths()], "s": [Summary(lambda value, _: iter([value[None]]))]})
    assert data.passes == 1
    assert max(seen) == 3
    assert sum(seen) == len(data.every(path, "r"))


def test_inner_values_of_control_flow_are_no_places(build: Build) -> None:
    analysis = inspect(
        build("""
        net (float[batch, 5] x, bool c) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v>
        {
            h = MatMul(x, w)
            y = If(c)<
                then_branch = a () => (float[n, 3] p) { p = MatMul(h, v) },
                else_branch = b () => (float[n, 3] q) { r = Relu(h)  q = MatMul(r, v) }
            >
        }
        """)
    )
    assert all(found == [] for found in places(analysis, Activations(analysis, Counted(5).data)))
