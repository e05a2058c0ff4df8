"""Layer after layer through a pruned model beside its original: gather what both compute, and mend the layer.

What a layer sees is computed with the layers before it already mended, so each one also makes up for what the others
could not. Behind a residual Add, the target is what the sum should be:

    target of y = y of the original + (skip of the original - skip of the pruned model)

so errors do not pile up along the residual stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.layers import Array, Layer, Positions, bias_of, choose_positions, is_rectified, matrix_of, residual
from onnxprune.progress import Counted
from onnxprune.recovery.edit import set_bias, set_matrix
from onnxprune.recovery.moments import Centered, Matrix, Moments, merged
from onnxprune.recovery.pairing import Pairing
from onnxprune.runtime.stepping import Stepper

# Rows that a layer's moments are taken from: where there are more places, they are drawn at random.
_MIN_ROWS = 20_000
_ROWS_PER_FEATURE = 40
# Every fifth batch is held out to choose the ridge.
_HELD_OUT = 5

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Evidence:
    """What is known of one layer: its weights as they are, and moments of its rows and targets.

    Attributes:
        matrix: [groups, features, outputs], float64.
        bias: [groups, outputs], float64.
        train, held_out: moments of the rows of different samples.
        everything: both together.
    """

    layer: Layer
    matrix: Matrix
    bias: Matrix
    train: Centered
    held_out: Centered
    everything: Centered


Mend = Callable[[Evidence], tuple[Matrix, Matrix] | None]


@dataclass(frozen=True)
class LayerError:
    """How far a layer's output is from its target, relative to the target's variance, before and after."""

    layer: str
    before: float
    after: float


def walk(
    pairing: Pairing,
    feeds: Iterable[dict[str, Array]],
    mend: Mend,
    *,
    rounds: int = 0,
    seed: int = 0,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    progress: Progress = lambda _: None,
) -> list[LayerError]:
    """Mend every layer of `pairing.pruned`, in place.

    Args:
        pairing: the two models.
        feeds: the calibration batches; at least two, or the single one is cut in two.
        mend: given the evidence of a layer, its new matrix and bias, or None to leave it.
        rounds: how often layers in front of a Relu are mended again, with what is negative set free.
        seed: of the places that are drawn.
        providers: execution providers of ONNX Runtime.
        progress: told which layer is being worked on.

    Raises ModelError where a model cannot be run.
    """
    batches = _at_least_two(feeds)
    original, pruned = pairing.original, pairing.pruned
    ahead = Stepper(original.model, original.shapes.dtypes, batches, providers)
    behind = Stepper(pruned.model, pruned.shapes.dtypes, batches, providers)
    samples = sum(_samples(batch) for batch in batches)
    pairs = pairing.pairs()
    errors = []
    for number, (layer, twin) in enumerate(pairs, 1):
        progress(Counted(f"recovering layer {number} of {len(pairs)}: {layer.name}", number - 1, len(pairs)))
        work = _Layer(pairing, layer, twin, samples, np.random.default_rng([seed, number]))
        if behind.would_run(work.skips) & {later.node for later, _ in pairs[number:]}:
            work.residual = None  # the other branch comes later: it is the one that makes up for this
        ahead.advance([work.seen, *work.skips])
        behind.advance([layer.x, *work.skips])
        first, mended = work.mend(mend, rounds, ahead, behind)
        if first is None or mended is None:
            continue
        matrix, bias = mended
        if matrix is not first.matrix:
            set_matrix(pruned.model, layer, matrix)
        set_bias(pruned.model, layer, bias)
        before, after = first.everything.error(first.matrix, first.bias), first.everything.error(matrix, bias)
        scale = max(float(first.everything.tt.sum()), 1e-30)
        errors.append(LayerError(layer.name, before / scale, after / scale))
    return errors


def _at_least_two(feeds: Iterable[dict[str, Array]]) -> list[dict[str, Array]]:
    batches = list(feeds)
    if len(batches) > 1:
        return batches
    size = _samples(batches[0])
    middle = size // 2
    if middle == 0 or any(array.ndim and len(array) != size for array in batches[0].values()):
        return batches * 2
    parts = (slice(middle), slice(middle, None))
    return [{name: array[part] if array.ndim else array for name, array in batches[0].items()} for part in parts]


def _samples(batch: dict[str, Array]) -> int:
    """How many samples a batch has; an input of rank 0 is the same for all of them."""
    return max((len(array) for array in batch.values() if array.ndim), default=1)


class _Layer:
    """The work on one layer."""

    def __init__(self, pairing: Pairing, layer: Layer, twin: Layer, samples: int, rng: np.random.Generator) -> None:
        self.pairing, self.layer, self.twin, self.samples, self.rng = pairing, layer, twin, samples, rng
        behind = residual(layer, pairing.pruned)
        self.residual = behind if behind and pairing.fits(behind.skip) else None
        self.positions: list[Positions | None] = []

    @property
    def skips(self) -> list[str]:
        """What the layer's output is added to, if anything."""
        return [self.residual.skip] if self.residual else []

    def mend(
        self, mend: Mend, rounds: int, ahead: Stepper, behind: Stepper
    ) -> tuple[Evidence | None, tuple[Matrix, Matrix] | None]:
        """The evidence, and the new matrix and bias."""
        first = self._gather(ahead, behind, None)
        mended = mend(first) if first else None
        for _ in range(rounds if is_rectified(self.layer, self.residual) else 0):
            evidence = self._gather(ahead, behind, mended) if mended else None
            mended = mend(evidence) if evidence else mended
        return first, mended

    def _gather(self, ahead: Stepper, behind: Stepper, current: tuple[Matrix, Matrix] | None) -> Evidence | None:
        """Moments over all batches; with the matrix and bias so far, those of targets in front of a Relu."""
        layer, form = self.layer, self.layer.form
        matrix = matrix_of(layer)
        sets = (Moments(), Moments())
        both = zip(ahead.batches(self.seen, *self.skips), behind.batches(layer.x, *self.skips), strict=True)
        for number, (theirs, ours) in enumerate(both):
            if form.hidden:
                rows, wanted = form.rows(ours[0], None), self._hidden_target(theirs[0])
            else:
                target = self._target(theirs, ours)
                positions = self._positions(number, target.shape, matrix.shape[1])
                rows, wanted = form.rows(ours[0], positions), layer.outputs(target, positions)
            if current is not None:
                skip = layer.outputs(ours[1], positions) if self.skips else 0.0
                wanted = _rectified(wanted, skip, rows, current)
            sets[number % _HELD_OUT == 1].update(rows, wanted)
        bias = bias_of(layer, matrix.shape[0] * matrix.shape[2]).reshape(matrix.shape[0], -1)
        train, held_out = sets[0].centered(), sets[1].centered()
        finite = all(np.isfinite(array).all() for array in (train.xx, train.xt, held_out.xx, held_out.xt))
        return Evidence(layer, matrix, bias, train, held_out, merged(*sets)) if finite else None

    @property
    def seen(self) -> str:
        """The value of the original that the target comes from."""
        return self.twin.x if self.layer.form.hidden else self.twin.y

    def _hidden_target(self, x: Array) -> Array:
        """What the original's weights make of its own input, for the outputs that are left."""
        matrix = matrix_of(self.twin)
        bias = bias_of(self.twin, matrix.shape[2])
        stay = self.pairing.hidden_outputs(self.twin)
        wanted: Array = self.twin.form.rows(x, None) @ matrix[:, :, stay] + bias[stay]
        return wanted

    def _target(self, theirs: tuple[Array, ...], ours: tuple[Array, ...]) -> Array:
        """What the layer should give: the original's output, and what the pruned stream lacks by now."""
        target = self.pairing.sliced(theirs[0], self.twin.y)
        for name, one, other in zip(self.skips, theirs[1:], ours[1:], strict=True):
            target = target + (self.pairing.sliced(one, name) - other)
        return target

    def _positions(self, number: int, shape: tuple[int, ...], features: int) -> Positions | None:
        """Where in each sample of a batch rows are taken: drawn once, the same in every round."""
        if number == len(self.positions):
            rows = max(_MIN_ROWS, _ROWS_PER_FEATURE * features)
            limit = -(-rows // self.samples)
            self.positions.append(choose_positions(self.layer.places(shape), limit, self.rng))
        return self.positions[number]


def _rectified(wanted: Array, skip: Array | float, rows: Array, current: tuple[Matrix, Matrix]) -> Array:
    """Targets in front of a Relu: where the sum should be negative, any negative number will do.

    The auxiliary variable of Zhang et al. 2015, "Accelerating Very Deep Convolutional Networks", equation 7, at its
    limit: the target is moved to what the layer gives, or to zero where that is positive.
    """
    matrix, bias = (array.astype(np.float32) for array in current)
    given = np.matmul(rows, matrix) + bias[:, None] + skip
    goal = wanted + skip
    moved: Array = np.where(goal >= 0, goal, np.minimum(given, 0)) - skip
    return moved
