"""A batch of samples: arrays whose axes know where the samples are, so that it can be cut and joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import DataError
from onnxprune.model.signature import Feed

Array = npt.NDArray[Any]

# What to do where inputs cannot be cut and joined sample by sample.
WAY_OUT = "or feed complete batches from module:function"


@dataclass(frozen=True)
class Batch:
    """Samples: arrays by input name and, where the data has them, labels.

    Attributes:
        feed: arrays by input name.
        labels: axis 0 enumerates the samples.
        axes: per input the axis that enumerates the samples, None where all samples share the array; axis 0 for inputs
            that are not in it. An array without axes is shared in any case.
    """

    feed: Feed
    labels: Array | None = None
    axes: Mapping[str, int | None] = field(default_factory=dict)

    def axis(self, name: str) -> int | None:
        """The axis of an input that enumerates the samples."""
        return self.axes.get(name, 0) if self.feed[name].ndim else None

    @property
    def lengths(self) -> dict[str, int]:
        """How many samples each input has that is not shared."""
        axes = {name: self.axis(name) for name in self.feed}
        return {name: self.feed[name].shape[axis] for name, axis in axes.items() if axis is not None}

    @property
    def cuttable(self) -> bool:
        """Has every input that is not shared, and have the labels, the same number of samples?"""
        labels = [] if self.labels is None else [len(self.labels)]
        return bool(self.lengths) and len({*self.lengths.values(), *labels}) == 1

    def take(self, samples: slice | Array) -> Batch:
        """Some of the samples: a slice, a mask (bool, shape [samples]) or positions."""
        feed = dict(self.feed)
        for name in self.lengths:
            feed[name] = feed[name][(*[slice(None)] * (self.axis(name) or 0), samples)]
        return replace(self, feed=feed, labels=None if self.labels is None else self.labels[samples])


def length_of(batch: Batch) -> int:
    """How many samples there are: by the first input that enumerates them, 1 where none does."""
    return next(iter(batch.lengths.values()), 1)


def joined(batches: Sequence[Batch], source: str) -> Batch:
    """The samples of all. Raises DataError for samples of different shapes; `source` is what the message names."""
    first = batches[0]
    if len(batches) == 1:
        return first
    feed = {
        name: _joined(name, first.axis(name), [batch.feed[name] for batch in batches], source) for name in first.feed
    }
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return replace(first, feed=feed, labels=np.concatenate(labels) if len(labels) == len(batches) else None)


def _joined(name: str, axis: int | None, arrays: Sequence[Array], source: str) -> Array:
    """The arrays of one input."""
    if axis is None:
        if all(np.array_equal(arrays[0], other) for other in arrays[1:]):
            return arrays[0]
        raise DataError(
            f"{source}: input '{name}' is one array for all samples, but it changes; use --batch 1, {WAY_OUT}"
        )
    shapes = list(dict.fromkeys((*each.shape[:axis], *each.shape[axis + 1 :]) for each in arrays))
    if len(shapes) > 1:
        found = " and ".join("x".join(map(str, shape)) for shape in shapes[:2])
        raise DataError(
            f"{source}: samples for '{name}' are {found}, apart from axis {axis}; bring them to one size, use "
            f"--batch 1, {WAY_OUT}"
        )
    return np.concatenate(arrays, axis)
