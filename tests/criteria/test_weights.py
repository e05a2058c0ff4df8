"""l1 and l2 against plain numpy on the slices that belong to a unit, written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.criteria import base
from onnxprune.criteria.base import Context, Scores, WeightReader, score_groups
from onnxprune.pipeline import inspect
from tests.conftest import Build

Slices = list[np.ndarray]


def scores(path: Path, criterion: str) -> dict[str, Scores]:
    analysis = inspect(path)
    return score_groups(criterion, analysis.groups, Context(analysis, WeightReader(analysis)))


def weights(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def mean_absolute(slices: Slices) -> float:
    return float(np.abs(np.concatenate([part.ravel() for part in slices]).astype(np.float64)).mean())


def root_mean_square(slices: Slices) -> float:
    return float(np.sqrt(np.square(np.concatenate([part.ravel() for part in slices]).astype(np.float64)).mean()))


CRITERIA = pytest.mark.parametrize(("criterion", "norm"), [("l1", mean_absolute), ("l2", root_mean_square)])
Norm = Callable[[Slices], float]


@CRITERIA
def test_neurons_of_a_perceptron(build: Build, criterion: str, norm: Norm) -> None:
    """A neuron owns a column that makes it, its bias, and the row that reads it."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[8, 5] w, float[8] b, float[8, 3] v>
        { h = Gemm<transB = 1>(x, w, b)  r = Relu(h)  y = MatMul(r, v) }
    """)
    w = weights(path)
    expected = [norm([w["w"][i], w["b"][i : i + 1], w["v"][i]]) for i in range(8)]
    np.testing.assert_allclose(scores(path, criterion)["w[0]"], expected, rtol=1e-6)


@CRITERIA
def test_channels_of_a_convolution(build: Build, criterion: str, norm: Norm) -> None:
    """A channel owns its filter, its normalization, and a slice of every filter that reads it."""
    path = build("""
        net (float[batch, 3, 6, 6] x) => (float[batch, 4, 6, 6] y)
        <float[8, 3, 3, 3] w, float[8] scale, float[8] shift, float[8] mean, float[8] var = {1, 2, 3, 4, 5, 6, 7, 8},
         float[4, 8, 1, 1] v>
        {
            h = Conv<pads = [1, 1, 1, 1]>(x, w)  n = BatchNormalization(h, scale, shift, mean, var)  r = Relu(n)
            y = Conv(r, v)
        }
    """)
    w = weights(path)
    norms = ["scale", "shift", "mean", "var"]
    expected = [norm([w["w"][i], w["v"][:, i], *(w[name][i : i + 1] for name in norms)]) for i in range(8)]
    np.testing.assert_allclose(scores(path, criterion)["w[0]"], expected, rtol=1e-6)


@CRITERIA
def test_heads_and_head_entries_of_fused_attention(build: Build, criterion: str, norm: Norm) -> None:
    """Columns are Product(3, heads, size): a head owns a block of each third, an entry one column of each block."""
    path = build("""
        net (float[batch, 7, 24] x) => (float[batch, 7, 24] y)
        <float[24, 72] qkv, float[72] bias, float[24, 24] out,
         int64[5] apart = {0, 7, 3, 4, 6}, int64[3] merge = {0, 7, 24},
         int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}>
        {
            h = MatMul(x, qkv)  hb = Add(h, bias)  t = Reshape(hb, apart)  u = Transpose<perm = [2, 0, 3, 1, 4]>(t)
            q = Gather<axis = 0>(u, i0)  k = Gather<axis = 0>(u, i1)  v = Gather<axis = 0>(u, i2)
            kt = Transpose<perm = [0, 1, 3, 2]>(k)
            qk = MatMul(q, kt)  w = Softmax<axis = -1>(qk)  av = MatMul(w, v)
            back = Transpose<perm = [0, 2, 1, 3]>(av)  flat = Reshape(back, merge)
            y = MatMul(flat, out)
        }
    """)
    w = weights(path)
    qkv, bias, out = w["qkv"].reshape(24, 3, 4, 6), w["bias"].reshape(3, 4, 6), w["out"].reshape(4, 6, 24)
    heads = [norm([qkv[:, :, i], bias[:, i], out[i]]) for i in range(4)]
    found = scores(path, criterion)
    by_size = {len(values): values for values in found.values()}
    np.testing.assert_allclose(by_size[4], heads, rtol=1e-6)
    entries = [norm([qkv[:, :, :, i], bias[:, :, i], out[:, i]]) for i in range(6)]
    np.testing.assert_allclose(by_size[6], entries, rtol=1e-6)


@CRITERIA
def test_hidden_units_of_an_lstm(build: Build, criterion: str, norm: Norm) -> None:
    """A hidden unit owns a row in each of four gates, of input and recurrence, and a column of the recurrence.

    Where row and column cross, the unit owns an entry twice, and it counts twice.
    """
    path = build("""
        net (float[5, batch, 3] x) => (float[5, batch, 2] y)
        <float[1, 32, 3] w, float[1, 32, 8] r, float[1, 64] b, float[8, 2] v, int64[1] one = {1}>
        { h = LSTM<hidden_size = 8>(x, w, r, b)  s = Squeeze(h, one)  y = MatMul(s, v) }
    """)
    w = weights(path)
    gates = [w["w"].reshape(4, 8, 3), w["r"].reshape(4, 8, 8), w["b"].reshape(8, 8)]
    expected = [norm([gate[:, i] for gate in gates] + [w["r"][:, :, i], w["v"][i]]) for i in range(8)]
    (found,) = scores(path, criterion).values()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_indices_do_not_count(build: Build) -> None:
    """The positions that a Gather picks are no parameters, though they belong to the units."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v, int64[8] order = {4, 5, 6, 7, 0, 1, 2, 3}>
        { h = MatMul(x, w)  g = Gather<axis = 1>(h, order)  y = MatMul(g, v) }
    """)
    w = weights(path)
    found = scores(path, "l1")
    assert list(found) == ["w[1].0", "w[1].1"]
    for start, values in zip((0, 4), found.values(), strict=True):
        expected = [mean_absolute([w["w"][:, i], w["v"][(i + 4) % 8]]) for i in range(start, start + 4)]
        np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_half_precision_is_summed_in_full(build: Build) -> None:
    """300 x 300 is more than float16 can hold."""
    path = build(
        """
        net (float16[batch, 5] x) => (float16[batch, 3] y)
        <float16[5, 8] w, float16[8, 3] v>
        { h = MatMul(x, w)  y = MatMul(h, v) }
        """,
        w=np.full((5, 8), 300),
        v=np.full((8, 3), 300),
    )
    np.testing.assert_allclose(scores(path, "l2")["w[1]"], 300)


def test_sums_by_blocks_equal_sums_at_once(digits: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scores(digits["transformer"], "l1")
    monkeypatch.setattr(base, "_CHUNK_BYTES", 100)
    for group, values in scores(digits["transformer"], "l1").items():
        np.testing.assert_allclose(values, whole[group], rtol=1e-6)


def test_unsigned_weights_count_from_the_middle_of_their_range() -> None:
    signed = np.random.default_rng(0).integers(-100, 100, (6, 5)).astype(np.int8)
    shifted = (signed.astype(np.int16) + 128).astype(np.uint8)
    for power in (1, 2):
        for one, other in zip(
            *(base._axis_sums(array, [0, 1], power).values() for array in (signed, shifted)), strict=True
        ):
            np.testing.assert_array_equal(one, other)
