"""Statistics of values that come batch by batch: what is kept does not grow with the data, and is summed in float64.

An accumulator sees a value as blocks of rows, [groups, rows, features]; which ones says its view:

    columns(place)      a feature is an entry of the place's axis, a row everything else that the value enumerates
    units(place, atom)  a feature is a unit; the entries of a unit with several are further rows
    pooled(place, atom) the same with one row per sample, the mean of all that a unit has there
    layer_rows(layer)   the rows that an affine layer multiplies with its matrix (im2col for a convolution)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.analysis.layers import Layer, choose_positions
from onnxprune.data.base import Batch, length_of
from onnxprune.dims import Atom, units_of
from onnxprune.statistics.precision import add_outer, products_type
from onnxprune.statistics.sites import SitePlace

Array = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]
View = Callable[[Array, Batch], Iterator[Array]]

# Entries of a value that are looked at together in float64.
_BLOCK_ENTRIES = 1 << 22
_FLOAT32_MAX = float(np.finfo(np.float32).max)


# -- views


def axis_columns(place: SitePlace) -> View:
    """Blocks [1, rows, entries of the axis]."""

    def view(value: Array, batch: Batch) -> Iterator[Array]:
        del batch
        rows = np.moveaxis(_from_zero(value, place), place.axis, -1)
        for block in _blocks(rows.reshape(-1, rows.shape[-1])):
            yield block[None]

    return view


def units(place: SitePlace, atom: Atom) -> View:
    """Blocks [1, rows, units]."""

    def view(value: Array, batch: Batch) -> Iterator[Array]:
        maps = unit_maps(value, place, atom, length_of(batch))
        rows = np.moveaxis(maps.reshape(*maps.shape[:2], -1), 1, -1)
        for block in _blocks(rows.reshape(-1, rows.shape[-1])):
            yield block[None]

    return view


def pooled_by_sample(place: SitePlace, atom: Atom) -> View:
    """One block [1, samples, units]; a value that does not enumerate the samples is the same for all of them."""

    def view(value: Array, batch: Batch) -> Iterator[Array]:
        samples = length_of(batch)
        maps = unit_maps(value, place, atom, samples)
        rows = maps.reshape(*maps.shape[:2], -1).mean(axis=2, dtype=np.float64)
        yield np.broadcast_to(rows, (samples, rows.shape[1]))[None]

    return view


def layer_rows(layer: Layer) -> View:
    """Blocks [groups, rows, features], some samples at a time: windows of a convolution overlap and take memory."""

    def view(value: Array, batch: Batch) -> Iterator[Array]:
        del batch
        if layer.form.stack == 0:  # the first axis enumerates products
            yield layer.form.rows(value, None)
            return
        step = max(1, _BLOCK_ENTRIES * len(value) // max(1, value.size * layer.form.taps))
        for start in range(0, len(value), step):
            yield layer.form.rows(value[start : start + step], None)

    return view


def drawn_rows(
    layer: Layer, x_shape: tuple[int, ...], y_shape: tuple[int, ...], rng: np.random.Generator, limit: int
) -> View:
    """At most so many rows of a layer for each sample, at places drawn for each batch; shapes are of the analysis."""

    def view(value: Array, batch: Batch) -> Iterator[Array]:
        del batch
        if not layer.form.drawn:
            yield layer.form.rows(value, None)
            return
        if value.shape[1:] == x_shape[1:]:
            positions = choose_positions(layer.places((len(value), *y_shape[1:])), limit, rng)
            yield layer.form.rows(value, positions)
            return
        count = places_of(layer, value)  # another size along a dynamic axis
        if count is None:
            yield layer.form.rows(value, None)
            return
        yield layer.form.rows(value, choose_positions(count, limit, rng))

    return view


def places_of(layer: Layer, value: Array) -> int | None:
    """How many rows each sample of a value gives; None where rows are no places of samples.

    Counted on one sample and one channel of each product, in one byte an entry: all windows of images are large.
    """
    if layer.form.stack is not None or layer.form.axis == 0:
        return None
    channels = value.shape[layer.form.axis] if layer.form.taps == 1 else layer.form.groups
    sample = np.moveaxis(value[:1], layer.form.axis, 0)[:channels]
    rows = layer.form.rows(np.moveaxis(sample != 0, 0, layer.form.axis), None)
    return int(rows.shape[1])


def unit_maps(value: Array, place: SitePlace, atom: Atom, samples: int) -> Array:
    """The values of each unit in each sample: shape [samples, units, ...], the entries of a unit last.

    Where the value does not enumerate the samples, all of it counts as one sample.
    """
    entries = units_of(place.dim, atom)
    order = np.argsort(entries, kind="stable")
    rows = np.moveaxis(_from_zero(value, place), place.axis, -1)[..., order[entries[order] >= 0]]
    axis = place.samples - (place.samples > place.axis)
    if place.samples != place.axis and rows.shape[axis] % samples == 0:
        rows = np.moveaxis(rows, axis, 0)
        if len(rows) > samples:  # windows, say
            rows = rows.reshape(samples, -1, *rows.shape[1:])
    else:
        rows = rows[None]
    maps = rows.reshape(*rows.shape[:-1], atom.size, -1)
    return np.moveaxis(maps, -2, 1)


def _from_zero(value: Array, place: SitePlace) -> Array:
    return value.astype(np.float32) - np.float32(place.zero) if place.zero else value


def _blocks(rows: Array) -> Iterator[Array]:
    step = max(1, _BLOCK_ENTRIES // max(1, rows.shape[-1]))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _float64(block: Array) -> Matrix:
    """The same with infinite entries clipped to the range of float32, and NaN as 0."""
    wide = block.astype(np.float64)
    if not np.isfinite(wide).all():
        wide = np.clip(np.nan_to_num(wide), -_FLOAT32_MAX, _FLOAT32_MAX)
    return wide


# -- accumulators


class Summary:
    """Mean, variance, mean size, share of zeros and extremes of each feature: float64, shape [groups, features].

    Blocks are merged by their means and squared deviations (Chan et al. 1983, "Algorithms for Computing the Sample
    Variance", equation 2.1), so that a large mean takes nothing from a small variance.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self.count = 0
        self.mean: Matrix = np.zeros((1, 1))
        self._deviations: Matrix = np.zeros((1, 1))
        self._sizes: Matrix = np.zeros((1, 1))
        self._zeros: Matrix = np.zeros((1, 1))
        self.minimum: Matrix = np.full((1, 1), np.inf)
        self.maximum: Matrix = np.full((1, 1), -np.inf)

    def update(self, value: Array, batch: Batch) -> None:
        """Take the value that a batch gives."""
        for block in self._view(value, batch):
            self._add(_float64(block))

    def _add(self, rows: Matrix) -> None:
        here, before = rows.shape[1], self.count
        if not here:
            return
        self.count += here
        mean = rows.mean(axis=1)
        self._zeros = self._zeros + (rows == 0).sum(axis=1)
        self._sizes = self._sizes + np.abs(rows).sum(axis=1)
        self.minimum = np.minimum(self.minimum, rows.min(axis=1))
        self.maximum = np.maximum(self.maximum, rows.max(axis=1))
        rows -= mean[:, None]
        step = mean - self.mean
        self._deviations = (
            self._deviations + np.einsum("gnf,gnf->gf", rows, rows) + step**2 * (before * here / self.count)
        )
        self.mean = self.mean + step * (here / self.count)

    @property
    def variance(self) -> Matrix:
        """Mean squared deviation from the mean."""
        return self._deviations / max(1, self.count)

    @property
    def mean_square(self) -> Matrix:
        """The second moment."""
        return self.variance + self.mean**2

    @property
    def mean_size(self) -> Matrix:
        """Mean absolute value."""
        return self._sizes / max(1, self.count)

    @property
    def zero_share(self) -> Matrix:
        """Share of values that are exactly 0."""
        return self._zeros / max(1, self.count)


class Covariance:
    """Means of features, float64 [groups, features], and covariances with each other, of their `products_type`."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.count = 0
        self.mean: Matrix = np.zeros((1, 1))
        self._products: Matrix = np.zeros((1, 1, 1))

    def update(self, value: Array, batch: Batch) -> None:
        """Take the value that a batch gives."""
        for block in self._view(value, batch):
            rows = _float64(block)
            here, before = rows.shape[1], self.count
            if not here:
                continue
            self.count += here
            mean = rows.mean(axis=1)
            rows = (rows - mean[:, None]).astype(products_type(rows.shape[2]), copy=False)
            step = mean - self.mean
            products = np.matmul(rows.transpose(0, 2, 1), rows)
            if before:
                products += self._products
            add_outer(products, step, before * here / self.count)
            self._products = products
            self.mean = self.mean + step * (here / self.count)

    @property
    def covariance(self) -> Matrix:
        """Mean product of the deviations from the means: [groups, features, features]."""
        return self._products / max(1, self.count)

    @property
    def gram(self) -> Matrix:
        """Mean product of the features as they are: [groups, features, features]."""
        return self.covariance + self.mean[:, :, None] * self.mean[:, None, :]


class Histogram:
    """How often each feature lies in each of `bins` equal parts of its range: float64, [groups, features, bins].

    Args:
        view: of the value.
        low, high: the range of each feature, [groups, features]; what lies outside counts in the nearest bin.
        bins: number of parts.
    """

    def __init__(self, view: View, low: Matrix, high: Matrix, bins: int) -> None:
        self._view = view
        self._low, self._width = low, np.where(high > low, high - low, 1.0)
        self._bins = bins
        self.counts: Matrix = np.zeros((*low.shape, bins))

    def update(self, value: Array, batch: Batch) -> None:
        """Take the value that a batch gives."""
        for block in self._view(value, batch):
            share = (_float64(block) - self._low[:, None]) / self._width[:, None]
            places = np.clip((share * self._bins).astype(np.int64), 0, self._bins - 1)
            for at in range(self._bins):
                self.counts[..., at] += (places == at).sum(axis=1)


class Classes:
    """Mean and variance of each feature within each class of samples; the view gives one row per sample.

    Attributes:
        counts, means: of each class by its label, a number and float64 [groups, features].
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self.counts: dict[int, int] = {}
        self.means: dict[int, Matrix] = {}
        self._deviations: dict[int, Matrix] = {}

    def update(self, value: Array, batch: Batch) -> None:
        """Take the value that a batch gives. Raises ValueError without a label for each row."""
        for block in self._view(value, batch):
            rows, labels = _float64(block), batch.labels
            if labels is None or labels.shape != rows.shape[1:2]:
                raise ValueError("a label for each sample is needed")
            for label in np.unique(labels):
                self._add(int(label), rows[:, labels == label])

    def _add(self, label: int, rows: Matrix) -> None:
        here, before = rows.shape[1], self.counts.get(label, 0)
        mean = rows.mean(axis=1)
        deviations: Matrix = np.square(rows - mean[:, None]).sum(axis=1)
        if before:
            step = mean - self.means[label]
            deviations = deviations + self._deviations[label] + step**2 * (before * here / (before + here))
            mean = self.means[label] + step * (here / (before + here))
        self.counts[label], self.means[label], self._deviations[label] = before + here, mean, deviations

    @property
    def within(self) -> Matrix:
        """Mean squared deviation of the samples from the means of their classes: [groups, features]."""
        deviations: Matrix = np.sum(list(self._deviations.values()), axis=0)
        return deviations / max(1, sum(self.counts.values()))

    @property
    def between(self) -> Matrix:
        """Mean squared deviation, over samples, of the means of their classes from the mean of all."""
        counts = np.array([self.counts[label] for label in self.means])[:, None, None]
        means = np.stack(list(self.means.values()))
        mean = np.sum(counts * means, axis=0) / counts.sum()
        between: Matrix = np.sum(counts * (means - mean) ** 2, axis=0) / counts.sum()
        return between


class Ranks:
    """Mean rank of what each unit gives, seen as matrices: float64, shape [units].

    A unit's map of one sample with two axes or more is a matrix, its first axis against the rest. Maps of one axis are
    the rows of one matrix for all samples of a batch. Single numbers have rank 1 unless all of a batch are 0.
    Singular values of less than the largest times the longer side times the precision of float32 count as 0.
    """

    def __init__(self, place: SitePlace, atom: Atom) -> None:
        self._place, self._atom = place, atom
        self._total: Matrix = np.zeros(atom.size)
        self._samples = 0

    def update(self, value: Array, batch: Batch) -> None:
        """Take the value that a batch gives."""
        maps = unit_maps(value, self._place, self._atom, length_of(batch))
        samples, units = maps.shape[:2]
        sizes = [size for size in maps.shape[2:] if size > 1]
        if len(sizes) > 1:
            matrices = maps.reshape(samples, units, sizes[0], -1)
        else:
            matrices = np.moveaxis(maps.reshape(samples, units, -1), 0, 1)[None]
        wide = np.nan_to_num(matrices.astype(np.float32), posinf=0.0, neginf=0.0)
        self._total += np.linalg.matrix_rank(wide).mean(axis=0) * samples
        self._samples += samples

    @property
    def mean(self) -> Matrix:
        """Over all samples."""
        mean: Matrix = self._total / max(1, self._samples)
        return mean
