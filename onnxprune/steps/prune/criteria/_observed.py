"""What the surgeon knows of the layers that read units: how their rows vary together, and what is read behind them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Group
from onnxprune.analysis.layers import Array, Layer, fittable, layers, matrix_of, residual
from onnxprune.data.base import Batch, length_of
from onnxprune.dims import atoms
from onnxprune.model.inner_values import name_seen_by
from onnxprune.statistics.accumulators import Covariance, Summary, View, drawn_rows
from onnxprune.statistics.activations import Accumulator
from onnxprune.statistics.precision import products_type
from onnxprune.statistics.windows import Windows
from onnxprune.steps.prune.criteria.base import ScoringContext
from onnxprune.support.memory import bytes_for

Matrix = npt.NDArray[np.float64]

# Rows of each batch and layer that go into H, however batches are cut to fit into memory.
_MAX_ROWS = 1_500
# H takes the square of a layer's features in memory and the cube in time: 130 MB and some seconds for so many channels.
# Layers with more (behind a flattened map) are taken to have a diagonal one.
_MOST_CHANNELS = 4_096
# The H of a convolution with more features than this is taken as a product, see Windows.
_MOST_FEATURES = 1_152


@dataclass(frozen=True)
class Observed:
    """What is known of a layer: covariance, or variances only, of its rows, and variance of what is read behind it.

    That is `output`, or follows from the rows where the results are not a value of the graph.
    """

    layer: Layer
    rows: Covariance | Windows | Summary
    output: Summary | None

    @property
    def variance(self) -> float:
        """Of all outputs together."""
        if self.output is not None:
            return max(float(self.output.variance.sum()), 1e-30)
        matrices, rows = matrix_of(self.layer), self.rows
        if isinstance(rows, Summary):
            return max(float((rows.variance[:, :, None] * np.square(matrices)).sum()), 1e-30)
        factors = (factored(rows, number, matrix) for number, matrix in enumerate(matrices))
        return max(float(sum(np.sum(matrix * (between @ matrix)) for between, matrix in factors)), 1e-30)


class Observations:
    """What is known of the layers, of as many at a time as memory holds: one run over the data for each portion.

    Layers that share a weight, and read values of one shape, share rows. Where the readers of one group alone have more
    features than memory holds products of, each of their features has its variance only.
    """

    def __init__(self, context: ScoringContext) -> None:
        self._context = context
        analysis = context.analysis
        self._layers = list(layers(analysis, hidden=True, bodies=True))
        self._fitted = {layer.node for layer in fittable(self._layers)} if context.compensated else set[ir.Node]()
        self._atoms = [set(atoms(analysis.dims[layer.x][layer.form.axis])) for layer in self._layers]
        self._found: dict[int, Observed] = {}
        self._rows_each = max(1, _MAX_ROWS // length_of(next(context.activations.data.batches())))
        self._sizes = [self._size(layer) for layer in self._layers]
        for group in analysis.groups:
            readers = self._readers(group)
            if self._bytes(readers) > bytes_for("matrices"):
                self._sizes = [0 if number in readers else size for number, size in enumerate(self._sizes)]

    @property
    def nodes(self) -> set[ir.Node]:
        """Of all layers."""
        return {layer.node for layer in self._layers}

    def of(self, group: Group) -> list[Observed]:
        """The layers that read units of a group; others are forgotten where memory does not hold all."""
        wanted = self._readers(group)
        if not self._found.keys() >= wanted:
            self._found.clear()
            self._observe(self._portion(group))
        return [self._found[number] for number in sorted(wanted)]

    def _readers(self, group: Group) -> set[int]:
        return {number for number, found in enumerate(self._atoms) if group.atom in found}

    def _portion(self, group: Group) -> set[int]:
        """The readers of a group, and of those that come next while there is memory for them."""
        groups = self._context.analysis.groups
        portion = self._readers(group)
        for later in groups[groups.index(group) + 1 :]:
            if self._bytes(portion | self._readers(later)) > bytes_for("matrices"):
                break
            portion |= self._readers(later)
        return portion

    def _bytes(self, numbers: Iterable[int]) -> int:
        """What matrices of features of these layers take, with an inverse for every second of them."""
        return sum({self._layers[number].operand.name: self._sizes[number] for number in numbers}.values()) * 3 // 2

    def _size(self, layer: Layer) -> int:
        """Bytes of a matrix of features; 0 where there is only a variance for each."""
        channels, taps, groups = self._channels(layer), layer.form.taps, layer.form.groups
        if layer.node not in self._fitted or channels > _MOST_CHANNELS:
            return 0
        features = channels * taps if _is_whole(channels, taps) else channels
        matrices = groups if features > channels or taps == 1 else groups * taps
        return int(matrices * features**2 * products_type(features).itemsize)

    def _channels(self, layer: Layer) -> int:
        return self._context.analysis.dims[layer.x][layer.form.axis].size // layer.form.groups

    def _observe(self, numbers: Set[int]) -> None:
        context, analysis = self._context, self._context.analysis
        watch = dict[str, list[Accumulator]]()
        pooled: dict[tuple[Any, ...], Covariance | Windows | Summary] = {}
        for number in sorted(numbers):
            layer = self._layers[number]
            behind = residual(layer, analysis)
            shapes = analysis.shapes.shapes[layer.x], analysis.shapes.shapes.get(layer.y, ())
            view = drawn_rows(layer, *shapes, np.random.default_rng([context.seed, number]), self._rows_each)
            rows: Covariance | Windows | Summary = Summary(view)
            if self._sizes[number]:
                whole = _is_whole(self._channels(layer), layer.form.taps)
                rows = Covariance(view) if whole else Windows(view, layer.form.taps)
            if layer.readers > 1:  # the steps of an unrolled cell
                rows = pooled.setdefault((layer.operand.name, layer.form.axis, *shapes), rows)
            output = Summary(_channels(layer.form.out_axis)) if layer.form.hidden is None else None
            watch.setdefault(name_seen_by(layer.node, layer.x, analysis.model), []).append(rows)
            if output is not None:
                read = behind.sum if behind else layer.y
                watch.setdefault(name_seen_by(layer.node, read, analysis.model), []).append(output)
            self._found[number] = Observed(layer, rows, output)
        context.activations.collect(watch)


def _is_whole(channels: int, taps: int) -> bool:
    """Are products of all features kept, rather than those of channels and those of taps?"""
    return channels * taps <= max(_MOST_FEATURES, channels)


def _channels(axis: int) -> View:
    """All entries of an axis as features."""

    def view(value: Array, batch: Batch) -> Iterator[Array]:
        del batch
        yield np.moveaxis(value, axis, -1).reshape(1, -1, value.shape[axis])

    return view


def factored(rows: Covariance | Windows, number: int, matrix: Matrix) -> tuple[Matrix, Matrix]:
    """H of a product and its matrix, with a row per feature, or per channel where H is kept as a product."""
    if isinstance(rows, Covariance):
        return rows.covariance[number], matrix
    between, within = rows.factors(number)
    return between, _over_taps(matrix, within)


def _over_taps(matrix: Matrix, within: Matrix) -> Matrix:
    """The matrix of a convolution with a row per channel, so that tr(W^T kron(c, T) W) is c times its squares."""
    taps = len(within)
    half = np.linalg.cholesky(within + 1e-9 * np.eye(taps))
    windows = matrix.reshape(-1, taps, matrix.shape[1])
    rotated: Matrix = np.matmul(half.T, windows)
    return rotated.reshape(len(windows), -1)
