"""Accumulators over unequal batches against numpy, scipy and scikit-learn on all values at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from scipy import stats
from sklearn.covariance import empirical_covariance

from onnxprune.analysis.layers import Layer, layers
from onnxprune.data.base import Batch
from onnxprune.dims import Atom, Dim, concat, product
from onnxprune.pipeline.run import inspect
from onnxprune.statistics.accumulators import (
    Classes,
    Covariance,
    Histogram,
    Ranks,
    Summary,
    axis_columns,
    layer_rows,
    pooled_by_sample,
    unit_maps,
    units,
)
from onnxprune.statistics.sites import SitePlace
from tests.conftest import Build

Array = npt.NDArray[Any]
SIZES = (7, 4, 6)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def filled(accumulator: Any, batches: list[Array], labels: list[Array] | None = None) -> Any:
    for index, value in enumerate(batches):
        feed = {"x": np.zeros((len(value), 1))}
        accumulator.update(value, Batch(feed, None if labels is None else labels[index]))
    return accumulator


def images(channels: int = 5, height: int = 3, width: int = 2) -> list[Array]:
    return [normal(size, channels, height, width, seed=size) for size in SIZES]


def place(dim: Dim, axis: int, samples: int = 0) -> SitePlace:
    return SitePlace("value", axis, dim, samples)


# -- views


def test_units_of_a_map_are_told_apart_by_the_dimension() -> None:
    """Entries 0..11 are Concat(2 of another group, Product(5 units, 2 entries))."""
    atom = Atom(5)
    dim = concat(Atom(2), product(atom, Atom(2)))
    value = normal(4, 12, 3)
    maps = unit_maps(value, place(dim, 1), atom, 4)
    assert maps.shape == (4, 5, 3, 2)
    np.testing.assert_array_equal(maps[1, 3, :, 1], value[1, 2 + 3 * 2 + 1, :])


def test_unit_that_occurs_twice_has_both_entries() -> None:
    atom = Atom(3)
    value = normal(4, 6)
    maps = unit_maps(value, place(concat(atom, atom), 1), atom, 4)
    np.testing.assert_array_equal(maps[:, 2], value[:, [2, 5]])


def test_samples_may_lie_on_another_axis() -> None:
    """As for an LSTM: [steps, batch, units]."""
    atom = Atom(5)
    value = normal(8, 4, 5)
    maps = unit_maps(value, place(atom, 2, samples=1), atom, 4)
    assert maps.shape == (4, 5, 8, 1)
    np.testing.assert_array_equal(maps[2, 1, :, 0], value[:, 2, 1])


def test_windows_of_a_sample_are_part_of_its_map() -> None:
    """As for windowed attention: [batch * windows, units]."""
    atom = Atom(5)
    value = normal(12, 5)
    maps = unit_maps(value, place(atom, 1), atom, 4)
    assert maps.shape == (4, 5, 3, 1)
    np.testing.assert_array_equal(maps[2, 1, :, 0], value[6:9, 1])


def test_value_without_samples_counts_as_one() -> None:
    atom = Atom(5)
    assert unit_maps(normal(7, 5), place(atom, 1), atom, 4).shape == (1, 5, 7, 1)


def test_value_without_samples_has_the_same_mean_for_all() -> None:
    atom = Atom(5)
    value = normal(7, 5)
    (block,) = pooled_by_sample(place(atom, 1), atom)(value, Batch({"x": np.zeros((4, 1))}))
    np.testing.assert_allclose(block, np.tile(value.mean(0, dtype=np.float64), (1, 4, 1)))


# -- sums


def test_summary_of_columns() -> None:
    batches = images()
    batches[1][batches[1] < 0.3] = 0
    every = np.concatenate(batches).astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, 5)
    found = filled(Summary(axis_columns(place(Atom(5), 1))), batches)
    assert found.count == len(every)
    np.testing.assert_allclose(found.mean[0], every.mean(0))
    np.testing.assert_allclose(found.variance[0], every.var(0))
    np.testing.assert_allclose(found.mean_square[0], (every**2).mean(0))
    np.testing.assert_allclose(found.mean_size[0], np.abs(every).mean(0))
    np.testing.assert_allclose(found.zero_share[0], (every == 0).mean(0))
    np.testing.assert_array_equal(found.minimum[0], every.min(0))
    np.testing.assert_array_equal(found.maximum[0], every.max(0))


@pytest.mark.parametrize("statistic", [Summary, Covariance])
def test_large_mean_takes_nothing_from_a_small_variance(statistic: Callable[..., Any]) -> None:
    """In float64 sums of squares 1e8 +- 1e-2 would lose all digits of the variance."""
    batches = [1e8 + 1e-2 * normal(size, 3, seed=size).astype(np.float64) for size in SIZES]
    found = filled(statistic(axis_columns(place(Atom(3), 1))), batches)
    variance = found.variance[0] if statistic is Summary else np.diag(found.covariance[0])
    np.testing.assert_allclose(variance, np.concatenate(batches).var(0), rtol=1e-5)


def test_half_precision_is_summed_in_full() -> None:
    batches = [np.full((600, 2), 300, np.float16)] * 3
    assert filled(Summary(axis_columns(place(Atom(2), 1))), batches).mean_square[0, 0] == 90000


def test_values_that_are_not_finite_are_clipped() -> None:
    batches = [np.array([[np.inf, 1.0], [np.nan, 2.0]], np.float32)]
    found = filled(Summary(axis_columns(place(Atom(2), 1))), batches)
    assert np.isfinite(found.variance).all()
    np.testing.assert_allclose(found.mean[0, 1], 1.5)


def test_blocks_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = filled(Summary(axis_columns(place(Atom(5), 1))), images())
    monkeypatch.setattr("onnxprune.statistics.accumulators._BLOCK_ENTRIES", 17)
    parts = filled(Summary(axis_columns(place(Atom(5), 1))), images())
    np.testing.assert_allclose(parts.variance, whole.variance)
    assert parts.count == whole.count


def test_covariance_of_units() -> None:
    """Against scikit-learn; the two entries of a unit are further rows."""
    atom = Atom(5)
    batches = [normal(size, 10, seed=size) for size in SIZES]
    found = filled(Covariance(units(place(product(atom, Atom(2)), 1), atom)), batches)
    rows = np.concatenate(batches).astype(np.float64).reshape(-1, 5, 2).transpose(0, 2, 1).reshape(-1, 5)
    np.testing.assert_allclose(found.covariance[0], empirical_covariance(rows), atol=1e-12)
    np.testing.assert_allclose(found.gram[0], rows.T @ rows / len(rows), atol=1e-12)
    np.testing.assert_allclose(found.mean[0], rows.mean(0))


# -- rows of layers


def only_layer(build: Build, graph: str) -> tuple[Layer, Array]:
    path = build(graph)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    (layer,) = layers(inspect(path))
    return layer, weights["w"]


CONVOLUTIONS = {
    "plain": ("pads = [1, 1, 1, 1]", 1, {"padding": 1}),
    "strided": ("strides = [2, 1], pads = [1, 0, 1, 0]", 1, {"stride": (2, 1), "padding": (1, 0)}),
    "dilated": ("dilations = [2, 2]", 1, {"dilation": 2}),
    "grouped": ("group = 3, pads = [1, 1, 1, 1]", 3, {"padding": 1}),
    "depthwise": ("group = 6", 6, {}),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_gram_of_a_convolution_is_that_of_its_windows(build: Build, kind: str) -> None:
    """Against torch's unfold, group by group."""
    attributes, groups, options = CONVOLUTIONS[kind]
    layer, _ = only_layer(
        build,
        f"""
        net (float[batch, 6, 7, 6] x) => (float[batch, 6, a, b] y)
        <float[6, {6 // groups}, 3, 3] w>
        {{ y = Conv<{attributes}>(x, w) }}
        """,
    )
    batches = [normal(size, 6, 7, 6, seed=size) for size in SIZES]
    windows = torch.nn.functional.unfold(torch.from_numpy(np.concatenate(batches)), 3, **options).double().numpy()
    rows = windows.transpose(0, 2, 1).reshape(-1, groups, 6 // groups * 9).transpose(1, 0, 2)
    found = filled(Covariance(layer_rows(layer)), batches)
    np.testing.assert_allclose(found.gram, rows.transpose(0, 2, 1) @ rows / rows.shape[1], atol=1e-10)
    np.testing.assert_allclose(found.covariance, [np.cov(each.T, bias=True) for each in rows], atol=1e-10)
    summary = filled(Summary(layer_rows(layer)), batches)
    np.testing.assert_allclose(summary.mean_square, (rows**2).mean(1), atol=1e-10)


@pytest.mark.parametrize(
    ("graph", "shape"),
    [
        ("net (float[batch, 4] x) => (float[batch, 3] y) <float[4, 3] w> { y = Gemm(x, w) }", (4,)),
        ("net (float[batch, 5, 4] x) => (float[batch, 5, 3] y) <float[4, 3] w> { y = MatMul(x, w) }", (5, 4)),
    ],
)
def test_gram_of_a_matrix_product(build: Build, graph: str, shape: tuple[int, ...]) -> None:
    layer, _ = only_layer(build, graph)
    batches = [normal(size, *shape, seed=size) for size in SIZES]
    rows = np.concatenate(batches).astype(np.float64).reshape(-1, 4)
    np.testing.assert_allclose(
        filled(Covariance(layer_rows(layer)), batches).gram[0], rows.T @ rows / len(rows), atol=1e-12
    )


# -- per sample


def test_histogram_of_means() -> None:
    batches = images()
    means = np.concatenate(batches).mean((2, 3), dtype=np.float64)
    atom = Atom(5)
    view = pooled_by_sample(place(atom, 1), atom)
    extremes = filled(Summary(view), batches)
    found = filled(Histogram(view, extremes.minimum, extremes.maximum, 8), batches)
    for unit in range(5):
        expected, _ = np.histogram(means[:, unit], 8)
        np.testing.assert_array_equal(found.counts[0, unit], expected)


def test_histogram_of_a_constant() -> None:
    atom = Atom(2)
    view = pooled_by_sample(place(atom, 1), atom)
    found = filled(Histogram(view, np.zeros((1, 2)), np.zeros((1, 2)), 4), [np.zeros((6, 2), np.float32)])
    np.testing.assert_array_equal(found.counts[0], [[6, 0, 0, 0]] * 2)


def test_classes_that_do_not_occur_in_every_batch() -> None:
    """Against the sums of squares of a one-way analysis of variance."""
    atom = Atom(5)
    batches = images()
    labels = [np.array([0, 0, 1, 1, 1, 0, 9]), np.array([1, 1, 1, 1]), np.array([9, 0, 9, 9, 1, 0])]
    found = filled(Classes(pooled_by_sample(place(atom, 1), atom)), batches, labels)
    means = np.concatenate(batches).mean((2, 3), dtype=np.float64)
    label = np.concatenate(labels)
    assert found.counts == {name: int((label == name).sum()) for name in (0, 1, 9)}
    for name in (0, 1, 9):
        np.testing.assert_allclose(found.means[name][0], means[label == name].mean(0))
    np.testing.assert_allclose(found.between + found.within, means.var(0)[None])
    f = stats.f_oneway(*(means[label == name] for name in (0, 1, 9))).statistic
    ratio = (found.between[0] / 2) / (found.within[0] / (len(means) - 3))
    np.testing.assert_allclose(ratio, f)


@pytest.mark.parametrize("labels", [None, np.zeros(6, np.int64), np.zeros((7, 2), np.int64)])
def test_class_statistics_need_a_label_for_each_sample(labels: Array | None) -> None:
    atom = Atom(5)
    with pytest.raises(ValueError, match="a label for each sample"):
        Classes(pooled_by_sample(place(atom, 1), atom)).update(normal(7, 5), Batch({"x": np.zeros((7, 1))}, labels))


def test_rank_of_feature_maps() -> None:
    """Unit i is the sum of i outer products."""
    rng = np.random.default_rng(0)
    batches = [
        np.stack(
            [rng.normal(size=(size, 6, i)) @ rng.normal(size=(size, i, 7)) for i in range(5)], axis=1, dtype=np.float32
        )
        for size in SIZES
    ]
    atom = Atom(5)
    np.testing.assert_array_equal(filled(Ranks(place(atom, 1), atom), batches).mean, range(5))


def test_rank_of_tokens_is_taken_over_the_batch() -> None:
    """[batch, tokens, units]: unit i follows i patterns of tokens."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(4, 9))
    batches = [
        np.stack([rng.normal(size=(size, i)) @ patterns[:i] for i in range(4)], axis=2).astype(np.float32)
        for size in SIZES
    ]
    atom = Atom(4)
    np.testing.assert_array_equal(filled(Ranks(place(atom, 2), atom), batches).mean, range(4))


def test_rank_of_single_numbers_says_who_is_dead() -> None:
    atom = Atom(3)
    value = normal(7, 3)
    value[:, 1] = 0
    np.testing.assert_array_equal(filled(Ranks(place(atom, 1), atom), [value]).mean, [1, 0, 1])
