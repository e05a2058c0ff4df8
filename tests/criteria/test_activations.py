"""Criteria on activations against numpy, scipy and torch on what the units of small models give, computed by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from scipy import stats
from torch.nn import functional

from onnxprune.data.base import Batch, Data
from onnxprune.errors import UsageError
from onnxprune.pipeline.run import inspect
from onnxprune.statistics.activations import Activations
from onnxprune.steps.prune.criteria.base import Scores, ScoringContext, WeightReader, criteria, weight_sizes
from onnxprune.steps.prune.score import score_model
from tests.conftest import Build

Array = npt.NDArray[Any]
ON_ACTIVATIONS = [name for name in criteria.names() if "activations" in criteria[name].needs]
SIZES = (13, 11)

PERCEPTRON = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[8, 5] w, float[8] b, float[8, 3] v>
    { h = Gemm<transB = 1>(x, w, b)  r = Relu(h)  y = MatMul(r, v) }
"""
CONVOLUTION = """
    net (float[batch, 3, 9, 8] x) => (float[batch, 4, a, b] y)
    <float[6, 3, 3, 3] w, float[4, 6, 3, 2] v>
    { h = Conv<pads = [1, 1, 1, 1]>(x, w)  r = Relu(h)  y = Conv<strides = [2, 1], pads = [1, 0, 1, 0]>(r, v) }
"""


def inputs(*shape: int, labels: Array | None = None) -> tuple[Data, Array]:
    """Data of two unequal batches, and all of it in one array."""
    every = np.random.default_rng(0).standard_normal((sum(SIZES), *shape)).astype(np.float32)
    ends = np.cumsum(SIZES)[:-1]
    given = [None] * len(SIZES) if labels is None else np.split(labels, ends)
    batches = [Batch({"x": part}, label) for part, label in zip(np.split(every, ends), given, strict=True)]
    return Data("made up", labels is not None, lambda: iter(batches)), every


def weights(path: Path) -> dict[str, Array]:
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor).astype(np.float64)
        for tensor in onnx.load(path).graph.initializer
    }


def only_scores(path: Path, name: str, data: Data) -> Scores:
    analysis = inspect(path)
    (found,) = score_model(analysis, analysis.groups, name, data).values()
    return found


def hidden(path: Path, x: Array) -> Array:
    """What the neurons of PERCEPTRON give: [samples, units]."""
    w = weights(path)
    return np.maximum(x @ w["w"].T + w["b"], 0)


def maps(path: Path, x: Array) -> Array:
    """What the channels of CONVOLUTION give: [samples, units, height, width]."""
    result: Array = functional.relu(
        functional.conv2d(torch.from_numpy(x).double(), torch.from_numpy(weights(path)["w"]), padding=1)
    ).numpy()
    return result


