"""Keep some samples apart: what was fitted to the others is measured on these, else it looks better than it is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.data.base import Batch, Data, length_of
from onnxprune.model.signature import Port

# One in so many is kept apart; of fewer, the last. With 512 images of the digits models, a drop that is asked for is
# missed by up to 0.001 on new images with 3, by 0.010 with 2 and by 0.026 with 5.
EVERY = 3

Mask = npt.NDArray[Any]


@dataclass(frozen=True)
class Split:
    """Two parts of data.

    Attributes:
        fitting: what may be fitted to.
        measuring: what is kept apart; all of the data where there is too little to part it.
        counted: how many samples there are in `measuring`, where somebody has counted them.
        apart: the parts have no sample in common.
    """

    fitting: Data
    measuring: Data
    counted: int | None = None
    apart: bool = True

    @cached_property
    def samples(self) -> int:
        """How many there are in `measuring`."""
        return sum(map(length_of, self.measuring.batches())) if self.counted is None else self.counted


def hold_out(data: Data, ports: Sequence[Port], every: int = EVERY, most: int | None = None) -> Split:
    """Every third sample apart, the same in every run; where a model takes batches of one size, every third batch.

    Args:
        data: it is read once, to count, as far as samples are kept apart.
        ports: the model's inputs.
        every: one in so many is kept apart.
        most: so many samples are enough; all that come later may be fitted to.
    """
    lengths, even, enough = [], True, None if most is None else most * every
    for batch in data.batches():
        lengths.append(length_of(batch))
        even = even and batch.cuttable
        if enough is not None and sum(lengths) >= enough:
            break
    cuttable = even and not any(isinstance(port.batch_size, int) for port in ports)
    parts = lengths if cuttable else [1] * len(lengths)
    total = sum(parts)
    if total < 2:
        return Split(data, data, sum(lengths), apart=False)
    last = total if enough is None or not cuttable else min(total, enough)
    numbers = np.split(np.arange(total), np.cumsum(parts)[:-1])
    if data.states:  # a sequence is kept in one piece: its end
        held = [number >= total - max(1, total // every) for number in numbers]
    else:
        held = [(number % every == min(every, total) - 1) & (number < last) for number in numbers]
    samples = sum(
        int(mask.sum()) if cuttable else length * bool(mask) for mask, length in zip(held, lengths, strict=True)
    )

    def fitting() -> Iterator[Batch]:
        for batch, mask in zip_longest(data.batches(), held):
            yield from [batch] if mask is None else _taken(batch, ~mask)

    def measuring() -> Iterator[Batch]:
        for mask, batch in zip(held, data.batches(), strict=False):  # in this order no batch is read for nothing
            yield from _taken(batch, mask)

    return Split(
        Data(
            data.source,
            data.labelled,
            fitting,
            _without(data, np.concatenate(held)) if cuttable else None,
            states=data.states,
        ),
        Data(data.source, data.labelled, measuring, states=data.states),
        samples,
    )


def _taken(batch: Batch, mask: Mask) -> Iterator[Batch]:
    """The samples of a batch that a mask names, or the whole of it where that is one number; nothing where none are."""
    if mask.all():
        yield batch
    elif mask.any():
        yield batch.take(mask)


def _without(data: Data, held: Mask) -> Callable[[int, int], Iterator[Batch]] | None:
    """Passes over single samples, where the data has such, without those that are kept apart."""
    if data.part is None:
        return None
    single = data.part

    def part(index: int, count: int) -> Iterator[Batch]:
        for number, batch in zip(itertools.count(index, count), single(index, count), strict=False):
            if number >= len(held) or not held[number]:
                yield batch

    return part


def in_batches_of(data: Data, most: int) -> Data:
    """The same samples in batches of at most `most`; a batch that cannot be cut stays whole."""

    def batches() -> Iterator[Batch]:
        for batch in data.batches():
            length = length_of(batch)
            if length <= most or not batch.cuttable:
                yield batch
                continue
            yield from (batch.take(slice(at, at + most)) for at in range(0, length, most))

    return Data(data.source, data.labelled, batches, states=data.states)
