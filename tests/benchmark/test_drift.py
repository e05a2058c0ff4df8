"""How far apart two models' answers are, against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.errors import UsageError
from onnxprune.evaluation.benchmark.drift import drift
from tests.conftest import Build

NET = """
    net (float[batch, 3] x) => (float[batch, 3] y, int64[batch, 1] best)
    <float[3] scale> { y = Mul(x, scale)  best = ArgMax<axis=1>(y) }
"""
FEED = {"x": np.array([[1, 2, 3], [3, 1, 2]], np.float32)}


def test_numbers(build: Build) -> None:
    one = build(NET, name="one", scale=[1, 1, 1])
    other = build(NET, name="other", scale=[1, 1, 4])
    answers = FEED["x"], FEED["x"] * [1, 1, 4]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(*answers, strict=True)]
    same, logits, best = (found := drift([one, one, other, other], [FEED, FEED]))[0], *found[2:4]
    assert (same.model, same.output, same.samples) == (str(one), "y", 4)
    assert (same.max_difference, same.agreement) == (0, 1)
    assert same.cosine == pytest.approx(1)
    assert (logits.model, logits.output, logits.samples) == (str(other), "y", 4)
    assert logits.cosine == pytest.approx(np.mean(cosines), abs=1e-6)
    assert logits.max_difference == pytest.approx(9)
    assert logits.agreement == 0.5
    assert [(each.position, each.samples) for each in found] == [(i, 4) for i in (1, 1, 2, 2, 3, 3)]
    assert (best.output, best.cosine, best.max_difference, best.agreement) == ("best", None, 2, None)


def test_not_a_number_is_as_far_apart_as_can_be(build: Build) -> None:
    one, other = build(NET, name="one", scale=[1, 1, 1]), build(NET, name="other", scale=[1, 1, np.nan])
    (found, _) = drift([one, other], [FEED])
    assert found.max_difference == np.inf
    assert found.agreement == 0


def test_models_that_do_not_compare(build: Build) -> None:
    one = build(NET, name="one")
    renamed = build("net (float[batch, 3] x) => (float[batch, 3] z) { z = Relu(x) }", name="renamed")
    with pytest.raises(UsageError, match=r"renamed\.onnx has no output 'best', which .*one.onnx has"):
        drift([one, renamed], [FEED])

    def wider(model: onnx.ModelProto) -> None:
        model.graph.output[0].type.tensor_type.shape.Clear()

    other = build(
        "net (float[batch, 3] x) => (float[batch, n] y) { y = Concat<axis=1>(x, x) }", name="other", edit=wider
    )
    plain = build("net (float[batch, 3] x) => (float[batch, 3] y) { y = Relu(x) }", name="plain")
    with pytest.raises(UsageError, match=r"output 'y' has shape \[2, 6\] in .*other.onnx and \[2, 3\] in .*plain.onnx"):
        drift([plain, other], [FEED])