STATISTICS: Mapping[str, Callable[[Array], Array]] = {
    "activation-mean": lambda h: h.mean(0),
    "activation-variance": lambda h: h.var(0),
    "apoz": lambda h: (h > 0).mean(0),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_neurons(build: Build, name: str) -> None:
    path, (data, x) = build(PERCEPTRON), inputs(5)
    np.testing.assert_allclose(only_scores(path, name, data), STATISTICS[name](hidden(path, x)), rtol=1e-5)


@pytest.mark.parametrize("name", STATISTICS)
def test_channels(build: Build, name: str) -> None:
    path, (data, x) = build(CONVOLUTION), inputs(3, 9, 8)
    flat = maps(path, x).transpose(0, 2, 3, 1).reshape(-1, 6)
    np.testing.assert_allclose(only_scores(path, name, data), STATISTICS[name](flat), rtol=1e-5)


def test_negative_activations_count_by_their_size(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v>
        { h = MatMul(x, w)  y = MatMul(h, v) }
    """)
    data, x = inputs(5)
    np.testing.assert_allclose(
        only_scores(path, "activation-mean", data), np.abs(x @ weights(path)["w"]).mean(0), rtol=1e-5
    )


def test_entries_of_a_flattened_channel_vary_each_around_its_mean(build: Build) -> None:
    path = build("""
        net (float[batch, 3, 4, 4] x) => (float[batch, 2] y)
        <float[6, 3, 3, 3] w, float[24, 2] v>
        { h = Conv(x, w)  r = Relu(h)  f = Flatten(r)  y = MatMul(f, v) }
    """)
    data, x = inputs(3, 4, 4)
    h = functional.relu(functional.conv2d(torch.from_numpy(x), torch.from_numpy(weights(path)["w"]).float())).numpy()
    np.testing.assert_allclose(only_scores(path, "activation-variance", data), h.var(0).mean((1, 2)), rtol=1e-4)


def test_several_readers_count_alike(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v, float[8, 3] u>
        { h = MatMul(x, w)  r = Relu(h)  t = Tanh(h)  a = MatMul(r, v)  b = MatMul(t, u)  y = Add(a, b) }
    """)
    data, x = inputs(5)
    h = x @ weights(path)["w"]
    expected = (np.maximum(h, 0).mean(0) + np.abs(np.tanh(h)).mean(0)) / 2
    np.testing.assert_allclose(only_scores(path, "activation-mean", data), expected, rtol=1e-5)


def test_entropy_of_mean_activations(build: Build) -> None:
    path, (data, x) = build(CONVOLUTION), inputs(3, 9, 8)
    means = maps(path, x).mean((2, 3))
    expected = [stats.entropy(np.histogram(means[:, unit], 32)[0]) for unit in range(6)]
    np.testing.assert_allclose(only_scores(path, "activation-entropy", data), expected, rtol=1e-6)


def test_rank_of_feature_maps(build: Build) -> None:
    """A kernel of rank one on inputs of rank one, and kernels that see more of the channels."""
    w = np.zeros((6, 3, 1, 1))
    for unit in range(6):
        w[unit, : unit // 2 + 1] = 1
    path = build(
        """
        net (float[batch, 3, 9, 8] x) => (float[batch, 4, 9, 8] y)
        <float[6, 3, 1, 1] w, float[4, 6, 1, 1] v>
        { h = Conv(x, w)  y = Conv(h, v) }
        """,
        w=w,
    )
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(10, 3, 9, 1)) * rng.normal(size=(10, 3, 1, 8))).astype(np.float32)
    data = Data("outer products", False, lambda: iter([Batch({"x": x})]))
    np.testing.assert_array_equal(only_scores(path, "rank", data), [1, 1, 2, 2, 3, 3])


def seen_by_reader(path: Path, x: Array) -> tuple[Array, Array]:
    """CONVOLUTION's second layer: windows [places, channels, taps] and weights [outputs, channels, taps]."""
    padded = torch.from_numpy(maps(path, x))
    windows = functional.unfold(padded, (3, 2), padding=(1, 0), stride=(2, 1)).numpy()
    return windows.transpose(0, 2, 1).reshape(-1, 6, 6), weights(path)["v"].reshape(4, 6, 6)


def test_wanda_of_neurons(build: Build) -> None:
    path, (data, x) = build(PERCEPTRON), inputs(5)
    h = hidden(path, x)
    norms = np.linalg.norm(h, axis=0) / np.sqrt(len(h))
    expected = np.abs(weights(path)["v"]).sum(1) * norms
    np.testing.assert_allclose(only_scores(path, "wanda", data), expected, rtol=1e-5)


def test_wanda_of_channels(build: Build) -> None:
    path, (data, x) = build(CONVOLUTION), inputs(3, 9, 8)
    windows, v = seen_by_reader(path, x)
    norms = np.sqrt((windows**2).mean(0))
    np.testing.assert_allclose(only_scores(path, "wanda", data), np.einsum("oct,ct->c", np.abs(v), norms), rtol=1e-5)


