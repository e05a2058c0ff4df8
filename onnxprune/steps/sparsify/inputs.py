"""Second moments of what weights multiply, on samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.weight_matrices import WeightMatrix
from onnxprune.data.base import Batch, length_of
from onnxprune.errors import ModelError
from onnxprune.ops.base import Array
from onnxprune.statistics.accumulators import Covariance, Matrix, Summary, View, drawn_rows
from onnxprune.statistics.activations import Accumulator, Activations
from onnxprune.steps.base import Context

# Rows of each batch and weight that are looked at.
_MAX_ROWS = 1_500
A = TypeVar("A", bound=Accumulator)


def input_squares(analysis: Analysis, matrices: Sequence[WeightMatrix], context: Context) -> dict[str, Matrix]:
    """Mean squares of features, by key: float64, [groups, features]."""
    return {key: each.mean_square for key, each in _observed(analysis, matrices, context, Summary).items()}


def input_covariances(analysis: Analysis, matrices: Sequence[WeightMatrix], context: Context) -> dict[str, Matrix]:
    """Covariances of features where the layer has a bias, which takes up means, else second moments.

    By key: float64, [groups, features, features].
    """
    found = _observed(analysis, matrices, context, Covariance)
    biased = {each.key for each in matrices if each.layer is not None and each.layer.has_bias}
    return {key: each.covariance if key in biased else each.gram for key, each in found.items()}


def _observed(
    analysis: Analysis, matrices: Sequence[WeightMatrix], context: Context, make: Callable[[View], A]
) -> dict[str, A]:
    """An accumulator of the rows of each weight, filled; all readers of a shared weight add to one.

    Raises ModelError where a value that is needed is not in the graph.
    """
    assert context.samples is not None
    limit = max(1, _MAX_ROWS // length_of(next(context.samples.batches())))
    found: dict[str, A] = {}
    watch: dict[str, list[Accumulator]] = {}
    for number, each in enumerate(matrices):
        if not each.x:
            raise ModelError(
                f"{each.name} gives no states to take statistics of: leave it out with --keep-dense {each.name}"
            )
        found[each.key] = make(_view(each, analysis, np.random.default_rng([context.seed, number]), limit))
        watch.setdefault(each.x, []).append(found[each.key])
    Activations(analysis, context.samples, providers=context.execution, progress=context.progress).collect(watch)
    return found


def _view(matrix: WeightMatrix, analysis: Analysis, rng: np.random.Generator, limit: int) -> View:
    layer = matrix.layer
    if layer is not None:
        shapes = analysis.shapes.shapes
        return drawn_rows(layer, shapes[layer.x], shapes.get(layer.y, ()), rng, limit)

    def states(value: Array, batch: Batch) -> Iterator[Array]:
        del batch
        yield matrix.rows(value)

    return states
