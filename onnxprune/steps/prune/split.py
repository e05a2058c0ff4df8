"""Where a layer's outputs lie along few directions: the original with such layers split into two thinner ones.

The directions are the principal axes of what the layer gives on the samples (Zhang et al. 2015, "Accelerating Very Deep
Convolutional Networks", section 3.1, without its nonlinearity). The units between the two are a group like any other,
whose scores are those axes' variances on samples, so an allocation weighs them against channels and neurons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from onnxprune.analysis import cost
from onnxprune.analysis.copy import copy_analysis
from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.inspect import analyze_model
from onnxprune.analysis.layers import Array, Layer, bias_of, layers, plain_matrix
from onnxprune.analysis.splittable import splittable
from onnxprune.data.base import Batch
from onnxprune.passes.low_rank import SplitLayers
from onnxprune.passes.rotate import RotateStreams, streams
from onnxprune.statistics.accumulators import Covariance, View
from onnxprune.statistics.activations import Activations
from onnxprune.steps.base import Context
from onnxprune.steps.state import State

Matrix = npt.NDArray[np.float64]

# Two thinner layers have to take so little of what the one takes; else one more node is not worth it.
_WORTH = 0.75
# A layer of less than this share of the arithmetic of all stays as it is.
_MATTERS = 0.01
# The covariance takes the square of the outputs in memory and the cube in time.
_MOST_OUTPUTS = 2_048
# One batch in so many is held out to say how many directions are needed.
_HELD_OUT = 3
# Directions in which next to nothing varies count as this share of the mean.
_RIDGE = 1e-5
# Rows of each batch and layer that are looked at.
_MAX_ROWS = 1_500


class Spectra:
    """The principal axes of what every layer of a model gives, found once; then split at any share.

    Args:
        state: nothing was removed from it.
        context: the samples.
    """

    def __init__(self, state: State, context: Context) -> None:
        assert context.samples is not None
        self._state = state
        self._layers = list(_worthwhile(state.analysis))
        watch: dict[str, list[_Parts]] = {}
        self._seen: list[_Parts] = []
        for number, layer in enumerate(self._layers):
            self._seen.append(_Parts(_rows(layer, np.random.default_rng([context.seed, number]))))
            name = layer.x if layer.form.hidden is not None else layer.node.outputs[0].name or ""
            watch.setdefault(name, []).append(self._seen[-1])
        if watch:
            activations = Activations(
                state.analysis, context.samples, providers=context.execution, progress=context.progress
            )
            activations.collect(watch)

    def directions(self, share: float) -> dict[str, Matrix]:
        """Per name of a layer's weight, the fewest directions that leave out no more than a share of its variance.

        Only where two thinner layers take less than the one; float64 [outputs, units].
        """
        found = {}
        for layer, seen in zip(self._layers, self._seen, strict=True):
            axes = np.linalg.eigh(_of_outputs(layer, seen.known)[0])[1][:, ::-1]
            gram, variance = _of_outputs(layer, seen.held_out)  # directions of few samples are not those of others
            left_out = np.trace(gram) - np.cumsum(np.einsum("ou,ou->u", axes, gram @ axes))
            units = 1 + int(np.sum(left_out > share * variance))
            features, outputs = plain_matrix(layer).shape[1:]
            if units * (features + outputs) <= _WORTH * features * outputs:
                found[layer.weight] = axes[:, :units]
        return found

    def split(self, share: float) -> State | None:
        """The state with those layers split; None where there are none."""
        directions = self.directions(share)
        return split_state(self._state, directions) if directions else None


def split_state(state: State, directions: Mapping[str, Matrix]) -> State:
    """A state whose original has the layers of these weights split; see `SplitLayers`."""
    analysis = copy_analysis(state.analysis)
    SplitLayers(analysis, directions)(analysis.model)
    analysis.model.meta["macs"] = cost.before(state.original).macs
    split = State.of(analyze_model(analysis.model), state.source)
    ranks = {weight: axes.shape[1] for weight, axes in directions.items()}
    return replace(split, given=state.given or state.original, ranks=ranks, records=state.records)


def rotate_state(state: State, context: Context) -> State | None:
    """A state whose linear streams lie along principal axes, which is exact; None where it has none, see `streams`.

    Of a stream with second moments C that layers read with matrices w, each over the root of its output's power, the
    axes are those of C^(1/2) w w^T C^(1/2): leaving out the last of them costs the readers least, together.
    """
    assert context.samples is not None
    analysis = copy_analysis(state.analysis)
    found = list(streams(analysis))
    seen = {(stream.group.id, layer.x): layer.form.axis for stream in found for layer in stream.readers}
    if not found:
        return None
    sums = {place: Covariance(_entries(axis)) for place, axis in seen.items()}
    activations = Activations(state.analysis, context.samples, providers=context.execution, progress=context.progress)
    watch: dict[str, list[Covariance]] = {}
    for (_, name), each in sums.items():
        watch.setdefault(name, []).append(each)
    activations.collect(watch)
    axes = {}
    for stream in found:
        gram = np.mean([each.gram[0] for (group, _), each in sums.items() if group == stream.group.id], axis=0)
        values, vectors = np.linalg.eigh(gram)
        roots = np.sqrt(np.maximum(values, _RIDGE * values.mean()))
        half, inverse = (vectors * power @ vectors.T for power in (roots, 1 / roots))
        read = [half @ plain_matrix(layer)[0].reshape(len(gram), -1) for layer in stream.readers]
        weighted = np.hstack([each / max(float(np.linalg.norm(each)), 1e-30) for each in read])
        axes[stream.group.id] = inverse @ np.linalg.svd(weighted)[0]
    RotateStreams(analysis, axes)(analysis.model)
    rotated = State.of(analyze_model(analysis.model), state.source)
    return replace(rotated, given=state.original, records=state.records)


def split_by_rank(state: State, ranks: Mapping[str, int]) -> State:
    """The same without samples, along the directions of the largest singular values of the weights."""
    found = {layer.weight: layer for layer in layers(state.analysis, hidden=True) if splittable(layer)}
    directions = {}
    for weight, rank in ranks.items():
        if weight in found:
            directions[weight] = np.linalg.svd(plain_matrix(found[weight])[0], full_matrices=False)[2][:rank].T
    return split_state(state, directions) if directions else state


class _Parts:
    """Covariances of two parts of the samples: every third batch is held out, or a third of the only one."""

    def __init__(self, view: View) -> None:
        self._view, self._number = view, 0
        self.known, self.held_out = Covariance(_as_it_is), Covariance(_as_it_is)

    def update(self, value: Array, batch: Batch) -> None:
        """Take the value that a batch gives."""
        for rows in self._view(value, batch):
            part = self.held_out if self._number % _HELD_OUT == 1 else self.known
            if self._number == 0:
                kept = -(-rows.shape[1] * (_HELD_OUT - 1) // _HELD_OUT)
                self.held_out.update(rows[:, kept:], batch)
                rows = rows[:, :kept]
            part.update(rows, batch)
        self._number += 1


def _as_it_is(rows: Array, batch: Batch) -> Iterator[Array]:
    del batch
    yield rows


def _worthwhile(analysis: Analysis) -> Iterator[Layer]:
    """The layers that can be split, and matter for what the model takes."""
    found = [layer for layer in layers(analysis, hidden=True) if splittable(layer)]
    sizes = {layer.weight: plain_matrix(layer).size for layer in found}
    takes = {
        layer.weight: sizes[layer.weight] * layer.places(analysis.shapes.shapes.get(layer.y, (1,))) for layer in found
    }
    for layer in found:
        matters = sizes[layer.weight] >= _MATTERS * sum(sizes.values())
        matters |= takes[layer.weight] >= _MATTERS * sum(takes.values())
        if matters and plain_matrix(layer).shape[2] <= _MOST_OUTPUTS:
            yield layer


def _entries(axis: int) -> View:
    """All entries of an axis as features."""

    def view(value: Array, batch: Batch) -> Iterator[Array]:
        del batch
        yield np.moveaxis(value, axis, -1).reshape(1, -1, value.shape[axis])

    return view


def _rows(layer: Layer, rng: np.random.Generator) -> View:
    """What a layer gives, or for one inside a recurrent cell what it reads, at places drawn from each batch."""
    hidden = layer.form.hidden is not None
    axis = layer.form.axis if hidden else layer.form.out_axis

    def view(value: Array, batch: Batch) -> Iterator[Array]:
        del batch
        rows = np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis])
        if len(rows) > _MAX_ROWS:
            rows = rows[np.sort(rng.choice(len(rows), _MAX_ROWS, replace=False))]
        yield rows[None]

    return view


def _of_outputs(layer: Layer, seen: Covariance) -> tuple[Matrix, float]:
    """Mean products of what a layer gives without its bias, and the variance of all of it."""
    covariance, mean = seen.covariance[0], seen.mean[0]
    if layer.form.hidden is not None:
        matrix = plain_matrix(layer)[0]
        covariance, mean = matrix.T @ covariance @ matrix, mean @ matrix
    elif layer.form.bias is not None:
        mean = mean - bias_of(replace(layer, add=None, norm=None), len(mean))
    return covariance + np.outer(mean, mean), float(np.trace(covariance))
