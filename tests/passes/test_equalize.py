"""Ranges meet, and not a bit of the outputs changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.model.file import open_model, save
from onnxprune.passes.equalize import Equalize
from tests.conftest import Build
from tests.recovery.pruned import feeds, outputs

RNG = np.random.default_rng(0)
SPREAD = np.exp2(RNG.uniform(-8, 8, 6))


def ranges(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: np.abs(onnx.numpy_helper.to_array(tensor)) for tensor in onnx.load(path).graph.initializer}


def equalized(path: Path, folder: Path, shape: tuple[int, ...]) -> tuple[bool, dict[str, np.ndarray]]:
    model = open_model(path)
    modified = Equalize()(model).modified
    save(model, folder / "after.onnx")
    data = feeds(shape=shape, batches=2)
    np.testing.assert_array_equal(outputs(folder / "after.onnx", data), outputs(path, data))
    return modified, ranges(folder / "after.onnx")


def test_convolutions(build: Build, tmp_path: Path) -> None:
    graph = """
        net (float[batch, 4, 6, 6] x) => (float y) <float[6, 4, 3, 3] a, float[6] p, float[5, 6, 3, 3] b>
        { h = Conv(x, a, p)  r = Relu(h)  m = MaxPool<kernel_shape = [2, 2]>(r)  y = Conv<pads = [1, 1, 1, 1]>(m, b) }
    """
    path = build(graph, a=SPREAD[:, None, None, None] * RNG.standard_normal((6, 4, 3, 3)))
    modified, after = equalized(path, tmp_path, (4, 6, 6))
    assert modified
    a, b = next(v for n, v in after.items() if v.shape == (6, 4, 3, 3)), after["b"]
    assert (np.abs(np.log2(a.max((1, 2, 3)) / b.max((0, 2, 3)))) <= 1 + 1e-6).all()


def test_chain_of_matrix_products(build: Build, tmp_path: Path) -> None:
    graph = """
        net (float[batch, 4] x) => (float[batch, 3] y)
        <float[4, 6] a, float[6] p, float[6, 6] b, float[3, 6] c>
        { h = Gemm(x, a, p)  r = LeakyRelu(h)  i = Gemm(r, b)  s = Relu(i)  y = Gemm<transB = 1>(s, c) }
    """
    path = build(graph, a=SPREAD * RNG.standard_normal((4, 6)))
    modified, after = equalized(path, tmp_path, (4,))
    assert modified
    for first, second in (("a", "b"), ("b", "c")):
        made, read = after[first].max(0), after[second].max(1 if second == "b" else 0)
        assert (np.abs(np.log2(made / read)) <= 1 + 1e-6).all()


@pytest.mark.parametrize(
    "body",
    [
        "h = Gemm(x, a)  r = Sigmoid(h)  y = Gemm(r, b)",
        "h = Gemm(x, a)  r = Relu(h)  i = Gemm(r, b)  y = Add(i, r)",
    ],
    ids=["curved", "read twice"],
)
def test_left_alone(body: str, build: Build, tmp_path: Path) -> None:
    graph = f"net (float[batch, 6] x) => (float[batch, 6] y) <float[6, 6] a, float[6, 6] b> {{ {body} }}"
    path = build(graph, a=SPREAD * RNG.standard_normal((6, 6)))
    assert not equalized(path, tmp_path, (6,))[0]


def test_dead_channels_are_left_alone(build: Build, tmp_path: Path) -> None:
    graph = """
        net (float[batch, 4] x) => (float[batch, 3] y) <float[4, 6] a, float[6, 3] b>
        { h = Gemm(x, a)  r = Relu(h)  y = Gemm(r, b) }
    """
    weight = RNG.standard_normal((4, 6))
    weight[:, 2] = 0
    modified, after = equalized(build(graph, a=weight), tmp_path, (4,))
    del modified
    assert np.isfinite(after["b"]).all()
    assert not after["a"][:, 2].any()
