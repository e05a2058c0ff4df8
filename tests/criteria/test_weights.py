"""Sizes of weights against plain numpy on the slices that belong to a unit, written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.pipeline.scores import score
from onnxprune.steps.prune.criteria import base
from tests.conftest import FUSED_ATTENTION, Build

Slices = list[np.ndarray]


def weights(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def mean_absolute(slices: Slices) -> float:
    return float(np.abs(np.concatenate([part.ravel() for part in slices]).astype(np.float64)).mean())


def root_mean_square(slices: Slices) -> float:
    return float(np.sqrt(np.square(np.concatenate([part.ravel() for part in slices]).astype(np.float64)).mean()))


CRITERIA = pytest.mark.parametrize(("criterion", "norm"), [("group-l1", mean_absolute), ("group-l2", root_mean_square)])
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
    np.testing.assert_allclose(score(path, criterion)["w"], expected, rtol=1e-6)


@CRITERIA
def test_channels_of_a_convolution(build: Build, criterion: str, norm: Norm) -> None:
    """A channel owns its filter, scale and shift, and a slice of every filter that reads it; no running statistics."""
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
    expected = [norm([w["w"][i], w["v"][:, i], w["scale"][i : i + 1], w["shift"][i : i + 1]]) for i in range(8)]
    np.testing.assert_allclose(score(path, criterion)["w"], expected, rtol=1e-6)


@pytest.mark.parametrize("criterion", ["l0", "l1", "l2", "group-l1", "group-l2", "lamp", "bn-scale"])
def test_running_statistics_are_no_weights(build: Build, criterion: str) -> None:
    net = """
        net (float[batch, 3, 6, 6] x) => (float[batch, 4, 6, 6] y)
        <float[8, 3, 3, 3] w, float[8] scale, float[8] shift, float[8] mean, float[8] var = {VAR}, float[4, 8, 1, 1] v>
        { h = Conv<pads = [1, 1, 1, 1]>(x, w)  n = BatchNormalization(h, scale, shift, mean, var)  y = Conv(n, v) }
    """
    variances = ("1, 2, 3, 4, 5, 6, 7, 8", "90, 80, 70, 60, 50, 40, 30, 20")
    one, other = (build(net.replace("VAR", each), name=str(i)) for i, each in enumerate(variances))
    np.testing.assert_array_equal(score(one, criterion)["w"], score(other, criterion)["w"])


@pytest.mark.parametrize(
    ("criterion", "norm"), [("l1", lambda f: np.abs(f).sum()), ("l2", lambda f: np.sqrt(np.square(f).sum()))]
)
def test_l1_and_l2_are_those_of_the_filter_alone(
    build: Build, criterion: str, norm: Callable[[np.ndarray], float]
) -> None:
    """Li et al. and He et al. rank by the filter: no bias, no normalization, nothing of what reads the channel."""
    path = build("""
        net (float[batch, 3, 6, 6] x) => (float[batch, 4, 6, 6] y)
        <float[8, 3, 3, 3] w, float[8] b, float[8] scale, float[8] shift, float[8] mean,
         float[8] var = {1, 2, 3, 4, 5, 6, 7, 8}, float[4, 8, 1, 1] v>
        {
            h = Conv<pads = [1, 1, 1, 1]>(x, w, b)  n = BatchNormalization(h, scale, shift, mean, var)
            y = Conv(n, v)
        }
    """)
    expected = [norm(each.astype(np.float64)) for each in weights(path)["w"]]
    np.testing.assert_allclose(score(path, criterion)["w"], expected, rtol=1e-6)


def test_l1_of_a_residual_stream_adds_all_filters_that_write_it(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 8] u, float[8, 3] v>
        { h = MatMul(x, w)  k = MatMul(h, u)  s = Add(h, k)  y = MatMul(s, v) }
    """)
    w = weights(path)
    expected = np.abs(w["w"]).sum(0) + np.abs(w["u"]).sum(0)
    np.testing.assert_allclose(score(path, "l1")["w"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("criterion", "power"), [("group-l1", 1), ("group-l2", 2), ("lamp", 2)], ids=["group-l1", "group-l2", "lamp"]
)
def test_an_entry_that_row_and_column_share_counts_once(build: Build, criterion: str, power: int) -> None:
    """A square weight on a residual stream."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 4] w, float[4, 4] u, float[4, 3] v>
        { h = MatMul(x, w)  k = MatMul(h, u)  s = Add(h, k)  y = MatMul(s, v) }
    """)
    w = {name: np.abs(each.astype(np.float64)) ** power for name, each in weights(path).items()}
    u = w["u"]
    total = w["w"].sum(0) + w["v"].sum(1) + u.sum(0) + u.sum(1) - np.diag(u)
    mean = total / (5 + 3 + 7)
    expected = {"group-l1": mean, "group-l2": np.sqrt(mean)}.get(criterion)
    if expected is None:
        expected = np.array([each / total[total >= each].sum() for each in total])
    np.testing.assert_allclose(score(path, criterion)["w"], expected, rtol=1e-6)


