"""Samples for a training: shuffled by a seed, kept in memory where they fit, parted into batches and among processes.

Every sample has a number, its place in a pass over the data, so what was computed once for it can be found again.
What is drawn for a step follows from the seed and the number of the step alone: a training that is resumed sees the
same samples as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
import numpy.typing as npt

from onnxprune.data.base import Array, Batch, Data, length_of
from onnxprune.errors import DataError

# Of data that is kept apart, at most so many samples: more say little more and take their time.
MOST_APART = 1000


@dataclass(frozen=True)
class Portion:
    """Samples that are computed together.

    Attributes:
        batch: their arrays.
        numbers: the place of each in a pass over the data: int64, shape [samples].
        whole: it comes as it is and cannot be cut: the model takes batches of one size, or its inputs differ in length.
    """

    batch: Batch
    numbers: npt.NDArray[np.int64]
    whole: bool = False

    def __len__(self) -> int:
        return len(self.numbers)

    def part(self, start: int, end: int) -> Portion:
        """Some of the samples."""
        return Portion(_taken(self.batch, slice(start, end)), self.numbers[start:end])


class TrainingSamples:
    """The samples of a training.

    Args:
        data: where they come from; every pass gives the same ones.
        batch: samples per update.
        memory: bytes that may be kept; of more data a part at a time is shuffled and the rest read again every epoch.
        seed: of the order.
        fixed: the model takes batches of the size that the data comes in, and of no other.

    Raises DataError where there are none.
    """

    def __init__(self, data: Data, batch: int, memory: int, seed: int = 0, *, fixed: bool = False) -> None:
        self._data, self._batch, self._memory, self._seed = data, batch, memory, seed
        self.labelled, self.source = data.labelled, data.source
        self.count = self.bytes = 0
        kept: list[Batch] = []
        self.whole = fixed
        for found in data.batches():
            self.whole = self.whole or not _is_even(found) or bool(kept and _shapes(found) != _shapes(kept[0]))
            self.count += length_of(found)
            self.bytes += _size(found)
            if self.bytes <= memory:
                kept.append(found)
        if not self.count:
            raise DataError(f"{data.source} has no samples to train on")
        self._kept = kept if self.whole and self.bytes <= memory else None
        self._columns = _joined(kept) if not self.whole and self.bytes <= memory else None

    @property
    def steps(self) -> int:
        """Updates in an epoch; samples that do not fill a batch at its end are left for the next one."""
        return max(self.count // self._batch, 1)

    def epoch(self, number: int) -> Iterator[list[Portion]]:
        """The updates of one epoch, each as portions that are computed one after the other."""
        rng = np.random.default_rng([self._seed, number])
        portions = self._whole(rng) if self.whole else self._cut(rng)
        return islice(portions, self.steps)

    def first(self, samples: int) -> list[Portion]:
        """The first portions of a pass, with at least so many samples where there are as many."""
        found: list[Portion] = []
        for portion in self._pass():
            found.append(portion)
            if sum(map(len, found)) >= samples:
                break
        return found

    def digests(self) -> set[int]:
        """What tells the inputs of one sample from those of another; empty where they are not kept in memory."""
        found: set[int] = set()
        for portion in self._pass() if self._columns is not None else ():
            arrays = [array for array in portion.batch.feed.values() if array.ndim]
            found.update(hash(tuple(array[at].tobytes() for array in arrays)) for at in range(len(portion)))
        return found

    def _pass(self) -> Iterator[Portion]:
        """All in the order of the data."""
        if self._columns is not None:
            for at in range(0, self.count, self._batch):
                chosen = np.arange(at, min(at + self._batch, self.count))
                yield Portion(_taken(self._columns, slice(at, at + self._batch)), chosen)
            return
        number = 0
        for batch in self._kept if self._kept is not None else self._data.batches():
            yield Portion(batch, np.arange(number, number := number + length_of(batch)), self.whole)

    def _cut(self, rng: np.random.Generator) -> Iterator[list[Portion]]:
        """Batches of exactly the size that was asked for, or of all samples where those are fewer."""
        size = min(self._batch, self.count)
        if self._columns is not None:
            order = rng.permutation(self.count)
            for at in range(0, self.count - size + 1, size):
                chosen = order[at : at + size]
                yield [Portion(_taken(self._columns, chosen), chosen)]
            return
        room = max(self._memory // max(self.bytes // self.count, 1), size)
        waiting: list[Portion] = []
        for portion in _shuffled(self._pass(), room, rng):
            waiting.append(portion)
            if len(waiting) == size:
                yield [_together(waiting)]
                waiting = []

    def _whole(self, rng: np.random.Generator) -> Iterator[list[Portion]]:
        """Batches of the data as they are, as many to an update as come nearest to its size."""
        portions: Iterator[Portion] = iter(self._pass())
        if self._kept is not None:
            found = list(portions)
            portions = (found[index] for index in rng.permutation(len(found)))
        waiting: list[Portion] = []
        for portion in portions:
            waiting.append(portion)
            if sum(map(len, waiting)) >= self._batch:
                yield waiting
                waiting = []
        if waiting:
            yield waiting


def hold_apart(data: Data, share: float, most: int = MOST_APART, *, fixed: bool = False) -> tuple[Data, Data | None]:
    """The data without, and with only, a share of its samples: the last of every `1 / share` in a row, up to `most`.

    The second is None where that leaves nothing on either side. Batches that cannot be cut, all of them where the model
    takes no others (`fixed`), are held apart whole.
    """
    if not share:
        return data, None
    every = round(1 / share)

    def part(apart: bool) -> Iterator[Batch]:
        number = 0
        for index, batch in enumerate(data.batches()):
            length = length_of(batch)
            whole = fixed or not _is_even(batch)
            places = np.full(length, index) if whole else np.arange(number, number + length)
            chosen = (places % every == every - 1) & (places < most * every)
            number += length
            chosen = chosen if apart else ~chosen
            if chosen.all():
                yield batch
            elif chosen.any():
                yield _taken(batch, chosen)

    fitting, measuring = (replace(data, start=partial(part, apart), part=None) for apart in (False, True))
    empty = next(measuring.batches(), None) is None or next(fitting.batches(), None) is None
    return (data, None) if empty else (fitting, measuring)


def _shuffled(portions: Iterator[Portion], room: int, rng: np.random.Generator) -> Iterator[Portion]:
    """Sample after sample in an order that is random within a window of `room` samples."""
    window: list[Portion] = []
    for portion in portions:
        for at in range(len(portion)):
            single = portion.part(at, at + 1)
            if len(window) < room:
                window.append(single)
                continue
            index = int(rng.integers(room))
            yield window[index]
            window[index] = single
    for index in rng.permutation(len(window)):
        yield window[index]


def _together(portions: Sequence[Portion]) -> Portion:
    return Portion(_joined([each.batch for each in portions]), np.concatenate([each.numbers for each in portions]))


def _joined(batches: Sequence[Batch]) -> Batch:
    first = batches[0]
    feed = {
        name: np.concatenate([batch.feed[name] for batch in batches]) if array.ndim else array
        for name, array in first.feed.items()
    }
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return Batch(feed, np.concatenate(labels) if len(labels) == len(batches) else None)


def _taken(batch: Batch, chosen: slice | npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Batch:
    feed = {name: array[chosen] if array.ndim else array for name, array in batch.feed.items()}
    return Batch(feed, None if batch.labels is None else batch.labels[chosen])


def _columns(batch: Batch) -> list[Array]:
    labels = [] if batch.labels is None else [batch.labels]
    return [array for array in (*batch.feed.values(), *labels) if array.ndim]


def _is_even(batch: Batch) -> bool:
    """Does the first axis of every array enumerate the same samples?"""
    return len({len(array) for array in _columns(batch)}) == 1


def _shapes(batch: Batch) -> list[tuple[int, ...]]:
    return [array.shape[1:] for array in _columns(batch)]


def _size(batch: Batch) -> int:
    return sum(array.nbytes for array in _columns(batch))
