"""BatchNormalizations go, outputs stay; and where they may not go they stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.model.check import check_model
from onnxprune.model.file import open_model, save
from onnxprune.passes.fold_batchnorm import FoldBatchNorm
from tests.conftest import Build
from tests.recovery.pruned import feeds, outputs

NORM = "float[6] gain, float[6] shift, float[6] mean, float[6] variance"
POSITIVE = {"variance": [0.5, 1.0, 2.0, 3.0, 0.1, 0.7]}
BN = "BatchNormalization<epsilon = 0.01>"

FOLDED = {
    "conv": f"""<float[6, 4, 3, 3] w, {NORM}>
        {{ h = Conv<pads = [1, 1, 1, 1]>(x, w)  y = {BN}(h, gain, shift, mean, variance) }}""",
    "grouped with a bias": f"""<float[6, 2, 3, 3] w, float[6] b, {NORM}>
        {{ h = Conv<group = 2>(x, w, b)  n = {BN}(h, gain, shift, mean, variance)  y = Relu(n) }}""",
    "transposed": f"""<float[4, 3, 3, 2] w, float[6] b, {NORM}>
        {{ h = ConvTranspose<group = 2, strides = [2, 1]>(x, w, b)  y = {BN}(h, gain, shift, mean, variance) }}""",
    "in front": f"""<float[6, 4, 1, 1] u, float[5, 6, 3, 3] w, float[5] b, {NORM}>
        {{ s = Conv(x, u)  r = Relu(s)  h = {BN}(r, gain, shift, mean, variance)  y = Conv(h, w, b) }}""",
    "in front of groups": f"""<float[6, 4, 1, 1] u, float[4, 3, 3, 3] w, {NORM}>
        {{ s = Conv(x, u)  r = Relu(s)  h = {BN}(r, gain, shift, mean, variance)  y = Conv<group = 2>(h, w) }}""",
    "gemm": f"""<float[6, 80] w, float[6] b, {NORM}>
        {{ f = Flatten(x)  h = Gemm<transB = 1, alpha = 0.5, beta = 2.0>(f, w, b)
          y = {BN}(h, gain, shift, mean, variance) }}""",
}
KEPT = {
    "read twice": f"""<float[6, 4, 1, 1] w, {NORM}>
        {{ h = Conv(x, w)  n = {BN}(h, gain, shift, mean, variance)  y = Add(n, h) }}""",
    "padded": f"""<float[6, 4, 1, 1] u, float[5, 6, 3, 3] w, {NORM}>
        {{ s = Conv(x, u)  r = Relu(s)  h = {BN}(r, gain, shift, mean, variance)
          y = Conv<pads = [1, 1, 1, 1]>(h, w) }}""",
    "computed": f"""<float[6, 4, 1, 1] w, {NORM}>
        {{ h = Conv(x, w)  m = ReduceMean<keepdims = 0, axes = [0, 2, 3]>(h)
          y = {BN}(h, gain, shift, m, variance) }}""",
}


def run(graph: str, build: Build, folder: Path) -> tuple[bool, onnx.ModelProto]:
    """Fold, and compare outputs."""
    rank = "batch, c" if "Gemm" in graph else "batch, c, u, v"
    path = build(f"net (float[batch, 4, 5, 4] x) => (float[{rank}] y) {graph}", **POSITIVE)
    model = open_model(path)
    modified = FoldBatchNorm()(model).modified
    save(model, folder / "after.onnx")
    check_model(folder / "after.onnx")
    data = feeds(shape=(4, 5, 4), batches=1)
    np.testing.assert_allclose(outputs(folder / "after.onnx", data), outputs(path, data), rtol=1e-4, atol=1e-4)
    return modified, onnx.load(folder / "after.onnx")


@pytest.mark.parametrize("name", FOLDED)
def test_folded(name: str, build: Build, tmp_path: Path) -> None:
    modified, after = run(FOLDED[name], build, tmp_path)
    assert modified
    assert "BatchNormalization" not in {node.op_type for node in after.graph.node}
    assert not {"gain", "mean", "shift", "variance"} & {tensor.name for tensor in after.graph.initializer}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str, build: Build, tmp_path: Path) -> None:
    modified, after = run(KEPT[name], build, tmp_path)
    assert not modified
    assert "BatchNormalization" in {node.op_type for node in after.graph.node}


def test_trained_model_loses_all_of_them(digits: dict[str, Path], tmp_path: Path) -> None:
    """Some of its parameters are the Identity of others."""
    model = open_model(digits["resnet"])
    FoldBatchNorm()(model)
    save(model, tmp_path / "after.onnx")
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(tmp_path / "after.onnx").graph.node}
    data = feeds("input", (1, 8, 8), batches=1)
    np.testing.assert_allclose(outputs(tmp_path / "after.onnx", data), outputs(digits["resnet"], data), atol=1e-4)


def test_half_precision_stays_half(build: Build, tmp_path: Path) -> None:
    graph = FOLDED["conv"].replace("float[", "float16[")
    model = open_model(build(f"net (float16[batch, 4, 5, 4] x) => (float16[batch, c, u, v] y) {graph}", **POSITIVE))
    assert FoldBatchNorm()(model).modified
    save(model, tmp_path / "after.onnx")
    types = {tensor.data_type for tensor in onnx.load(tmp_path / "after.onnx").graph.initializer}
    assert types == {onnx.TensorProto.FLOAT16}
