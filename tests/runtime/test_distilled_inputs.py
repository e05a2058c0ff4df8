"""Inputs that gradients bring nearer to what a network was trained on."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.model.file import open_model
from onnxprune.runtime.session import Session
from tests.conftest import Build

pytest.importorskip("torch")

import torch

from onnxprune.runtime.torch.distilled_inputs import Adam, distilled_inputs

STEPS = 60


def normalized(build: Build) -> ir.Model:
    """Conv and BatchNormalization with statistics that noise does not give."""
    rng = np.random.default_rng(0)
    graph = """
        net (float[batch, 2, 6, 6] x) => (float[batch, 5, 6, 6] y)
        <float[5, 2, 3, 3] weight, float[5] one, float[5] zero, float[5] mean, float[5] var>
        { c = Conv<pads = [1, 1, 1, 1]>(x, weight)
          y = BatchNormalization(c, one, zero, mean, var) }
    """
    arrays = {"weight": rng.standard_normal((5, 2, 3, 3)), "one": np.ones(5), "zero": np.zeros(5)}
    return open_model(build(graph, **arrays, mean=rng.standard_normal(5), var=rng.uniform(4, 9, 5)))


def classifier(build: Build, *, softmax: bool) -> ir.Model:
    graph = f"""
        net (float[batch, 6] x, int64[batch] rows) => (float[batch, 3] y)
        <float[6, 3] weight, float[4, 3] table>
        {{ h = MatMul(x, weight)
           t = Gather(table, rows)
           s = Add(h, t)
           y = {"Softmax" if softmax else "Identity"}(s) }}
    """
    rng = np.random.default_rng(1)
    return open_model(build(graph, weight=rng.standard_normal((6, 3)), table=rng.standard_normal((4, 3))))


def test_batchnormalizations_see_their_statistics(build: Build) -> None:
    model = normalized(build)
    noise = np.random.default_rng(0).standard_normal((32, 2, 6, 6)).astype("f")

    def far(images: np.ndarray) -> float:
        """What comes out has mean 0 and variance 1 where the statistics are those of the file."""
        y = Session(model).run({"x": images})["y"]
        return float(np.abs(y.mean((0, 2, 3))).mean() + np.abs(np.log(y.var((0, 2, 3)))).mean())

    (made,) = distilled_inputs(model, [{"x": noise}], steps=STEPS)
    assert far(noise) > 0.5
    assert far(made["x"]) < 0.2 * far(noise)
    assert made["x"].dtype == np.float32


@pytest.mark.parametrize("softmax", [False, True])
def test_a_classifier_is_sure_of_every_class_as_often(build: Build, softmax: bool) -> None:
    model = classifier(build, softmax=softmax)
    rows = np.arange(30) % 4
    x = np.random.default_rng(0).standard_normal((30, 6)).astype("f")
    (made,) = distilled_inputs(model, [{"x": x, "rows": rows}], steps=STEPS)
    chosen = Session(model).run(made)["y"].argmax(1)
    assert np.bincount(chosen, minlength=3).tolist() == [10, 10, 10]
    assert np.array_equal(made["rows"], rows)


def test_the_same_seed_gives_the_same_inputs(build: Build) -> None:
    model = classifier(build, softmax=False)
    feed = {"x": np.random.default_rng(0).standard_normal((12, 6)).astype("f"), "rows": np.arange(12) % 4}
    first, again, other = (distilled_inputs(model, [feed], steps=5, seed=seed)[0]["x"] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_network_that_says_nothing_gets_its_inputs_back(build: Build) -> None:
    model = open_model(build("net (float[batch, 3, 4] x) => (float[batch, 3, 4] y) { y = Relu(x) }"))
    feed = {"x": np.ones((2, 3, 4), "f")}
    (made,) = distilled_inputs(model, [feed], steps=3)
    assert made is feed


def test_adam_is_that_of_torch() -> None:
    start, target = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.0, 3.0, 0.5])
    ours, theirs = start.clone(), start.clone().requires_grad_()
    mine, other = Adam(ours, 0.1), torch.optim.Adam([theirs], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(other, 20)
    for step in range(20):
        mine.step(2 * (ours - target), 0.5 * (1 + math.cos(math.pi * step / 20)))
        other.zero_grad()
        (theirs - target).square().sum().backward()  # type: ignore[no-untyped-call]
        other.step()
        schedule.step()
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-5)
