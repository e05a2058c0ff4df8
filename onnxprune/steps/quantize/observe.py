"""Grids of activations, from calibration data that streams by: extremes, histograms, then the error of each range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import Layer, choose_positions, matrix_of
from onnxprune.data.base import Batch, Data
from onnxprune.statistics.activations import Activations
from onnxprune.steps.quantize.grids import Grid, grid_of
from onnxprune.steps.quantize.placement import Placement
from onnxprune.steps.quantize.ranges.base import RANGES, Range, Spread
from onnxprune.support.progress import Progress

Array = npt.NDArray[Any]

AUTO = "auto"
_BINS = 2048
# The error of a range is measured on so many rows of a layer at most, of so many batches.
_ROWS = 4096
_BATCHES = 4


class Extremes:
    """The least and the largest number of a value, and 0."""

    def __init__(self) -> None:
        self.low = self.high = 0.0

    def update(self, value: Array, batch: Batch) -> None:
        """Take the value that a batch gives."""
        del batch
        finite = value[np.isfinite(value)]
        if finite.size:
            self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))


class Distribution:
    """How many numbers of a value lie in each of equal parts between two numbers."""

    def __init__(self, low: float, high: float) -> None:
        self._range = (low, high if high > low else low + 1.0)
        self.counts = np.zeros(_BINS)

    def update(self, value: Array, batch: Batch) -> None:
        """Take the value that a batch gives."""
        del batch
        self.counts += np.histogram(value, _BINS, self._range)[0]

    @property
    def spread(self) -> Spread:
        """What was seen."""
        return Spread(*self._range, self.counts)


class RangeErrors:
    """What each grid of a value does to what reads it: squared errors relative to the power of what is given.

    Args:
        grids: that are tried.
        readers: layers that read the value.
        itself: something else reads it, too, so its own error counts beside.
    """

    def __init__(self, grids: Sequence[Grid], readers: Sequence[Layer], *, itself: bool) -> None:
        self._grids = grids
        self._readers = [(layer, matrix_of(layer).astype(np.float32)) for layer in readers]
        self._itself = itself or not readers
        self._errors = np.zeros((len(readers) + 1, len(grids)))
        self._power = np.zeros(len(readers) + 1)

    def update(self, value: Array, batch: Batch) -> None:
        """Take the value that a batch gives."""
        del batch
        changes = [grid.rounded(value) - value for grid in self._grids]
        if self._itself:
            self._power[-1] += np.square(value, dtype=np.float64).sum()
            self._errors[-1] += [np.square(change, dtype=np.float64).sum() for change in changes]
        for at, (layer, matrix) in enumerate(self._readers):
            places = layer.form.rows(value[:1], None).shape[1]
            positions = choose_positions(places, _ROWS // len(value) + 1, np.random.default_rng(at))
            self._power[at] += _power(layer.form.rows(value, positions), matrix)
            self._errors[at] += [_power(layer.form.rows(change, positions), matrix) for change in changes]

    @property
    def errors(self) -> npt.NDArray[np.float64]:
        """Of each grid, the sum over what reads the value."""
        total: npt.NDArray[np.float64] = (self._errors / np.maximum(self._power, 1e-30)[:, None]).sum(axis=0)
        return total


def _power(rows: Array, matrix: Array) -> float:
    return float(np.square(np.matmul(rows, matrix), dtype=np.float64).sum())


def find_grids(
    analysis: Analysis,
    placement: Placement,
    data: Data,
    *,
    method: str,
    signed: bool,
    providers: Sequence[str],
    progress: Progress,
) -> dict[str, Grid]:
    """The grid of every value of a placement, by name.

    Args:
        analysis: the float model.
        placement: which values.
        data: calibration data, of which three passes are made, the last over a few batches.
        method: which ranges are tried, by a name in RANGES; "auto": those of all of them.
        signed: integers are int8.
        providers: execution providers of ONNX Runtime.
        progress: is called with what is being done.

    Raises ModelError where the model cannot be run.
    """
    names = [value.name or "" for value in placement.values if value.name not in placement.same]
    seen = Activations(analysis, data, providers=providers, progress=progress)
    extremes = {name: Extremes() for name in names}
    seen.collect({name: [each] for name, each in extremes.items()})
    methods = list(RANGES) if method == AUTO else [method]
    spreads = {name: Spread(each.low, each.high, np.zeros(1)) for name, each in extremes.items()}
    if methods != ["minmax"]:
        shapes = {name: Distribution(each.low, each.high) for name, each in extremes.items()}
        seen.collect({name: [each] for name, each in shapes.items()})
        spreads = {name: each.spread for name, each in shapes.items()}
    tried = {name: _distinct(spreads[name], methods) for name in names}
    grids = {name: [grid_of(*each, signed=signed) for each in ranges] for name, ranges in tried.items()}
    best = _best(analysis, placement, _few(data), grids, providers, progress)
    best = {name: replace(each, seen=(extremes[name].low, extremes[name].high)) for name, each in best.items()}
    for value in placement.values:
        name = value.name or ""
        if name in placement.same:
            best[name] = best[placement.same[name]]
    return best


def _distinct(spread: Spread, methods: Sequence[str]) -> list[Range]:
    return list(dict.fromkeys(found for name in methods for found in RANGES[name].choose(spread)))


def _few(data: Data) -> Data:
    """The first batches."""
    return replace(data, start=lambda: islice(data.batches(), _BATCHES), part=None)


def _best(
    analysis: Analysis,
    placement: Placement,
    data: Data,
    grids: Mapping[str, Sequence[Grid]],
    providers: Sequence[str],
    progress: Progress,
) -> dict[str, Grid]:
    """Of each value the grid with the least error; the first, where all are alike."""
    readers: dict[str, list[Layer]] = {}
    for layer in placement.layers:
        readers.setdefault(layer.x, []).append(layer)
    nodes = {layer.node for layer in placement.layers}
    others = {value.name or "" for value in placement.values if _is_read_beside(value, nodes)}
    errors = {
        name: RangeErrors(each, readers.get(name, []), itself=name in others)
        for name, each in grids.items()
        if len(each) > 1
    }
    if errors:
        seen = Activations(analysis, data, providers=providers, progress=progress)
        seen.collect({name: [each] for name, each in errors.items()})
    chosen = {name: int(np.argmin(each.errors)) for name, each in errors.items()}
    return {name: each[chosen.get(name, 0)] for name, each in grids.items()}


def _is_read_beside(value: ir.Value, layers: set[ir.Node]) -> bool:
    """Does something else than layers read a value?"""
    return value.is_graph_output() or any(node not in layers for node, _ in value.uses())
