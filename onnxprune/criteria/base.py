"""What a criterion is: a function that gives every unit of a group a finite float; the higher, the more it matters."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.coupling import Analysis, Group
from onnxprune.model import is_parameter, reading
from onnxprune.registry import Registry

Scores = npt.NDArray[np.float64]
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_CHUNK_BYTES = 1 << 20


class WeightReader:
    """Sums of powers of absolute weights along the axes that groups occur on; a tensor is read once per power."""

    def __init__(self, analysis: Analysis) -> None:
        self._initializers = analysis.model.graph.initializers
        self._sums: dict[tuple[str, int], dict[int, Scores]] = {}
        self._axes: dict[str, set[int]] = {}
        for group in analysis.groups:
            for occurrence in group.occurrences:
                self._axes.setdefault(occurrence.tensor, set()).add(occurrence.axis)

    def is_weight(self, tensor: str) -> bool:
        """Does the tensor hold parameters (rather than indices or shapes)?"""
        return is_parameter(self._initializers[tensor])

    def axis_sums(self, tensor: str, axis: int, power: int) -> Scores:
        """Sum |w|^power over all other axes: float64, shape [size of `axis`]."""
        if (tensor, power) not in self._sums:
            value = self._initializers[tensor].const_value
            assert value is not None
            with reading(value) as array:
                self._sums[tensor, power] = _axis_sums(array, sorted(self._axes[tensor]), power)
        return self._sums[tensor, power][axis]


def _axis_sums(array: npt.NDArray[np.generic], axes: list[int], power: int) -> dict[int, Scores]:
    """The sums for some axes in one walk over blocks of the first one, so that a block stays in the cache.

    The other axes (a convolution's window) are summed away first; blocks are summed in float32, their sums in float64.
    """
    sums = {axis: np.zeros(array.shape[axis]) for axis in axes}
    rest = tuple(axis for axis in range(1, array.ndim) if axis not in axes)
    middle = _middle(array.dtype)
    rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, array.shape[0], rows):
        block = array[start : start + rows].astype(np.float32, copy=False)
        block = np.abs(block - middle if middle else block)
        if power == 2:
            np.multiply(block, block, out=block)
        block = block.sum(axis=rest, keepdims=True)
        for axis in axes:
            others = tuple(i for i in range(array.ndim) if i != axis)
            part = block.sum(axis=others, dtype=np.float64)
            if axis == 0:
                sums[0][start : start + rows] = part
            else:
                sums[axis] += part
    return sums


def _middle(dtype: np.dtype[Any]) -> int:
    """What a zero weight is stored as: unsigned quantized weights are shifted by half their range."""
    return 1 << (8 * dtype.itemsize - 1) if dtype.kind == "u" else 0


@dataclass(frozen=True)
class Context:
    """What a criterion may use besides the group."""

    analysis: Analysis
    weights: WeightReader
    seed: int = 0


Score = Callable[[Group, Context], Scores]
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

    def __call__(self, group: Group, context: Context) -> Scores:
        """Score the units of a group."""
        return self.score(group, context)

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return next(iter((self.score.__doc__ or "").strip().splitlines()), "")

    @property
    def needs_data(self) -> bool:
        """Does it look at more than the weights?"""
        return any(need != "weights" for need in self.needs)


criteria: Registry[Criterion] = Registry("criterion", "onnxprune.criteria")


def criterion(
    name: str,
    *,
    needs: Sequence[str] = ("weights",),
    cost: str = "",
    source: str = "",
    comparable: bool = False,
) -> Callable[[Score], Score]:
    """Decorator: make a function known as criterion `name`; see Criterion for what the options say.

    Raises ValueError when the name is taken, or no name that can stand in a combination, or a need is none of NEEDS.
    """
    unknown = sorted(set(needs) - set(NEEDS))
    if unknown:
        raise ValueError(f"criterion '{name}' needs {unknown[0]!r}, which is none of: {', '.join(NEEDS)}")
    if not NAME.fullmatch(name):
        raise ValueError(f"criterion '{name}': a name is small letters, digits and single dashes between them")

    def add(score: Score) -> Score:
        criteria.register(name)(Criterion(name, score, tuple(needs), cost, source, comparable))
        return score

    return add


def score_groups(name: str, groups: list[Group], context: Context) -> dict[str, Scores]:
    """Scores per group id. Raises UsageError for an unknown criterion."""
    function = criteria[name]
    return {group.id: function(group, context) for group in groups}
