"""What a layer of a pruned model sees and should give: moments of both, gathered batch by batch.

Behind a residual Add, the target is what the sum should be:

    target of y = y of the original + (skip of the original - skip of the pruned model)

so errors do not pile up along the residual stream. Where the result is not a value of the graph, it is computed: what
the original's weights make of the original's input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.analysis.layers import (
    Array,
    Layer,
    Positions,
    bias_of,
    choose_positions,
    is_rectified,
    matrix_of,
    residual,
)
from onnxprune.model.inner_values import InnerName, name_seen_by, repeats, way_to
from onnxprune.statistics.precision import products_type
from onnxprune.steps.recover.floors import floor_of
from onnxprune.steps.recover.least_squares import (
    KnownPart,
    Matrix,
    Moments,
    Products,
    about_zero,
    merged,
    pooled,
    pooled_together,
)
from onnxprune.steps.recover.pairing import Pairing
from onnxprune.support.memory import bytes_for

# Rows that a layer's moments are taken from: where there are more places, they are drawn at random.
_MIN_ROWS = 20_000
_ROWS_PER_FEATURE = 40
# A layer with more features than memory holds products of is fitted to so few rows: their number is what it takes the
# cube of then. There are five matrices of products at once: of two sets of rows, of both, and two that are solved.
_FEW_ROWS, _MATRICES = 2_048, 5
# Every fifth batch is held out to choose the ridge.
_HELD_OUT = 5
# What two ways to compute a float32 differ by, as a share.
_ROUNDING = 1e-5

Values = Mapping[str, Array]


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
    train: KnownPart
    held_out: KnownPart
    everything: KnownPart


LayerFit = Callable[[Evidence], tuple[Matrix, Matrix] | None]


class Gathering:
    """One layer with its counterpart in the original, and what has been seen of both.

    Attributes:
        residual: the sum behind the layer that its target makes up for, if any.
        in_advance: rows are what the original sees, for what the layer will see is not there yet.
        products: those that layers with the same weight share; None where the layer has them for itself.
        floor: below which value the original's outputs may as well be lower, where no Relu itself reads them.
        maxima: batch by batch, what the floor's maximum is, where it has one; it is given before targets are set free.
    """

    def __init__(
        self,
        pairing: Pairing,
        layer: Layer,
        counterpart: Layer,
        samples: int,
        rng: np.random.Generator,
        products: tuple[Products, Products] | None = None,
    ) -> None:
        self.pairing, self.layer, self.counterpart, self.samples, self.rng = pairing, layer, counterpart, samples, rng
        behind = residual(layer, pairing.pruned)
        self.residual = behind if behind and pairing.fits(behind.skip) else None
        self.in_advance = False
        self.products = products
        self.positions: list[Positions | None] = []
        single = behind is None and layer.form.hidden is None and not self.is_rectified
        self.floor = floor_of(counterpart, pairing.original) if single else None
        self.maxima: Sequence[Array] = ()
        self.begin()

    @cached_property
    def matrix(self) -> Matrix:
        """Of the layer, as it is."""
        return matrix_of(self.layer)

    @cached_property
    def _features(self) -> int:
        return int(matrix_of(self.layer).shape[1])

    @property
    def theirs(self) -> list[str]:
        """The values of the original that the target comes from."""
        form = self.layer.form
        x = [self.counterpart.x] if self.in_advance or form.hidden is not None else []
        y = [self.counterpart.y] if form.drawn or form.hidden is None else []
        return [self._their(name) for name in (*x, *y, *self._skips)]

    @property
    def ours(self) -> list[str]:
        """The values of the pruned model that are needed."""
        return [self._our(name) for name in (*([] if self.in_advance else [self.layer.x]), *self._skips)]

    @property
    def skips(self) -> list[str]:
        """The value of the pruned model that the layer's output is added to, if any."""
        return [self._our(name) for name in self._skips]

    @property
    def x(self) -> str:
        """The value of the pruned model that the layer reads."""
        return self._our(self.layer.x)

    @property
    def _skips(self) -> list[str]:
        return [self.residual.skip] if self.residual else []

    def _our(self, name: str) -> str:
        return name_seen_by(self.layer.node, name, self.pairing.pruned.model)

    def _their(self, name: str) -> str:
        return name_seen_by(self.counterpart.node, name, self.pairing.original.model)

    @property
    def repeats(self) -> bool:
        """Is the layer in a body that runs again and again, so that it may read what it gave a step before?"""
        return isinstance(self.x, InnerName) and repeats(way_to(self.pairing.pruned.model, self.x.body))

    @property
    def is_rectified(self) -> bool:
        """Does a Relu alone read what comes out?"""
        return is_rectified(self.layer, self.residual)

    @property
    def is_free_below(self) -> bool:
        """Are there values below which the outputs do not matter, and is all known that these follow from?"""
        return self.is_rectified or (self.floor is not None and (not self.floor.maximum or bool(self.maxima)))

    def begin(self) -> None:
        """Forget all batches, but not the places in them."""
        train, held_out = self.products or (Products(), Products())
        self.moments, self.batches = (Moments(train), Moments(held_out)), 0

    def add(self, theirs: Values, ours: Values, current: tuple[Matrix, Matrix] | None) -> None:
        """One batch; with the matrix and bias so far, targets are those in front of a Relu.

        A batch for which the two models take different branches, or so many steps, says nothing.
        """
        values = [*(theirs[name] for name in self.theirs), *(ours[name] for name in self.ours)]
        if isinstance(self.x, InnerName) and (len({len(value) for value in values}) > 1 or not values[0].size):
            return
        layer, number = self.layer, self.batches
        self.batches += 1
        x = self.counterpart.x
        given = self.pairing.sliced(theirs[self._their(x)], x) if self.in_advance else ours[self.x]
        if layer.form.hidden is None:
            target = self._target(theirs, ours)
            positions = self._positions(number, target.shape)
            rows, wanted = layer.form.rows(given, positions), layer.outputs(target, positions)
        else:
            y = self._their(self.counterpart.y)
            positions = self._positions(number, theirs[y].shape) if layer.form.drawn else None
            rows, wanted = layer.form.rows(given, positions), self._hidden_target(theirs[self._their(x)], positions)
        if current is not None:
            skip = layer.outputs(ours[self.skips[0]], positions) if self.skips else 0.0
            floor: Array | float = 0.0
            if self.floor is not None:
                floor = layer.outputs(self._floor(theirs[self._their(self.counterpart.y)].shape, number), positions)
            wanted = _set_free(wanted, skip, rows, current, floor)
        self.moments[number % _HELD_OUT == 1].update(rows, wanted)

    def evidence(self) -> Evidence | None:
        """What was seen; None where it is not finite, or too few batches were."""
        if not all(moments.count for moments in self.moments):
            return None
        groups, _, outputs = self.matrix.shape
        bias = bias_of(self.layer, groups * outputs).reshape(groups, -1)
        train, held_out = (moments.known() for moments in self.moments)
        if not self.layer.has_bias:
            train, held_out = about_zero(train), about_zero(held_out)
        if not (train.is_finite() and held_out.is_finite()):
            return None
        return Evidence(self.layer, self.matrix, bias, train, held_out, merged(train, held_out))

    def _hidden_target(self, x: Array, positions: Positions | None) -> Array:
        """What the original's weights make of its own input, for the outputs that are left."""
        matrix = matrix_of(self.counterpart)
        groups, _, outputs = matrix.shape
        bias = bias_of(self.counterpart, groups * outputs).reshape(groups, 1, -1)
        made = np.matmul(self.counterpart.form.rows(x, positions), matrix) + bias
        flat = made.transpose(1, 0, 2).reshape(made.shape[1], -1)[:, self.pairing.hidden_outputs(self.counterpart)]
        wanted: Array = flat.reshape(len(flat), self.layer.form.groups, -1).transpose(1, 0, 2)
        return wanted

    def _target(self, theirs: Values, ours: Values) -> Array:
        """What the layer should give: the original's output, and what the pruned stream lacks by now."""
        target = self.pairing.sliced(theirs[self._their(self.counterpart.y)], self.counterpart.y)
        for name in self._skips:
            target = target + (self.pairing.sliced(theirs[self._their(name)], name) - ours[self._our(name)])
        return target

    def _floor(self, shape: tuple[int, ...], number: int) -> Array:
        """The floor of every output that is left, for a batch."""
        assert self.floor is not None
        found = self.floor.values(shape, self.maxima[number] if self.floor.maximum else None)
        return self.pairing.sliced(found, self.counterpart.y)

    def _positions(self, number: int, shape: tuple[int, ...]) -> Positions | None:
        """Where in each sample of a batch rows are taken: drawn once, the same in every round."""
        if number == len(self.positions):
            features = self._features
            held = _MATRICES * self.matrix.shape[0] * features**2 * products_type(features).itemsize
            rows = _FEW_ROWS if held > bytes_for("layer") else max(_MIN_ROWS, _ROWS_PER_FEATURE * features)
            limit = -(-rows // self.samples)
            self.positions.append(choose_positions(self.layer.places(shape), limit, self.rng))
        return self.positions[number]


def gather(
    works: Sequence[Gathering], both: Iterable[tuple[Values, Values]], current: tuple[Matrix, Matrix] | None = None
) -> None:
    """What several layers see, from one run over the batches of original and pruned model."""
    for work in works:
        work.begin()
    for theirs, ours in both:
        for work in works:
            work.add(theirs, ours, current)


def joint_evidence(works: Sequence[Gathering]) -> Evidence | None:
    """The evidence on a weight that several layers share: each has a bias, and so the means, for itself.

    None where one of them was not seen: a fit to the others says nothing of it.
    """
    if not all(moments.count for work in works for moments in work.moments):
        return None
    centered = [work.layer.has_bias for work in works]
    train, held_out = ([work.moments[part] for work in works] for part in (0, 1))
    parts = pooled(train, centered), pooled(held_out, centered)
    if not all(part.is_finite() for part in parts):
        return None
    first = works[0]
    groups, _, outputs = first.matrix.shape
    everything = pooled_together(train, held_out, centered)
    return Evidence(first.layer, first.matrix, np.zeros((groups, outputs)), *parts, everything)


def _set_free(
    wanted: Array, skip: Array | float, rows: Array, current: tuple[Matrix, Matrix], floor: Array | float
) -> Array:
    """Targets in front of a Relu or a maximum: where the sum should be below the floor, any such number will do.

    The auxiliary variable of Zhang et al. 2015, "Accelerating Very Deep Convolutional Networks", equation 7, at its
    limit: the target is moved to what the layer gives, or to the floor where that is higher.
    """
    matrix, bias = (array.astype(np.float32) for array in current)
    given = np.matmul(rows, matrix) + bias[:, None] + skip
    goal = wanted + skip
    reaches = goal >= floor - _ROUNDING * np.abs(floor)
    moved: Array = np.where(reaches, goal, np.minimum(given, floor)) - skip
    return moved