@CRITERIA
def test_heads_and_head_entries_of_fused_attention(build: Build, criterion: str, norm: Norm) -> None:
    """Columns are Product(3, heads, size): a head owns a block of each third, an entry one column of each block."""
    path = build(FUSED_ATTENTION)
    w = weights(path)
    qkv, bias, out = w["qkv"].reshape(24, 3, 4, 6), w["bias"].reshape(3, 4, 6), w["out"].reshape(4, 6, 24)
    heads = [norm([qkv[:, :, i], bias[:, i], out[i]]) for i in range(4)]
    found = score(path, criterion)
    by_size = {len(values): values for values in found.values()}
    np.testing.assert_allclose(by_size[4], heads, rtol=1e-6)
    entries = [norm([qkv[:, :, :, i], bias[:, :, i], out[:, i]]) for i in range(6)]
    np.testing.assert_allclose(by_size[6], entries, rtol=1e-6)


@CRITERIA
def test_hidden_units_of_an_lstm(build: Build, criterion: str, norm: Norm) -> None:
    """A hidden unit owns a row in each of four gates, of input and recurrence, and a column of the recurrence.

    Where row and column cross, the entry counts once.
    """
    path = build("""
        net (float[5, batch, 3] x) => (float[5, batch, 2] y)
        <float[1, 32, 3] w, float[1, 32, 8] r, float[1, 64] b, float[8, 2] v, int64[1] one = {1}>
        { h = LSTM<hidden_size = 8>(x, w, r, b)  s = Squeeze(h, one)  y = MatMul(s, v) }
    """)
    w = weights(path)
    gates = [w["w"].reshape(4, 8, 3), w["r"].reshape(4, 8, 8), w["b"].reshape(8, 8)]
    expected = []
    for i in range(8):
        column = np.delete(w["r"].reshape(4, 8, 8), i, axis=1)[:, :, i]
        expected.append(norm([gate[:, i] for gate in gates] + [column, w["v"][i]]))
    (found,) = score(path, criterion).values()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_indices_do_not_count(build: Build) -> None:
    """The positions that a Gather picks are not parameters, though they belong to the units."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v, int64[8] order = {4, 5, 6, 7, 0, 1, 2, 3}>
        { h = MatMul(x, w)  g = Gather<axis = 1>(h, order)  y = MatMul(g, v) }
    """)
    w = weights(path)
    found = score(path, "group-l1")
    expected = [mean_absolute([w["w"][:, (i + 4) % 8], w["v"][i]]) for i in range(8)]
    np.testing.assert_allclose(found["w"], expected, rtol=1e-6)


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
    np.testing.assert_allclose(score(path, "group-l2")["w"], 300)


