"""Criteria: functions that give every unit of a group a finite float; the higher, the more it matters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis, Group, Occurrence
from onnxprune.analysis.owned import Axes, owned_axes, sum_owned
from onnxprune.analysis.producers import producing
from onnxprune.dims import Atom, units_of
from onnxprune.errors import MissingExtraError, UsageError
from onnxprune.model.weights import reading
from onnxprune.ops.dequantize import entries_each, is_scale, real_weights
from onnxprune.ops.traits import is_one_per_unit, is_parameter
from onnxprune.statistics.activations import Activations
from onnxprune.support.registry import Registry, summary

if TYPE_CHECKING:
    from onnxprune.statistics.gradients import Gradients

Scores = npt.NDArray[np.float64]
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z][a-z0-9]*)*")
NEGLIGIBLE = 0.01
_CHUNK_BYTES = 1 << 20
_BLOCK_ENTRIES = 1 << 20
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class WeightReader:
    """Looks at the weights of groups block by block; what several groups ask of one tensor is read once."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._initializers = analysis.model.graph.initializers
        self._sums: dict[tuple[str, int], dict[Axes, Scores]] = {}
        self._axes = owned_axes(analysis.groups)

    def is_parameter(self, tensor: str) -> bool:
        """Does the tensor hold parameters, rather than indices, shapes, running statistics or scales of integers?"""
        value = self._initializers[tensor]
        return is_parameter(value) and not is_scale(value)

    def parameters(self, group: Group) -> list[Occurrence]:
        """Where the group occurs in parameters."""
        return [place for place in group.occurrences if self.is_parameter(place.tensor)]

    def entries(self, tensor: str, axes: Axes) -> Scores:
        """How many weights each entry along `axes` represents: as `axis_sums`, of ones."""
        shape = [self._shape(tensor)[axis] for axis in axes]
        return np.full(shape, self.size(tensor) / max(1, prod(shape)))

    def size(self, tensor: str) -> int:
        """The number of weights in a tensor."""
        return prod(self._shape(tensor)) * entries_each(self._initializers[tensor])

    def axis_sums(self, tensor: str, axes: Axes, power: int) -> Scores:
        """Sum |w|^power over all other axes: float64, an axis for each of `axes`.

        Power 0 counts the weights above NEGLIGIBLE times the root mean square of the tensor.
        """
        if (tensor, power) not in self._sums:
            negligible = 0.0
            if power == 0:
                squares = self.axis_sums(tensor, axes, 2).sum() / max(1, self.size(tensor))
                negligible = NEGLIGIBLE * float(np.sqrt(squares)) if np.isfinite(squares) else 0.0
            with self._reading(tensor) as array:
                self._sums[tensor, power] = _axis_sums(array, self._axes[tensor], power, negligible)
        return self._sums[tensor, power][axes]

    def filters(self, group: Group) -> list[Occurrence]:
        """The weights that make the units: those whose axis comes out of an operator, of two axes or more.

        Biases (of both directions of an LSTM too) and normalizations, one number per unit, are left out: they would
        weigh nothing beside the filters, or everything beside small ones. A group that no such weight makes has those
        that read it, else all it has.
        """
        weights = self.parameters(group)
        matrices = [
            place
            for place in weights
            if sum(size > 1 for size in self._shape(place.tensor)) > 1
            and not is_one_per_unit(self._initializers[place.tensor])
        ]
        made = [place for place in matrices if (place.tensor, place.axis) in self._producing]
        return made or matrices or weights

    def unit_blocks(self, place: Occurrence, atom: Atom) -> Iterator[Scores]:
        """The entries of a weight that belong to each unit of `atom`: float64 blocks of shape [units, entries].

        All blocks side by side are the whole weight; the order of entries is the same for all units. What is not
        finite is clipped to the range of float32, NaN is 0.
        """
        entries = units_of(place.dim, atom)
        order = np.argsort(entries, kind="stable")
        rows = order[entries[order] >= 0]
        shape = self._shape(place.tensor)
        others = [axis for axis in range(len(shape)) if axis != place.axis]
        along = max(others, key=lambda axis: shape[axis], default=place.axis)
        steps = shape[along] if others else 1
        step = max(1, _BLOCK_ENTRIES * steps // max(1, self.size(place.tensor)))
        with self._reading(place.tensor) as array:
            for start in range(0, steps, step):
                part = array[(slice(None),) * along + (slice(start, start + step),)] if others else array
                block = np.moveaxis(part, place.axis, 0)[rows].reshape(atom.size, -1).astype(np.float64)
                yield np.clip(np.nan_to_num(block - _middle(array.dtype)), -_FLOAT32_MAX, _FLOAT32_MAX)

    @contextmanager
    def _reading(self, tensor: str) -> Iterator[npt.NDArray[Any]]:
        """The weights of a tensor, real ones where integers represent them: bytes of several have one more axis."""
        with reading(self._tensor(tensor)) as array:
            real = None if array.dtype.kind in "fc" else real_weights(self._initializers[tensor], array)
            yield array if real is None else real

    @cached_property
    def _producing(self) -> set[tuple[str, int]]:
        return producing(self._analysis)

    def _tensor(self, tensor: str) -> ir.TensorProtocol:
        value = self._initializers[tensor].const_value
        assert value is not None
        return value

    def _shape(self, tensor: str) -> tuple[int, ...]:
        return tuple(self._tensor(tensor).shape.numpy())


def _axis_sums(
    array: npt.NDArray[np.generic], wanted: Sequence[Axes], power: int, negligible: float = 0.0
) -> dict[Axes, Scores]:
    """The sums for some sets of axes in one walk over blocks of the first one, so that a block stays in the cache.

    The other axes (a convolution's window) are summed away first; blocks are summed in float32, their sums in float64.
    """
    sums = {axes: np.zeros([array.shape[axis] for axis in axes]) for axes in wanted}
    rest = tuple(axis for axis in range(1, array.ndim) if not any(axis in axes for axes in wanted))
    middle = _middle(array.dtype)
    rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, array.shape[0], rows):
        block = array[start : start + rows].astype(np.float32, copy=False)
        block = np.abs(block - middle if middle else block)
        if power == 0:
            block = (block > negligible).astype(np.float32)
        elif power == 2:
            np.multiply(block, block, out=block)
        block = block.sum(axis=rest, keepdims=True)
        for axes in wanted:
            others = tuple(i for i in range(array.ndim) if i not in axes)
            part = block.sum(axis=others, dtype=np.float64)
            if 0 in axes:
                sums[axes][start : start + rows] = part
            else:
                sums[axes] += part
    return sums