def test_a_weight_without_limit_makes_the_unit_that_it_reads_the_first(build: Build) -> None:
    v = np.ones((8, 3))
    v[2, 1] = np.inf
    found = only_scores(build(PERCEPTRON, v=v), "wanda", inputs(5)[0])
    assert np.isfinite(found).all()
    assert found.argmax() == 2


def test_fluctuation_of_channels(build: Build) -> None:
    path, (data, x) = build(CONVOLUTION), inputs(3, 9, 8)
    windows, v = seen_by_reader(path, x)
    np.testing.assert_allclose(
        only_scores(path, "fluctuation", data), np.einsum("oct,ct->c", v**2, windows.var(0)), rtol=1e-5
    )


def test_depthwise_convolution_belongs_to_its_channels_and_reads_none(build: Build) -> None:
    path = build("""
        net (float[batch, 3, 5, 5] x) => (float[batch, 2, 5, 5] y)
        <float[6, 3, 1, 1] w, float[6, 1, 1, 1] d, float[2, 6, 1, 1] v>
        { h = Conv(x, w)  r = Relu(h)  k = Conv<group = 6>(r, d)  y = Conv(k, v) }
    """)
    data, x = inputs(3, 5, 5)
    w = weights(path)
    h = np.maximum(np.einsum("nchw,oc->nohw", x, w["w"][:, :, 0, 0]), 0)
    expected = np.abs(w["v"][:, :, 0, 0]).sum(0) * np.sqrt(((h * w["d"][:, 0]) ** 2).mean((0, 2, 3)))
    np.testing.assert_allclose(only_scores(path, "wanda", data), expected, rtol=1e-5)


def test_grouped_convolution_reads_the_channels_inside_its_groups(build: Build) -> None:
    path = build("""
        net (float[batch, 3, 5, 5] x) => (float[batch, 4, 5, 5] y)
        <float[6, 3, 1, 1] w, float[4, 3, 1, 1] d>
        { h = Conv(x, w)  r = Relu(h)  y = Conv<group = 2>(r, d) }
    """)
    data, x = inputs(3, 5, 5)
    w = weights(path)
    h = np.maximum(np.einsum("nchw,oc->nohw", x, w["w"][:, :, 0, 0]), 0)
    by_channel = np.abs(w["d"][:, :, 0, 0]).reshape(2, 2, 3).sum(1).ravel() * np.sqrt((h**2).mean((0, 2, 3)))
    analysis = inspect(path)
    (group,) = analysis.groups
    found = score_model(analysis, analysis.groups, "wanda", data)[group.id]
    np.testing.assert_allclose(found, by_channel.reshape(2, 3).sum(0), rtol=1e-5)


def test_products_of_groups_come_and_go_with_their_channels_and_read_none(build: Build) -> None:
    """Whole groups, of two: the score is that of the layer behind."""
    path = build("""
        net (float[batch, 3, 5, 5] x) => (float[batch, 4, 5, 5] y)
        <float[8, 3, 1, 1] w, float[6, 4, 1, 1] d, float[4, 6, 1, 1] v>
        { h = Conv(x, w)  r = Relu(h)  k = Conv<group = 2>(r, d)  y = Conv(k, v) }
    """)
    data, x = inputs(3, 5, 5)
    w = {name: array.reshape(array.shape[:2]) for name, array in weights(path).items()}
    h = np.maximum(np.einsum("nchw,oc->nohw", x, w["w"]), 0).reshape(len(x), 2, 4, 5, 5)
    k = np.einsum("ngchw,goc->ngohw", h, w["d"].reshape(2, 3, 4)).reshape(len(x), 6, 5, 5)
    by_channel = np.abs(w["v"]).sum(0) * np.sqrt((k**2).mean((0, 2, 3)))
    analysis = inspect(path)
    (outer,) = [group for group in analysis.groups if group.units == 2]
    found = score_model(analysis, [outer], "wanda", data)[outer.id]
    np.testing.assert_allclose(found, by_channel.reshape(2, 3).sum(1), rtol=1e-5)


