"""Redundancy of activations: against numpy's correlation, and that one of each similar set stays."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from onnxprune.data.base import Batch, Data
from onnxprune.pipeline.run import inspect
from onnxprune.steps.prune.criteria.base import Scores
from onnxprune.steps.prune.score import score_model
from tests.conftest import Build
from tests.criteria.test_activations import Array, inputs, only_scores, weights

SIMILARITIES = ["activation-similarity", "correlation"]


def scores_of(build: Build, name: str, w: Array, b: Array | float = 0.0, relu: bool = False) -> Scores:
    """The scores of neurons with these weights and biases, on normal inputs."""
    path = build(
        f"""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, {w.shape[1]}] w, float[{w.shape[1]}] b, float[{w.shape[1]}, 3] v>
        {{ g = MatMul(x, w)  h = Add(g, b)  r = {"Relu" if relu else "Identity"}(h)  y = MatMul(r, v) }}
        """,
        w=w,
        b=np.broadcast_to(b, w.shape[1]),
    )
    return only_scores(path, name, inputs(5)[0])


def normal(*shape: int) -> Array:
    return np.random.default_rng(1).standard_normal(shape)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_two_units_are_scored_by_how_alike_they_are(build: Build, name: str) -> None:
    """The smaller goes first with 1 - similarity, the other is alone then."""
    w = normal(5, 2)
    h = (inputs(5)[1] @ w.astype(np.float32)).astype(np.float64)
    if name == "correlation":
        similar, sizes = np.corrcoef(h.T)[0, 1], h.std(0)
    else:
        similar, sizes = cosine_similarity(h.T)[0, 1], np.linalg.norm(h, axis=0)
    expected = np.full(2, 2.0)
    expected[sizes.argmin()] = 1 - similar
    np.testing.assert_allclose(scores_of(build, name, w), expected, rtol=1e-5)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_one_of_each_similar_set_stays(build: Build, name: str) -> None:
    """Columns 0, 1, 2 are multiples of each other, so are 3 and 4; 5 is alone."""
    w = normal(5, 6)
    w[:, 1], w[:, 2], w[:, 4] = 2 * w[:, 0], 3 * w[:, 0], 0.5 * w[:, 3]
    found = scores_of(build, name, w)
    np.testing.assert_allclose(found[[0, 1, 4]], 0, atol=1e-6)
    assert found[[2, 3, 5]].min() > 0.05


def test_opposite_units_are_not_redundant(build: Build) -> None:
    w = normal(5, 4)
    w[:, 1] = -w[:, 0]
    found = scores_of(build, "correlation", w)
    assert found[[0, 1]].min() > 0.05


def test_shifted_copy_is_correlated_but_not_similar(build: Build) -> None:
    w = normal(5, 2)
    w[:, 1] = w[:, 0]
    b = np.array([0.0, 30.0])
    assert scores_of(build, "correlation", w, b).min() == pytest.approx(0, abs=1e-6)
    assert scores_of(build, "activation-similarity", w, b).min() > 0.5


@pytest.mark.parametrize("name", SIMILARITIES)
def test_dead_units_score_least(build: Build, name: str) -> None:
    found = scores_of(build, name, normal(5, 6), np.array([0, 0, -100.0, 0, 0, 0]), relu=True)
    assert found[2] == 0
    assert np.delete(found, 2).min() > 0


def test_constant_units_score_least_by_correlation(build: Build) -> None:
    w = normal(5, 6)
    w[:, 2] = 0
    assert scores_of(build, "correlation", w, 0.1)[2] == 0


def test_readers_count_alike_whatever_the_scale(build: Build) -> None:
    """Units 0 and 1 agree for the reader of the large values only."""
    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 4] w, float[1] big = {1000.0}, float[4, 3] v, float[4, 3] u>
        { h = MatMul(x, w)  l = Mul(h, big)  a = MatMul(l, v)  t = Relu(h)  b = MatMul(t, u)  y = Add(a, b) }
        """
    )
    data, x = inputs(5)
    h = x @ weights(path)["w"]
    parts = [h, np.maximum(h, 0)]
    similar = sum(part.T @ part / np.square(part).sum() for part in parts)
    sizes = np.sqrt(np.diag(similar))
    similar = similar / np.outer(sizes, sizes)
    np.fill_diagonal(similar, -1)
    found = only_scores(path, "activation-similarity", data)
    np.testing.assert_allclose(found.min(), 1 - similar.max(), rtol=1e-5)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_memory_of_the_patterns_is_not_kept(build: Build, name: str) -> None:
    """The same for one batch as for many."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v>
        { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }
    """)
    every = inputs(5)[1]
    once = Data("once", False, lambda: iter([Batch({"x": every})]))
    apart = Data("apart", False, lambda: (Batch({"x": each[None]}) for each in every))
    analysis = inspect(path)
    one, other = (score_model(analysis, analysis.groups, name, data) for data in (once, apart))
    for group, values in one.items():
        np.testing.assert_allclose(other[group], values, rtol=1e-5, atol=1e-9)
