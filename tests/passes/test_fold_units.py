"""Units that others can represent are folded without loss; where that is unsound they are left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.model.file import save
from onnxprune.pipeline.run import inspect
from onnxprune.steps.recover.fold import FoldUnits, _kernel
from tests.conftest import Build
from tests.recovery.pruned import error, feeds, outputs, pair

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((4, 6))
WEIGHT[:, 4], WEIGHT[:, 5] = 2.5 * WEIGHT[:, 1], 0.5 * WEIGHT[:, 2]
BIAS = RNG.standard_normal(6)
BIAS[4], BIAS[5] = 2.5 * BIAS[1], 0.5 * BIAS[2]

PERCEPTRON = """
    net (float[batch, 4] x) => (float[batch, 3] y) <float[4, 6] a, float[6] p, float[6, 3] b>
    { h = Gemm(x, a, p)  r = Relu(h)  y = MatMul(r, b) }
"""
CONVOLUTIONS = """
    net (float[batch, 4, 6, 6] x) => (float[batch, 2] y) <float[6, 4, 1, 1] a, float[6] p, float[54, 2] b>
    { h = Conv(x, a, p)  r = Relu(h)  m = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)  f = Flatten(m)
      y = Gemm(f, b) }
"""
NORMED = """
    net (float[batch, 4, 6] x) => (float[batch, 3, 4] y)
    <float[6, 4, 1] a, float[6] gain, float[6] shift, float[6] mean, float[6] var, float[3, 6, 3] b>
    { h = Conv(x, a)  n = BatchNormalization(h, gain, shift, mean, var)  r = Relu(n)  y = Conv(r, b) }
"""


def folded(path: Path, group: str, gone: tuple[int, ...], folder: Path, *, fold: bool) -> tuple[Path, list[str]]:
    pairing = pair(path, {group: gone})
    notes = FoldUnits(pairing)(pairing.pruned.model).notes if fold else []
    if fold:
        assert not FoldUnits(pairing)(pairing.pruned.model).modified
    save(pairing.pruned.model, folder / "after.onnx")
    return folder / "after.onnx", notes


@pytest.mark.parametrize(
    ("graph", "weights", "group", "shape"),
    [
        (PERCEPTRON, {"a": WEIGHT, "p": BIAS}, "a", (4,)),
        (CONVOLUTIONS, {"a": WEIGHT.T[:, :, None, None], "p": BIAS}, "a", (4, 6, 6)),
        (
            NORMED,
            {"a": WEIGHT.T[:, :, None], "shift": BIAS, "mean": 0 * BIAS, "gain": np.ones(6), "var": np.ones(6)},
            "a",
            (4, 6),
        ),
    ],
    ids=["gemm", "through pooling and flattening", "norm"],
)
def test_multiples_of_other_units_cost_nothing(graph, weights, group, shape, build: Build, tmp_path: Path) -> None:
    if "var" in weights:  # the spread that such weights have
        weights = {**weights, "gain": np.linalg.norm(WEIGHT, axis=0), "var": np.linalg.norm(WEIGHT, axis=0) ** 2}
    path = build(graph, **weights)
    data = feeds(shape=shape, batches=1)
    due = outputs(path, data)
    dropped, _ = folded(path, group, (4, 5), tmp_path, fold=False)
    before = error(outputs(dropped, data), due)
    after = error(outputs(folded(path, group, (4, 5), tmp_path, fold=True)[0], data), due)
    assert before > 1e-2
    assert after < 1e-10


def test_mixtures_are_nearer_than_nothing(build: Build, tmp_path: Path) -> None:
    """Units that are like no other are stood for by several."""
    graph = PERCEPTRON.replace("6", "40")
    path = build(graph)
    data = feeds()
    due = outputs(path, data)
    gone = tuple(range(0, 40, 3))
    dropped, _ = folded(path, "a", gone, tmp_path, fold=False)
    before = error(outputs(dropped, data), due)
    after, notes = folded(path, "a", gone, tmp_path, fold=True)
    assert error(outputs(after, data), due) < 0.2 * before
    assert not notes


@pytest.mark.parametrize(
    "body",
    [
        "h = MatMul(x, a)  r = Sigmoid(h)  y = MatMul(r, b)",
        "h = MatMul(x, a)  k = MatMul(x, c)  s = Add(h, k)  y = MatMul(s, b)",
    ],
    ids=["curved", "stream"],
)
def test_what_cannot_be_folded_is_dropped_and_said(body: str, build: Build, tmp_path: Path) -> None:
    graph = f"net (float[batch, 4] x) => (float[batch, 3] y) <float[4, 6] a, float[4, 6] c, float[6, 3] b> {{ {body} }}"
    path = build(graph)
    dropped = folded(path, "a", (4, 5), tmp_path, fold=False)[0].read_bytes()
    after, notes = folded(path, "a", (4, 5), tmp_path, fold=True)
    assert after.read_bytes() == dropped
    assert notes == ["a: nothing of the removed units could be folded into others"]


def test_kernel_is_the_mean_product_under_white_noise() -> None:
    vectors = RNG.standard_normal((5, 3))
    units = np.maximum(RNG.standard_normal((400_000, 3)) @ vectors.T, 0)
    np.testing.assert_allclose(_kernel(vectors, rectified=True), units.T @ units / len(units), atol=0.05)
    np.testing.assert_allclose(_kernel(vectors, rectified=False), vectors @ vectors.T)


def test_trained_model_keeps_more_of_its_decisions(digits: dict[str, Path], tmp_path: Path) -> None:
    data = [{"input": np.load(digits["resnet"].parent / "digits_test.npz")["input"]}]
    due = outputs(digits["resnet"], data).argmax(1)
    group = max(inspect(digits["resnet"]).groups, key=lambda each: (len(each.occurrences) < 8, each.units))
    gone = tuple(range(0, group.units, 2))
    agreement = [
        np.mean(outputs(folded(digits["resnet"], group.id, gone, tmp_path, fold=fold)[0], data).argmax(1) == due)
        for fold in (False, True)
    ]
    assert agreement[1] >= agreement[0]


def test_other_model_is_a_mistake(build: Build) -> None:
    pairing = pair(build(PERCEPTRON), {"a": (0,)})
    with pytest.raises(ValueError, match="pruned one"):
        FoldUnits(pairing)(pairing.original.model)
