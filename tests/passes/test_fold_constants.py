"""Constants move into the biases of what reads them, and values keep their names and what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.analysis.constants import Constants
from onnxprune.model.check import check_model
from onnxprune.model.file import open_model, save
from onnxprune.passes.fold_constants import FoldConstants
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.pipeline.run import inspect
from onnxprune.runtime.session import Session
from onnxprune.steps.plan import Plan, plan_from_masks
from onnxprune.steps.prune.lossless import find_unneeded
from tests.conftest import Build
from tests.lossless.harness import feeds, killing


def unneeded(constants: Constants) -> Plan:
    """The plan without the units that change nothing."""
    groups = constants.analysis.groups
    needed, _ = find_unneeded(constants, groups)
    return plan_from_masks([(group, needed[group.id]) for group in groups if group.id in needed])


# Unit 2 of h is 0.5 everywhere; what reads it, and how the constant that takes it up is called.
READERS = {
    "y = Gemm(h, w2)": "reader/bias",
    "y = Gemm<beta = 4.0>(h, w2, b2)": "reader/bias",
    "y = Gemm<beta = 0.0>(h, w2, b2)": "reader/bias",
    "y = Gemm<alpha = 3.0>(h, w2, scalar)": "reader/bias",
    "y = Gemm(h, w2, rows)": "reader/bias",
    "y = Gemm(h, w2, matrix)": "reader/bias",
    "y = MatMul(h, w2)": "reader/shifted/bias",
    "m = MatMul(h, w2)  [next] y = Add(m, b2)": "next/bias",
    "m = MatMul(h, w2)  [next] y = Add(rows, m)": "next/bias",
    "m = MatMul(h, w2)  [next] y = Add(m, scalar)": "reader/shifted/bias",
    "m = MatMul(h, w2)  r = Relu(m)  [next] y = Add(m, r)": "reader/shifted/bias",
    "y = com.microsoft.FusedMatMul<alpha = 0.5>(h, w2)": "reader/shifted/bias",
    'y = com.microsoft.FusedGemm<activation = "Tanh">(h, w2, b2)': "reader/bias",
    'c = com.microsoft.FusedConv<activation = "Relu">(u, w3, b2, u3)  y = Squeeze(c, axes)': "reader/bias",
    "c = Conv(u, w3)  y = Squeeze(c, axes)": "reader/bias",
    "c = Conv(u, w3, b2)  y = Squeeze(c, axes)": "reader/bias",
}


def model(build: Build, reader: str, **options: Any) -> Path:
    unsqueeze = "u = Unsqueeze(h, axes)" if "Conv" in reader else ""
    unsqueeze += "  u3 = Unsqueeze(matrix, axes)" if "u3" in reader else ""
    return build(
        f"""
        net (float[4, 5] x) => (float[4, 3] y)
        <float[5, 8] w1, float[8] b1 = {{1, 1, 0.5, 1, 1, 1, 1, 1}}, float[8, 3] w2, float[3] b2, float[1] scalar,
         float[1, 3] rows, float[4, 3] matrix, float[3, 8, 1] w3, int64[1] axes = {{2}}>
        {{ g = Gemm(x, w1, b1)  h = Relu(g)  {unsqueeze} [reader] {reader} }}
        """,
        edit=killing({("w1", 1): [2]}),
        opsets={"com.microsoft": 1},
        **options,
    )


def folded(path: Path) -> tuple[Constants, Plan]:
    """The analysis of a model whose constants have been folded, and the plan that removes them."""
    analysis = inspect(path)
    constants = Constants(analysis)
    plan = unneeded(constants)
    assert [(removal.group, removal.remove) for removal in plan.removals] == [("w1", (2,))]
    assert FoldConstants(constants, plan.keep(constants.analysis))(analysis.model).modified
    return constants, plan


@pytest.mark.parametrize("reader", READERS)
def test_a_constant_moves_into_a_bias(build: Build, tmp_path: Path, reader: str) -> None:
    path = model(build, reader)
    constants, plan = folded(path)
    small = constants.analysis.model
    assert READERS[reader] in small.graph.initializers
    RemoveUnits(constants.analysis, plan.keep(constants.analysis))(small)
    save(small, tmp_path / "small.onnx")
    check_model(tmp_path / "small.onnx")
    for feed in feeds(path):
        before, after = Session(path).run(feed), Session(tmp_path / "small.onnx").run(feed)
        np.testing.assert_allclose(after["y"], before["y"], rtol=1e-5, atol=1e-5)


def test_values_keep_their_names_and_what_they_hold(build: Build, tmp_path: Path) -> None:
    path = model(build, "m = MatMul(h, w2)  y = Relu(m)")
    constants, plan = folded(path)
    small = constants.analysis.model
    RemoveUnits(constants.analysis, plan.keep(constants.analysis))(small)
    assert [node.op_type for node in small.graph] == ["Gemm", "Relu", "MatMul", "Add", "Relu"]
    original = open_model(path)
    for each, name in ((small, "small"), (original, "original")):
        values = {value.name: value for node in each.graph for value in node.outputs}
        each.graph.outputs[:] = [values["m"], values["y"]]
        save(each, tmp_path / f"{name}.onnx")
    (feed, *_) = feeds(path)
    before, after = Session(tmp_path / "original.onnx").run(feed), Session(tmp_path / "small.onnx").run(feed)
    for name in ("m", "y"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-5, atol=1e-5)


def test_a_bias_that_others_read_stays_theirs(build: Build, tmp_path: Path) -> None:
    path = model(build, "m = MatMul(h, w2)  n = Add(m, b2)  y = Mul(n, b2)")
    constants, _ = folded(path)
    before = open_model(path).graph.initializers["b2"].const_value
    after = constants.analysis.model.graph.initializers["b2"].const_value
    np.testing.assert_array_equal(after.numpy(), before.numpy())


def test_a_new_bias_shrinks_with_its_axis(build: Build, tmp_path: Path) -> None:
    """Columns of w2 are units too, and one of them goes in the same step."""
    path = build(
        """
        net (float[4, 5] x) => (float[4, 3] y)
        <float[5, 8] w1, float[8] b1, float[8, 6] w2, float[6, 3] w3>
        { g = Gemm(x, w1, b1)  h = Exp(g)  m = MatMul(h, w2)  r = Relu(m)  y = MatMul(r, w3) }
        """,
        edit=killing({("w1", 1): [2], ("w3", 0): [5]}),
    )
    analysis = inspect(path)
    constants = Constants(analysis)
    plan = unneeded(constants)
    FoldConstants(constants, plan.keep(constants.analysis))(analysis.model)
    RemoveUnits(analysis, plan.keep(analysis))(analysis.model)
    (bias,) = (value for name, value in analysis.model.graph.initializers.items() if name.endswith("/bias"))
    assert bias.const_value.numpy().shape == (5,)


def test_zeros_leave_the_model_alone(build: Build) -> None:
    path = build(
        """
        net (float[4, 5] x) => (float[4, 3] y)
        <float[5, 8] w1, float[8, 3] w2>
        { g = MatMul(x, w1)  h = Relu(g)  y = MatMul(h, w2) }
        """,
        edit=killing({("w1", 1): [2]}),
    )
    analysis = inspect(path)
    constants = Constants(analysis)
    plan = unneeded(constants)
    assert plan.removed_units == 1
    assert not FoldConstants(constants, plan.keep(constants.analysis))(analysis.model).modified
    assert len(analysis.model.graph) == 3


def test_another_model_than_the_analysed_one_is_refused(build: Build) -> None:
    path = model(build, "y = MatMul(h, w2)")
    with pytest.raises(ValueError, match="not the one that was analysed"):
        FoldConstants(Constants(inspect(path)), {})(open_model(path))
