"""Inputs to try a model on: samples of the data first, then made-up ones, at sizes and values that it may ask for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.input_values import values_of
from onnxprune.data.base import Array, Batch, Data, length_of
from onnxprune.data.index_ranges import compared_values
from onnxprune.model.signature import Feed, IndexRange, Values, ports_of, sizes_of, synthetic_feed

# How many combinations of values of integer inputs are tried, and how many other sizes.
_MOST_VALUES = 24
_OTHER_SIZES = 6
# How many samples at a time are several.
_SEVERAL = 3
_ZEROS = IndexRange(0, 1)


@dataclass(frozen=True)
class TrialInputs:
    """Inputs of one run, and how they came about.

    Attributes:
        said: for messages, like "made-up inputs (ids 1x32)".
        feed: arrays by input name.
    """

    said: str
    feed: Feed


class TrialMaker:
    """Makes inputs for a model that was analysed.

    Args:
        analysis: says which sizes the graph asks for, and which positions tables have.
        data: samples, where there are some.
        given: sizes of dynamic axes that the user has named.
        seed: of what is made up.
    """

    def __init__(
        self, analysis: Analysis, data: Data | None = None, given: Mapping[str, int] = {}, seed: int = 0
    ) -> None:
        self._analysis = analysis
        self._data = data
        self._given = given
        self._seed = seed
        self._ports = ports_of(analysis.model)
        self._values = values_of(analysis)

    def first(self) -> Iterator[TrialInputs]:
        """Inputs to try the original on until it runs, the likeliest first."""
        seen = set()
        samples = () if self._data is None else self._samples(self._data)
        made = (self._made(sizes, values) for values in self._choices() for sizes in self._sizes())
        for trial in itertools.chain(samples, made):
            key = tuple(
                (array.shape, array.tobytes() if array.dtype.kind in "iu" else b"") for array in trial.feed.values()
            )
            if key not in seen:
                seen.add(key)
                yield trial

    def others(self, feed: Feed) -> Iterator[TrialInputs]:
        """The same inputs with other sizes of dynamic axes: one, three, and one more than there are."""
        sizes = sizes_of(feed, self._ports)
        values, batch = _values_in(feed), self._batch()
        rest = [symbol for symbol in sizes if symbol not in batch]
        changes = [dict.fromkeys(batch, size) for size in (1, _SEVERAL) if batch]
        changes += [{symbol: size} for symbol in rest for size in (sizes[symbol] + 1, 1)]
        for change in changes[:_OTHER_SIZES]:
            if any(sizes[symbol] != size for symbol, size in change.items()):
                yield self._made({**sizes, **change}, values)

    def several(self, feed: Feed) -> TrialInputs | None:
        """More samples at a time than the one in `feed`: the first batch of the data, else made up.

        None where the data comes one by one, and where the batch is static.
        """
        if self._data is None:
            sizes = sizes_of(feed, self._ports)
            if not self._batch() or any(sizes.get(symbol, 1) > 1 for symbol in self._batch()):
                return None
            return self._made({**sizes, **dict.fromkeys(self._batch(), _SEVERAL)}, _values_in(feed))
        batch = next(self._data.batches())
        if length_of(batch) < 2 or not self._cuttable(batch):
            return None
        return self._told("samples", batch.feed)

    def _cuttable(self, batch: Batch) -> bool:
        return batch.cuttable and not any(isinstance(port.batch_size, int) for port in self._ports)

    def _samples(self, data: Data) -> Iterator[TrialInputs]:
        """One sample, then the batch that it is in."""
        batch = next(data.batches())
        said = "made-up samples" if data.source == "synthetic" else f"samples of {data.source}"
        if self._cuttable(batch):
            yield self._told(said, batch.take(slice(1)).feed)
        yield self._told(said, batch.feed)

    def _made(self, sizes: Mapping[str, int], values: Values) -> TrialInputs:
        feed = synthetic_feed(self._ports, sizes, self._seed, values)
        return self._told("made-up inputs", feed)

    def _told(self, said: str, feed: Feed) -> TrialInputs:
        shown = []
        for name, array in feed.items():
            one_number = array.size == 1 and array.dtype.kind in "iub"
            shown.append(f"{name} {array.item() if one_number else 'x'.join(map(str, array.shape))}")
        return TrialInputs(f"{said} ({', '.join(shown)})", feed)

    def _batch(self) -> set[str]:
        return {port.batch_symbol for port in self._ports if port.batch_symbol is not None}

    def _sizes(self) -> Iterator[dict[str, int]]:
        """A batch of one, then that of the analysis, then all axes alike."""
        bindings = {**self._analysis.shapes.bindings, **self._given}
        single = {**bindings, **dict.fromkeys(self._batch(), 1), **self._given}
        yield from (single, bindings)
        yield from ({**dict.fromkeys(bindings, size), **self._given} for size in (1, 32))

    def _choices(self) -> Iterator[Values]:
        """Values of integer inputs: positions; numbers that the graph compares them with; zeros."""
        yield self._values
        compared = {
            name: numbers for name, numbers in compared_values(self._analysis.model).items() if name not in self._values
        }
        combinations = itertools.islice(itertools.product(*compared.values()), _MOST_VALUES) if compared else ()
        for numbers in combinations:
            chosen = {name: IndexRange(number, number + 1) for name, number in zip(compared, numbers, strict=True)}
            yield {**self._values, **chosen}
        yield dict.fromkeys((port.name for port in self._ports), _ZEROS)


def _values_in(feed: Feed) -> Values:
    """Values for whole numbers and texts, so that others like those fed can be made."""
    return {name: _held(array) for name, array in feed.items() if array.dtype.kind in "iuO" and array.size}


def _held(array: Array) -> IndexRange | tuple[str, ...]:
    """The content of an array, so that others like it can be made."""
    if array.dtype.kind == "O":
        return tuple(dict.fromkeys(array.ravel().tolist()))
    return IndexRange(int(array.min()), int(array.max()) + 1)
