"""Units go everywhere at once: weights are sliced, and what names their number follows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.analysis.groups import Analysis
from onnxprune.errors import PlanError
from onnxprune.model.file import open_model, save
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.pipeline.run import inspect
from onnxprune.steps.plan import Plan, Removal
from tests.conftest import Build

HEADS = """
    net (float[batch, 6] x) => (float[batch, 2] y)
    <float[6, 12] w, float[12] b, float[12, 2] v, int64[3] apart = {-1, 4, 3}, int64[2] together = {-1, 12}>
    { h = Gemm(x, w, b)  t = Reshape(h, apart)  r = Relu(t)  f = Reshape(r, together)  y = MatMul(f, v) }
"""


@pytest.fixture
def analysis(build: Build) -> Analysis:
    """Columns of w are Product(4, 3)."""
    return inspect(build(HEADS))


def removed(analysis: Analysis, *removals: tuple[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The weights after a removal."""
    units = {group.id: group.units for group in analysis.groups}
    plan = Plan(tuple(Removal(group, "", units[group], gone) for group, gone in removals))
    assert RemoveUnits(analysis, plan.keep(analysis))(analysis.model).modified
    return {name: value.const_value.numpy() for name, value in analysis.model.graph.initializers.items()}


def test_weights_are_sliced_where_the_expression_says(analysis: Analysis, build: Build) -> None:
    before = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(build(HEADS)).graph.initializer}
    after = removed(analysis, ("w", (1, 2)), ("w#2", (0,)))
    kept = np.array([1, 2, 10, 11])  # of rows (0, 1, 2), (3, 4, 5), ...: rows 0 and 3, without their first
    np.testing.assert_array_equal(after["w"], before["w"][:, kept])
    np.testing.assert_array_equal(after["b"], before["b"][kept])
    np.testing.assert_array_equal(after["v"], before["v"][kept])


def test_constants_that_name_sizes_follow(analysis: Analysis, tmp_path: Path) -> None:
    removed(analysis, ("w", (1, 2)), ("w#2", (0,)))
    save(analysis.model, tmp_path / "out.onnx")
    graph = onnx.load(tmp_path / "out.onnx").graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor).tolist() for tensor in graph.initializer}
    targets = [arrays[node.input[1]] for node in graph.node if node.op_type == "Reshape"]
    assert targets == [[-1, 2, 2], [-1, 4]]


def test_shapes_written_beside_inner_values_follow(build: Build, tmp_path: Path) -> None:
    def annotate(model: onnx.ModelProto) -> None:
        model.graph.value_info.append(onnx.helper.make_tensor_value_info("t", 1, ["batch", 4, 3]))

    analysis = inspect(build(HEADS, edit=annotate))
    removed(analysis, ("w", (0,)))
    save(analysis.model, tmp_path / "out.onnx")
    (value,) = [value for value in onnx.load(tmp_path / "out.onnx").graph.value_info if value.name == "t"]
    assert [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] == ["batch", 3, 3]


def test_symbol_of_a_size_that_changed_is_dropped(build: Build, tmp_path: Path) -> None:
    """ONNX Runtime believes that axes of one symbol are of one size, and lets them share their memory."""

    def annotate(model: onnx.ModelProto) -> None:
        model.graph.value_info.append(onnx.helper.make_tensor_value_info("t", 1, ["4*batch", 3]))

    path = build(
        """
        net (float[batch, 6] x) => (float[batch, 2] y)
        <float[6, 12] w, float[12, 2] v, int64[2] apart = {-1, 3}, int64[2] together = {-1, 12}>
        { h = MatMul(x, w)  t = Reshape(h, apart)  r = Relu(t)  f = Reshape(r, together)  y = MatMul(f, v) }
        """,
        edit=annotate,
    )
    analysis = inspect(path)
    removed(analysis, ("w", (0,)))
    save(analysis.model, tmp_path / "out.onnx")
    (value,) = [value for value in onnx.load(tmp_path / "out.onnx").graph.value_info if value.name == "t"]
    rows, columns = value.type.tensor_type.shape.dim
    assert rows.WhichOneof("value") is None
    assert columns.dim_value == 3


def test_nothing_to_remove_changes_nothing(analysis: Analysis, tmp_path: Path) -> None:
    save(analysis.model, tmp_path / "before.onnx")
    for plan in (Plan(), Plan((Removal("w", "", 4, ()),))):
        assert not RemoveUnits(analysis, plan.keep(analysis))(analysis.model).modified
    save(analysis.model, tmp_path / "after.onnx")
    assert (tmp_path / "after.onnx").read_bytes() == (tmp_path / "before.onnx").read_bytes()


def test_plan_that_does_not_fit_changes_nothing(analysis: Analysis, tmp_path: Path) -> None:
    save(analysis.model, tmp_path / "before.onnx")
    plan = Plan((Removal("w", "", 4, (0,)), Removal("w#2", "", 3, (7,))))
    with pytest.raises(PlanError):
        RemoveUnits(analysis, plan.keep(analysis))(analysis.model)
    save(analysis.model, tmp_path / "after.onnx")
    assert (tmp_path / "after.onnx").read_bytes() == (tmp_path / "before.onnx").read_bytes()


def test_other_model_than_the_one_analysed_is_a_mistake(analysis: Analysis, build: Build) -> None:
    with pytest.raises(ValueError, match="not the one that was analysed"):
        RemoveUnits(analysis, {})(open_model(build(HEADS)))


def test_removing_in_two_steps_equals_removing_at_once(build: Build, tmp_path: Path) -> None:
    """Each step analyses the model as it then is: after units 1 and 2 are gone, unit 3 is called 1."""
    once = removed(inspect(build(HEADS)), ("w", (1, 2, 3)))
    first = inspect(build(HEADS))
    removed(first, ("w", (1, 2)))
    save(first.model, tmp_path / "half.onnx")
    twice = removed(inspect(tmp_path / "half.onnx"), ("w", (1,)))
    for name in ("w", "b", "v"):
        np.testing.assert_array_equal(once[name], twice[name])


def test_weights_are_sliced_when_they_are_read(analysis: Analysis) -> None:
    """So that a model larger than memory passes through."""
    removed_shapes = RemoveUnits(analysis, Plan((Removal("w", "", 4, (0,)),)).keep(analysis))(analysis.model)
    assert removed_shapes.modified
    tensor = analysis.model.graph.initializers["w"].const_value
    assert type(tensor).__name__ == "LazyTensor"
    assert tuple(tensor.shape) == (6, 9)
    assert tensor.numpy().shape == (6, 9)