def test_sums_by_blocks_equal_sums_at_once(digits: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = score(digits["transformer"], "group-l1")
    monkeypatch.setattr(base, "_CHUNK_BYTES", 100)
    for group, values in score(digits["transformer"], "group-l1").items():
        np.testing.assert_allclose(values, whole[group], rtol=1e-6)


def test_unsigned_weights_count_from_the_middle_of_their_range() -> None:
    signed = np.random.default_rng(0).integers(-100, 100, (6, 5)).astype(np.int8)
    shifted = (signed.astype(np.int16) + 128).astype(np.uint8)
    for power in (1, 2):
        for one, other in zip(
            *(base._axis_sums(array, [(0,), (1,)], power).values() for array in (signed, shifted)), strict=True
        ):
            np.testing.assert_array_equal(one, other)


PERCEPTRON = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[8, 5] w, float[8] b, float[8, 3] v>
    { h = Gemm<transB = 1>(x, w, b)  r = Relu(h)  y = MatMul(r, v) }
"""


def test_l0_is_the_share_of_weights_above_a_hundredth_of_the_root_mean_square(build: Build) -> None:
    rng = np.random.default_rng(2)
    scale = {"w": 1e-6, "b": 1.0, "v": 1e3}  # a threshold for each tensor
    arrays = {
        name: scale[name] * rng.standard_normal(shape) * rng.choice([1.0, 1e-4], shape)
        for name, shape in {"w": (8, 5), "b": (8,), "v": (8, 3)}.items()
    }
    path = build(PERCEPTRON, **arrays)
    large = {
        name: np.abs(w) > 0.01 * np.sqrt(np.mean(np.square(w, dtype=np.float64))) for name, w in weights(path).items()
    }
    expected = [np.mean([*large["w"][i], large["b"][i], *large["v"][i]]) for i in range(8)]
    np.testing.assert_allclose(score(path, "l0")["w"], expected)
    assert len(set(expected)) > 3


def test_lamp_is_the_share_of_a_unit_in_what_is_at_least_as_large(build: Build) -> None:
    path = build(PERCEPTRON)
    w = weights(path)
    norms = [np.sum(np.square(np.concatenate([w["w"][i], [w["b"][i]], w["v"][i]]))) for i in range(8)]
    expected = [norm / sum(other for other in norms if other >= norm) for norm in norms]
    found = score(path, "lamp")["w"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.max() == 1


def test_lamp_of_equal_and_of_dead_units(build: Build) -> None:
    """Equal ones share: the fourth part of four is a quarter each; nothing is left of nothing."""
    w, b, v = np.zeros((8, 5)), np.zeros(8), np.zeros((8, 3))
    w[4:] = 2
    np.testing.assert_allclose(score(build(PERCEPTRON, w=w, b=b, v=v), "lamp")["w"], [0] * 4 + [0.25] * 4)
    np.testing.assert_array_equal(score(build(PERCEPTRON, w=0 * w, b=b, v=v), "lamp")["w"], 0)


def test_lamp_does_not_see_the_scale_of_a_group_and_is_ranked_as_it_is(build: Build) -> None:
    path = build(PERCEPTRON)
    scaled = build(PERCEPTRON, name="scaled", **{name: 1e3 * w for name, w in weights(path).items()})
    np.testing.assert_allclose(score(path, "lamp")["w"], score(scaled, "lamp")["w"], rtol=1e-5)
    assert base.criteria["lamp"].comparable


def test_entropy_is_that_of_a_histogram(build: Build) -> None:
    stats = pytest.importorskip("scipy.stats")
    path = build("""
        net (float[batch, 3, 6, 6] x) => (float[batch, 4, 6, 6] y)
        <float[8, 3, 3, 3] w, float[8, 8, 1, 1] u, float[4, 8, 1, 1] v>
        { h = Conv<pads = [1, 1, 1, 1]>(x, w)  k = Conv(h, u)  s = Add(h, k)  y = Conv(s, v) }
    """)
    filters = [weights(path)[name].reshape(8, -1) for name in ("w", "u")]  # both make the units
    expected = []
    for i in range(8):
        counts = [np.histogram(each[i], bins=32, range=(each.min(), each.max()))[0] for each in filters]
        expected.append(stats.entropy(np.sum(counts, axis=0)))
    np.testing.assert_allclose(score(path, "information")["w"], expected, rtol=1e-6)
    np.testing.assert_allclose(score(path, "entropy")["w"], np.log(32) - expected, rtol=1e-6)


def test_histograms_of_blocks_are_those_of_the_whole(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bins span all blocks of a weight, not the last one."""
    path = build(PERCEPTRON, w=np.random.default_rng(0).standard_normal((8, 5)) * np.array([1, 9, 3, 0.1, 2]))
    whole = score(path, "information")["w"]
    monkeypatch.setattr(base, "_BLOCK_ENTRIES", 8)
    np.testing.assert_allclose(score(path, "information")["w"], whole)


def test_weights_that_are_all_alike_have_no_information(build: Build) -> None:
    np.testing.assert_array_equal(score(build(PERCEPTRON, w=np.full((8, 5), 0.3)), "information")["w"], 0)


def test_biases_of_both_directions_are_no_filters(build: Build) -> None:
    path = build("""
        net (float[5, batch, 3] x) => (float[5, 2, batch, 3] y)
        <float[2, 16, 3] w, float[2, 16, 4] r, float[2, 32] b, float[4, 3] v>
        { h = LSTM<hidden_size = 4, direction = "bidirectional">(x, w, r, b)  y = MatMul(h, v) }
    """)
    w = weights(path)
    made = np.concatenate([w["w"].reshape(2, 4, 4, 3), w["r"].reshape(2, 4, 4, 4)], axis=3)
    filters = made.transpose(2, 0, 1, 3).reshape(4, -1).astype(np.float64)
    (found,) = score(path, "l2").values()
    np.testing.assert_allclose(found, np.linalg.norm(filters, axis=1), rtol=1e-6)


NORMALIZED = """
    net (float[batch, 3, 6, 6] x) => (float[batch, 4, 6, 6] y)
    <float[8, 3, 3, 3] w, float[8] gamma, float[8] beta, float[8] mean, float[8] var = {1, 2, 3, 4, 5, 6, 7, 8},
     float[8, 8, 1, 1] u, float[8] gamma2, float[8] beta2, float[6, 8, 1, 1] free, float[4, 6, 1, 1] v>
    {
        h = Conv<pads = [1, 1, 1, 1]>(x, w)  n = BatchNormalization(h, gamma, beta, mean, var)
        k = Conv(n, u)  m = InstanceNormalization(k, gamma2, beta2)  s = Add(n, m)
        f = Conv(s, free)  r = Relu(f)  y = Conv(r, v)
    }
"""


def test_bn_scale_is_the_mean_absolute_gamma_of_all_normalizations_of_a_unit(build: Build) -> None:
    path = build(NORMALIZED)
    w = weights(path)
    expected = (np.abs(w["gamma"]) + np.abs(w["gamma2"])) / 2
    np.testing.assert_allclose(score(path, "bn-scale")["w"], expected, rtol=1e-6)


def test_bn_scale_of_a_group_without_one_is_l2_on_the_same_scale(build: Build) -> None:
    path = build(NORMALIZED)
    found, norms = score(path, "bn-scale"), score(path, "l2")["free"]
    np.testing.assert_allclose(found["free"], norms / norms.mean() * found["w"].mean(), rtol=1e-6)
    alone, norms = score(build(PERCEPTRON), "bn-scale")["w"], score(build(PERCEPTRON), "l2")["w"]
    np.testing.assert_allclose(alone, norms / norms.mean(), rtol=1e-6)


@pytest.mark.parametrize(
    ("nodes", "declared", "opsets"),
    [
        ("n = LayerNormalization(k, g, b)", "float[8] g, float[8] b", {}),
        ("n = SimplifiedLayerNormalization(k, g)", "float[8] g", {}),
        ("n = com.microsoft.SkipLayerNormalization(k, k, g)", "float[8] g", {"com.microsoft": 1}),
    ],
    ids=["layer", "rms", "skip"],
)
def test_bn_scale_knows_the_other_normalizations(
    build: Build, nodes: str, declared: str, opsets: dict[str, int]
) -> None:
    path = build(
        f"""
        net (float[batch, 7, 5] x) => (float[batch, 7, 3] y)
        <float[5, 8] w, {declared}, float[8, 3] v>
        {{ k = MatMul(x, w)  {nodes}  y = MatMul(n, v) }}
        """,
        opsets=opsets,
    )
    np.testing.assert_allclose(score(path, "bn-scale")["w"], np.abs(weights(path)["g"]), rtol=1e-6)