def _middle(dtype: np.dtype[Any]) -> int:
    """The stored form of a zero weight where no operator says it: unsigned ones are shifted by half their range."""
    return 1 << (8 * dtype.itemsize - 1) if dtype.kind == "u" else 0


@dataclass(frozen=True)
class ScoringContext:
    """The facts that a criterion may use besides the group.

    Attributes:
        analysis: the model.
        weights: its weights.
        seed: of everything random.
        observed: the model on calibration data, where some was given.
        loss: what gradients are taken of, see `runtime.torch_loss.make_loss`.
        device: where torch computes.
        unseen: ids of the groups that the criterion could not see, so that `by_size` scored them.
        compensated: will the weights that stay make up for those that go? Else no criterion may count on it.
    """

    analysis: Analysis
    weights: WeightReader
    seed: int = 0
    observed: Activations | None = None
    loss: str = "auto"
    device: str = "cpu"
    unseen: set[str] = field(default_factory=set)
    compensated: bool = True

    @property
    def activations(self) -> Activations:
        """The inner values on calibration data. Raises UsageError where no data was given."""
        if self.observed is None:
            raise UsageError("the criterion needs activations: give --data (an .npz, a folder, or synthetic)")
        return self.observed

    @cached_property
    def gradients(self) -> Gradients:
        """Gradients on calibration data; they ask for it when they need it. Raises MissingExtraError without torch."""
        try:
            from onnxprune.statistics.gradients import Gradients
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise MissingExtraError("torch", "torch") from None
        data = None if self.observed is None else self.observed.data
        progress = (lambda _: None) if self.observed is None else self.observed.progress
        return Gradients(self.analysis, data, loss=self.loss, seed=self.seed, device=self.device, progress=progress)


