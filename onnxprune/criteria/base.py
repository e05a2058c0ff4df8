"""What a criterion is: a function that gives every unit of a group a finite float; the higher, the more it matters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.coupling import Analysis, Group
from onnxprune.model import is_parameter, reading
from onnxprune.registry import Registry

Scores = npt.NDArray[np.float64]
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


Criterion = Callable[[Group, Context], Scores]
criteria: Registry[Criterion] = Registry("criterion", "onnxprune.criteria")
criterion = criteria.register


def score_groups(name: str, groups: list[Group], context: Context) -> dict[str, Scores]:
    """Scores per group id. Raises UsageError for an unknown criterion."""
    function = criteria[name]
    return {group.id: function(group, context) for group in groups}
