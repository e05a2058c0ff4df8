"""Layer after layer through a model with quantized activations, beside the float one: fit weights, then round them.

Each layer sees what the layers before it give on integers, and is to give what it gives in float: so it also makes up
for what was rounded before it. That is what recovery does after a removal, see `steps.recover.layerwise`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import log10
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import Layer, bias_of, choose_positions, matrix_of, residual
from onnxprune.passes.write_back import set_bias, set_matrix
from onnxprune.runtime.stepper import Stepper
from onnxprune.steps.quantize.grids import TINY, Grid, Matrix, scales_of, to_integers
from onnxprune.steps.quantize.rounding import round_matrix
from onnxprune.steps.recover.least_squares import Centered, Moments, best_ridge, merged
from onnxprune.support.progress import Counted, Progress

Array = npt.NDArray[Any]

# Rows that a layer's moments are taken from: where there are more places, they are drawn at random.
_MIN_ROWS = 20_000
_ROWS_PER_FEATURE = 40
# Layers of more features are rounded to nearest: a Gram matrix of theirs takes too much memory and time.
_MOST_FEATURES = 6_144
# Every fifth batch is held out to choose the ridge.
_HELD_OUT = 5
# A bias is stored in 32 bits, in units of the product of two scales.
_LARGEST_BIAS = 2.0**30


@dataclass(frozen=True)
class LayerNoise:
    """What became of a layer.

    Attributes:
        layer: its name.
        operator: its type.
        bits: of its weights; 0: they stay in float.
        snr: of what it gives, in dB, beside what it gives in float; NaN where it was not measured.
        why: why it stays in float; empty where it does not.
        seen: the least and the largest number that it reads in calibration; nothing where that was not looked at.
        covered: the least and the largest that the integers of what it reads represent.
    """

    layer: str
    operator: str
    bits: int
    snr: float = float("nan")
    why: str = ""
    seen: tuple[float, ...] = ()
    covered: tuple[float, ...] = ()


@dataclass(frozen=True)
class IntegerWeights:
    """Integers [groups, features, outputs], as floats, and the scale of each output [groups, outputs]."""

    integers: Matrix
    scales: Matrix

    @property
    def matrix(self) -> Matrix:
        """What they represent, with scales as they are stored."""
        return self.integers * self.scales.astype(np.float32).astype(np.float64)[:, None]


def round_nearest(layer: Layer, bits: int, x_scale: float = 1.0) -> IntegerWeights:
    """The weights of a layer, rounded to nearest."""
    matrix = matrix_of(layer)
    scales = np.maximum(scales_of(matrix, bits), _floor(layer, matrix, x_scale))
    return IntegerWeights(to_integers(matrix, scales, bits), scales)


def _floor(layer: Layer, matrix: Matrix, x_scale: float) -> Matrix:
    """The least scales with which the bias fits into 32 bits: [groups, outputs]."""
    groups, _, outputs = matrix.shape
    bias = np.abs(bias_of(layer, groups * outputs)).reshape(groups, outputs)
    return np.maximum(bias / (x_scale * _LARGEST_BIAS), TINY)


@dataclass
class LayerWalk:
    """Fits the layers of a model whose activations are quantized.

    Attributes:
        before: the analysis of the float model.
        after: that of the model which is changed.
        made: what comes out of the pair around a value of the float model, by name.
        grids: of activations, by the names of values of the float model.
        bits: of weights.
        seed: of the places that are drawn.
        fixed: weights that are rounded as they are, for some of their entries have to stay zero.
    """

    before: Analysis
    after: Analysis
    made: Mapping[str, str]
    grids: Mapping[str, Grid]
    bits: int
    providers: Sequence[str]
    seed: int = 0
    fixed: Collection[str] = ()
    progress: Progress = lambda _: None
    noise: list[LayerNoise] = field(default_factory=list)

    def run(self, pairs: Sequence[tuple[Layer, Layer]], feeds: Sequence[Mapping[str, Array]]) -> list[IntegerWeights]:
        """The weights of each layer, which is given with its counterpart in the float model; biases are set.

        Raises ModelError where a model cannot be run.
        """
        ahead = Stepper(self.before.model, self.before.shapes.dtypes, feeds, self.providers)
        behind = Stepper(self.after.model, self.after.shapes.dtypes, feeds, self.providers)
        samples = sum(_samples_of(feed) for feed in feeds)
        found: list[IntegerWeights] = []
        shared: dict[str, IntegerWeights] = {}
        later = [layer.node for _, layer in pairs]
        for number, (counterpart, layer) in enumerate(pairs):
            self.progress(
                Counted(f"rounding layer {number + 1} of {len(pairs)}: {counterpart.name}", number, len(pairs))
            )
            streams = self._streams(counterpart, behind, set(later[number:]))
            ahead.advance([counterpart.y, *streams[:1]])
            behind.advance([_input(layer), *streams[1:]])
            moments = self._moments(counterpart, layer, streams, ahead, behind, samples)
            weights = self._weights(layer, counterpart, moments, shared)
            found.append(weights)
            set_matrix(self.after.model, layer, weights.matrix)
            if moments is not None:
                self._finish(layer, counterpart, weights, merged(*moments).covariances())
        return found

    def _streams(self, counterpart: Layer, behind: Stepper, later: set[ir.Node]) -> list[str]:
        """What the layer's output is added to, in both models; nothing where that comes later, for it makes up then."""
        found = residual(counterpart, self.before)
        if found is None:
            return []
        ours = self.made.get(found.skip, found.skip)
        return [] if behind.would_run([ours]) & later else [found.skip, ours]

    def _moments(
        self, counterpart: Layer, layer: Layer, streams: Sequence[str], ahead: Stepper, behind: Stepper, samples: int
    ) -> tuple[Centered, Centered] | None:
        """Of what the layer sees and should give, on two parts of the samples; None where that is not finite."""
        features = matrix_of(layer).shape[1]
        if features > _MOST_FEATURES:
            return None
        rng = np.random.default_rng([self.seed, features])
        limit = -(-max(_MIN_ROWS, _ROWS_PER_FEATURE * features) // samples)
        sums = Moments(), Moments()
        for number, (theirs, ours) in enumerate(
            zip(ahead.batches(counterpart.y, *streams[:1]), behind.batches(_input(layer), *streams[1:]), strict=True)
        ):
            target = theirs[0] + (theirs[1] - ours[1]) if streams else theirs[0]
            positions = choose_positions(layer.places(target.shape), limit, rng)
            sums[number % _HELD_OUT == 1].update(layer.form.rows(ours[0], positions), layer.outputs(target, positions))
        known = [each.known().covariances() for each in sums]
        return (known[0], known[1]) if all(each.is_finite() for each in known) else None

    def _weights(
        self,
        layer: Layer,
        counterpart: Layer,
        moments: tuple[Centered, Centered] | None,
        shared: dict[str, IntegerWeights],
    ) -> IntegerWeights:
        """Fitted, then rounded; those that several layers share are only rounded."""
        x_scale = self.grids[counterpart.x].scale if counterpart.x in self.grids else 1.0
        if layer.readers > 1 or moments is None or layer.weight in self.fixed:
            return shared.setdefault(layer.weight, round_nearest(layer, self.bits, x_scale))
        start, everything = matrix_of(layer), merged(*moments).covariances()
        if not _has_bias(layer):
            moments, everything = (_uncentered(moments[0]), _uncentered(moments[1])), _uncentered(everything)
        ridge = best_ridge(*moments, start)
        wanted = start if ridge is None else everything.solve(start, ridge)
        wanted = wanted if np.isfinite(wanted).all() else start
        integers, scales = round_matrix(wanted, everything.xx, self.bits, _floor(layer, start, x_scale))
        return IntegerWeights(integers, scales)

    def _finish(self, layer: Layer, counterpart: Layer, weights: IntegerWeights, seen: Centered) -> None:
        """Set the bias with which the layer gives the right means, and note how far it is off."""
        matrix = weights.matrix
        bias = bias_of(layer, matrix.shape[0] * matrix.shape[2]).reshape(matrix.shape[0], -1)
        if _has_bias(layer):
            bias = seen.best_bias(matrix)
            set_bias(self.after.model, layer, bias)
        error, power = seen.error(matrix, bias), float(seen.target_variance().sum())
        snr = 10 * log10(max(power, TINY) / max(error, TINY))
        grid = self.grids.get(counterpart.x)
        ranges = ((), ()) if grid is None else (grid.seen, grid.covered)
        self.noise.append(LayerNoise(counterpart.name, layer.node.op_type, self.bits, snr, "", *ranges))


def _has_bias(layer: Layer) -> bool:
    """Is there a bias, or an input for one? An Add that is put in only for it would take longer than it is worth."""
    return layer.add is not None or layer.form.bias is not None


def _uncentered(known: Centered) -> Centered:
    """The same about 0: what a layer without a bias is fitted to."""
    x, t = known.x, known.t
    return Centered(
        known.count,
        np.zeros_like(x),
        np.zeros_like(t),
        known.xx + x[:, :, None] * x[:, None, :],
        known.xt + x[:, :, None] * t[:, None, :],
        known.tt + t**2,
    )


def _input(layer: Layer) -> str:
    """The name of what a layer reads now."""
    value = layer.node.inputs[0]
    assert value is not None
    return value.name or ""


def _samples_of(feed: Mapping[str, Array]) -> int:
    return max((len(array) for array in feed.values() if array.ndim), default=1)


def some_batches(batches: Iterator[Mapping[str, Array]], samples: int) -> list[Mapping[str, Array]]:
    """The first batches, of so many samples together; at least two, for one part is held out."""
    found: list[Mapping[str, Array]] = []
    for feed in batches:
        if len(found) > 1 and sum(map(_samples_of, found)) >= samples:
            break
        found.append(feed)
    return found if len(found) > 1 else found * 2