Score = Callable[[Group, ScoringContext], Scores]
NEEDS = ("weights", "activations", "gradients", "labels", "hessian")


@dataclass(frozen=True)
class Criterion:
    """A registered criterion; called with a group and the context it gives float64 scores, shape [units].

    Attributes:
        name: what the command line calls it.
        score: the function itself.
        needs: what it looks at, some of NEEDS; all but "weights" take calibration data.
        cost: what it takes in time, in words.
        source: paper and equation or section.
        comparable: scores of different groups are on one scale, so that a global ranking takes them as they are.
    """

    name: str
    score: Score
    needs: tuple[str, ...]
    cost: str
    source: str
    comparable: bool

    def __call__(self, group: Group, context: ScoringContext) -> Scores:
        """Score the units of a group."""
        return self.score(group, context)

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return summary(self.score)

    @property
    def needs_data(self) -> bool:
        """Does it look at more than the weights?"""
        return any(need != "weights" for need in self.needs)


criteria: Registry[str, Criterion] = Registry("criterion", __package__, "onnxprune.criteria")


def criterion(
    name: str,
    *,
    needs: Sequence[str] = ("weights",),
    cost: str = "",
    source: str = "",
    comparable: bool = False,
) -> Callable[[Score], Score]:
    """Decorator: make a function known as criterion `name`; see Criterion for what the options say.

    Raises ValueError when the name is taken, or no name for a combination, or a need is none of NEEDS.
    """
    unknown = sorted(set(needs) - set(NEEDS))
    if unknown:
        raise ValueError(f"criterion '{name}' needs {unknown[0]!r}, which is none of: {', '.join(NEEDS)}")
    if not NAME.fullmatch(name):
        raise ValueError(f"criterion '{name}': a name is words of small letters and digits with dashes between them")

    def add(score: Score) -> Score:
        criteria.register(name)(Criterion(name, score, tuple(needs), cost, source, comparable))
        return score

    return add


def one_by_one(similar: Scores, sizes: Scores) -> Scores:
    """How similar each unit is to the most similar one that is left when it goes: of each similar set one stays.

    Of the two most similar units the smaller goes, and the other is from then on compared with those that are left.

    Args:
        similar: of each two units, in [-1, 1]; float64, shape [units, units].
        sizes: what decides which of two goes, shape [units].

    Returns: float64, shape [units]; -1 for the one that is left in the end.
    """
    similar = similar.copy()
    np.fill_diagonal(similar, -np.inf)
    result = np.full(len(sizes), -1.0)
    best, partner = similar.max(axis=1, initial=-np.inf), similar.argmax(axis=1) if len(sizes) else sizes
    for _ in range(len(sizes) - 1):
        gone = min(np.flatnonzero(best == best.max()), key=lambda unit: sizes[unit])
        result[gone] = best[gone]
        similar[:, gone], best[gone] = -np.inf, -np.inf
        orphans = np.flatnonzero((partner == gone) & (best > -np.inf))
        partner[orphans] = similar[orphans].argmax(axis=1)
        best[orphans] = similar[orphans, partner[orphans]]
    return result


def by_size(group: Group, context: ScoringContext) -> Scores:
    """What a criterion on data scores a group by that it cannot see: `weight_sizes`, with a note in `unseen`.

    Where scores of different groups are on one scale these are brought to it afterwards.
    """
    context.unseen.add(group.id)
    return weight_sizes(group, context)


def weight_sizes(group: Group, context: ScoringContext) -> Scores:
    """Root of the summed squares of a unit's weights."""
    weights = context.weights
    total = sum_owned(group, lambda tensor, axes: weights.axis_sums(tensor, axes, 2), weights.parameters(group))
    return np.sqrt(np.nan_to_num(total, posinf=np.finfo(np.float64).max))