def test_a_layer_that_writes_to_the_stream_that_it_reads_counts(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 8] u, float[8, 3] v>
        { h = MatMul(x, w)  k = MatMul(h, u)  s = Add(h, k)  y = MatMul(s, v) }
    """)
    data, x = inputs(5)
    w = weights(path)
    h = x @ w["w"]
    s = h + h @ w["u"]
    expected = sum(np.abs(w[name]).sum(1) * np.sqrt((given**2).mean(0)) for name, given in (("u", h), ("v", s)))
    np.testing.assert_allclose(only_scores(path, "wanda", data), expected, rtol=1e-5)


ATTENTION = """
    net (float[batch, 7, 12] x) => (float[batch, 7, 3] y)
    <float[12, 8] q, float[12, 8] k, float[12, 3] v>
    {
        a = MatMul(x, q)  b = MatMul(x, k)  t = Transpose<perm = [0, 2, 1]>(b)
        s = MatMul(a, t)  p = Softmax<axis = -1>(s)  o = MatMul(x, v)  y = MatMul(p, o)
    }
"""


@pytest.mark.parametrize(
    ("name", "statistic"),
    [("wanda", lambda values: np.sqrt((values**2).mean((0, 1)))), ("fluctuation", lambda values: values.var((0, 1)))],
    ids=["wanda", "fluctuation"],
)
def test_queries_and_keys_count_as_read_with_weights_of_one(
    build: Build, name: str, statistic: Callable[[Array], Array]
) -> None:
    path, (data, x) = build(ATTENTION), inputs(7, 12)
    w = weights(path)
    expected = (statistic(x @ w["q"]) + statistic(x @ w["k"])) / 2
    np.testing.assert_allclose(only_scores(path, name, data), expected, rtol=1e-5)


FUSED = """
    net (float[batch, 5, 6] x) => (float[batch, 5, 4] y)
    <float[6, 24] w, float[24] b, float[8, 4] v>
    { h = com.microsoft.Attention<num_heads = 2>(x, w, b)  y = MatMul(h, v) }
"""


@pytest.mark.parametrize("name", ON_ACTIVATIONS)
def test_units_that_are_never_read_have_the_sizes_of_their_weights(build: Build, name: str) -> None:
    """The entries of queries and keys inside a fused attention."""
    path = build(FUSED, opsets={"com.microsoft": 1})
    analysis = inspect(path)
    every = np.random.default_rng(0).standard_normal((6, 5, 6)).astype(np.float32)
    labels = np.arange(6) % 2
    data = Data("made up", True, lambda: iter([Batch({"x": every}, labels)]))
    found = score_model(analysis, analysis.groups, name, data)
    context, activations = ScoringContext(analysis, WeightReader(analysis)), Activations(analysis, data)
    unread = [group for group in analysis.groups if not activations.places(group)]
    assert unread
    for group in unread if name != "obs" else ():
        np.testing.assert_array_equal(found[group.id], weight_sizes(group, context))
    for values in found.values():
        assert np.isfinite(values).all()


def test_sizes_of_weights(build: Build) -> None:
    path = build(PERCEPTRON)
    w = weights(path)
    analysis = inspect(path)
    expected = np.sqrt((w["w"] ** 2).sum(1) + w["b"] ** 2 + (w["v"] ** 2).sum(1))
    (group,) = analysis.groups
    np.testing.assert_allclose(
        weight_sizes(group, ScoringContext(analysis, WeightReader(analysis))), expected, rtol=1e-6
    )


@pytest.mark.parametrize("name", ON_ACTIVATIONS)
def test_without_data_it_says_so(build: Build, name: str) -> None:
    analysis = inspect(build(PERCEPTRON))
    with pytest.raises(UsageError, match="give --data"):
        score_model(analysis, analysis.groups, name)
