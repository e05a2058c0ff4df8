"""Geometric median and cosine against plain loops, scipy and scikit-learn, on filters written out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.dims import project
from onnxprune.pipeline.run import inspect
from onnxprune.pipeline.scores import score
from onnxprune.steps.prune.criteria import base
from tests.conftest import Build

CONV = """
    net (float[batch, 3, 6, 6] x) => (float[batch, 4, 6, 6] y)
    <float[8, 3, 3, 3] w, float[8] b, float[4, 8, 1, 1] v>
    { h = Conv<pads = [1, 1, 1, 1]>(x, w, b)  r = Relu(h)  y = Conv(r, v) }
"""


def weights(path: Path) -> dict[str, np.ndarray]:
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor).astype(np.float64)
        for tensor in onnx.load(path).graph.initializer
    }


def by_hand(filters: np.ndarray) -> list[float]:
    """Take the smaller of the two most similar filters out, again and again; one minus their cosine is its score."""
    cosine = pytest.importorskip("sklearn.metrics.pairwise").cosine_similarity(filters)
    left, found = list(range(len(filters))), [2.0] * len(filters)
    while len(left) > 1:
        pairs = [(cosine[i, j], i, j) for i in left for j in left if i < j]
        most, i, j = max(pairs)
        gone = min((i, j), key=lambda unit: np.linalg.norm(filters[unit]))
        found[gone] = 1 - most
        left.remove(gone)
    return found


def test_geometric_median_is_the_mean_distance_between_filters(build: Build) -> None:
    distances = pytest.importorskip("scipy.spatial.distance")
    path = build(CONV)
    filters = weights(path)["w"].reshape(8, -1)
    expected = distances.cdist(filters, filters).sum(axis=1) / 7
    np.testing.assert_allclose(score(path, "geometric-median")["w"], expected, rtol=1e-6)


def test_cosine_takes_units_out_one_by_one(build: Build) -> None:
    path = build(CONV)
    np.testing.assert_allclose(
        score(path, "cosine")["w"], by_hand(weights(path)["w"].reshape(8, -1)), rtol=1e-6, atol=1e-12
    )


def test_cosine_of_many_units(build: Build) -> None:
    """Clusters of up to 12 similar filters, of different sizes."""
    rng = np.random.default_rng(1)
    filters = (rng.standard_normal((9, 20))[rng.integers(0, 9, 60)] + 0.2 * rng.standard_normal((60, 20))).T
    path = build(
        """
        net (float[batch, 20] x) => (float[batch, 3] y)
        <float[20, 60] w, float[60, 3] v>
        { h = MatMul(x, w)  y = MatMul(h, v) }
        """,
        w=filters,
    )
    np.testing.assert_allclose(score(path, "cosine")["w"], by_hand(weights(path)["w"].T), rtol=1e-6, atol=1e-12)


def test_one_of_each_similar_set_stays(build: Build) -> None:
    """Units 0, 1, 2 point the same way, and so do 3 and 4; 5 is opposite to 3, and 6 and 7 are like nothing else."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((8, 27))
    w[1], w[2], w[4], w[5] = 2 * w[0], 0.5 * w[0], 3 * w[3], -w[3]
    found = score(build(CONV, w=w), "cosine")["w"]
    order = list(np.argsort(found, kind="stable"))
    assert set(order[:3]) == {0, 2, 3}  # the smaller ones; 1 and 4 stay for them
    np.testing.assert_allclose(found[order[:3]], 0, atol=1e-6)
    assert found[[1, 4, 5, 6, 7]].min() > 0.3


def test_filters_of_zeros_go_first_and_take_none_with_them(build: Build) -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((8, 27))
    w[2] = w[6] = 0
    found = score(build(CONV, w=w), "cosine")["w"]
    np.testing.assert_array_equal(found[[2, 6]], 0)
    assert np.delete(found, [2, 6]).min() > 0.3


def test_filters_are_what_makes_a_unit_not_what_reads_it(build: Build) -> None:
    """On a residual stream a square matrix is both; its columns make the units, and so do all matrices before it."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] a, float[8] bias, float[8, 8] b, float[8, 3] c>
        { h = MatMul(x, a)  k = Add(h, bias)  r = MatMul(k, b)  s = Add(k, r)  y = MatMul(s, c) }
    """)
    w = weights(path)
    filters = np.concatenate([w["a"].T, w["b"].T], axis=1)
    np.testing.assert_allclose(score(path, "cosine")["a"], by_hand(filters), rtol=1e-6, atol=1e-12)


def test_heads_are_blocks_of_columns(build: Build) -> None:
    """Of a fused Product(3, heads, size) a head owns three blocks, laid out alike for all heads."""
    distances = pytest.importorskip("scipy.spatial.distance")
    path = build("""
        net (float[batch, 7, 24] x) => (float[batch, 7, 24] y)
        <float[24, 72] qkv, float[24, 24] out,
         int64[5] apart = {0, 7, 3, 4, 6}, int64[3] merge = {0, 7, 24},
         int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}>
        {
            h = MatMul(x, qkv)  t = Reshape(h, apart)  u = Transpose<perm = [2, 0, 3, 1, 4]>(t)
            q = Gather<axis = 0>(u, i0)  k = Gather<axis = 0>(u, i1)  v = Gather<axis = 0>(u, i2)
            kt = Transpose<perm = [0, 1, 3, 2]>(k)
            qk = MatMul(q, kt)  w = Softmax<axis = -1>(qk)  av = MatMul(w, v)
            back = Transpose<perm = [0, 2, 1, 3]>(av)  flat = Reshape(back, merge)
            y = MatMul(flat, out)
        }
    """)
    qkv = weights(path)["qkv"].reshape(24, 3, 4, 6)
    by_size = {len(values): values for values in score(path, "geometric-median").values()}
    for axis, units in ((2, 4), (3, 6)):
        filters = np.moveaxis(qkv, axis, 0).reshape(units, -1)
        expected = distances.cdist(filters, filters).sum(axis=1) / (units - 1)
        np.testing.assert_allclose(by_size[units], expected, rtol=1e-6)


def test_filters_of_integers_are_what_those_stand_for(build: Build) -> None:
    """One scale per input this time, so that leaving it out would turn the filters."""
    q = np.random.default_rng(0).integers(-127, 128, (5, 8))
    scale, zero = np.array([0.01, 0.1, 1, 2, 3]), np.arange(5)
    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <int8[5, 8] q, float[5] scale, int8[5] zero, float[8, 3] v>
        { w = DequantizeLinear<axis = 0>(q, scale, zero)  h = MatMul(x, w)  y = MatMul(h, v) }
        """,
        q=q,
        scale=scale,
        zero=zero,
    )
    filters = ((q - zero[:, None]) * scale[:, None]).T
    np.testing.assert_allclose(score(path, "cosine")["q"], by_hand(filters), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("criterion", ["geometric-median", "cosine", "entropy"])
def test_block_by_block_is_the_same(digits: dict[str, Path], monkeypatch: pytest.MonkeyPatch, criterion: str) -> None:
    whole = score(digits["transformer"], criterion)
    monkeypatch.setattr(base, "_BLOCK_ENTRIES", 100)
    for group, values in score(digits["transformer"], criterion).items():
        np.testing.assert_allclose(values, whole[group], rtol=1e-6, atol=1e-12)


def test_blocks_hold_every_entry_of_a_unit_once(digits: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Their squares add up to those that l2 sums, on the same occurrences."""
    monkeypatch.setattr(base, "_BLOCK_ENTRIES", 700)
    for model in ("resnet", "transformer", "lstm"):
        analysis = inspect(digits[model])
        reader = base.WeightReader(analysis)
        for group in analysis.groups:
            for place in reader.filters(group):
                squares = sum(np.square(block).sum(axis=1) for block in reader.unit_blocks(place, group.atom))
                expected = project(place.dim, reader.axis_sums(place.tensor, (place.axis,), 2))[group.atom]
                np.testing.assert_allclose(squares, expected, rtol=1e-5)
