"""Arrays that hold many samples side by side, one for each input: cut to chunks along the batch axis of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np

from onnxprune.data.base import SampleRequest
from onnxprune.data.batch import Array, Batch
from onnxprune.data.checks import check_lengths, check_shape, is_shared
from onnxprune.errors import DataError
from onnxprune.model.signature import Port
from onnxprune.support.messages import did_you_mean


class Column(ABC):
    """An array that is taken piece by piece along one of its axes; whole where `axis` is None."""

    shape: tuple[int, ...]
    axis: int | None = 0
    _position = 0

    @property
    def length(self) -> int | None:
        """How many samples it has; None where it is the same for all."""
        return None if self.axis is None or self.axis >= len(self.shape) else self.shape[self.axis]

    def take(self, count: int) -> Array:
        """The next samples, `count` or as many as are left; all of an array that is the same for all."""
        length = self.length
        if length is None or self.axis is None:
            return self.whole()
        start = self._position
        self._position = min(start + count, length)
        if self.axis == 0:
            return self.rows(start, self._position)
        return self.whole()[(*[slice(None)] * self.axis, slice(start, self._position))]

    @abstractmethod
    def whole(self) -> Array:
        """The array."""

    @abstractmethod
    def rows(self, start: int, end: int) -> Array:
        """A part of it along axis 0; the parts are asked for in order."""


class Held(Column):
    """An array in memory."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.shape = array.shape

    def whole(self) -> Array:
        """The array."""
        return self._array

    def rows(self, start: int, end: int) -> Array:
        """A view of it."""
        return self._array[start:end]


class Calls(Column):
    """Whole inputs of one call each, with a batch of one, stacked along an axis before all others."""

    def __init__(self, stacked: Column, batch_axis: int) -> None:
        self._stacked = stacked
        self._batch_axis = batch_axis
        count, *shape = stacked.shape
        self.shape = (*shape[:batch_axis], count, *shape[batch_axis + 1 :])

    def whole(self) -> Array:
        """The array, samples along the batch axis."""
        return self._joined(self._stacked.whole())

    def rows(self, start: int, end: int) -> Array:
        """The next calls."""
        return self._joined(self._stacked.rows(start, end))

    def _joined(self, calls: Array) -> Array:
        return np.moveaxis(calls.take(0, self._batch_axis + 1), 0, self._batch_axis)


def _side_by_side(column: Column, port: Port) -> Column:
    """The column with its samples along the batch axis of the input, where its calls are stacked."""
    axis = port.batch_axis
    if axis is None or not port.shape or len(column.shape) != len(port.shape) + 1:
        return column
    due = [1 if place == axis else size for place, size in enumerate(port.shape)]
    fits = all(size == want or not isinstance(want, int) for size, want in zip(column.shape[1:], due, strict=True))
    return Calls(column, axis) if fits else column


C = TypeVar("C", bound=Column)


def inputs_of(columns: Mapping[str, C], request: SampleRequest, what: str = "") -> dict[str, C]:
    """The column of each input; for a model with one input the only one, whatever its name.

    Raises DataError, about `what` or all that was asked for, where one is missing.
    """
    found = {name: column for name, column in columns.items() if name != request.labels}
    if len(found) == len(request.ports) == 1:
        found = dict.fromkeys([request.ports[0].name], *found.values())
    for port in request.ports:
        if port.name not in found:
            known = did_you_mean(port.name, found)
            raise DataError(
                f"{what or request.spec} has no array for input '{port.name}' ({port}){known}{_hint(port, request)}"
            )
    return {port.name: found[port.name] for port in request.ports}


def _hint(port: Port, request: SampleRequest) -> str:
    """States that a model gives back need no data, where samples are a sequence."""
    several = len(request.ports) > 1
    return f"; a state that the model gives back is carried with --carry {port.name}=OUTPUT" if several else ""


def label_column(columns: Mapping[str, C], request: SampleRequest) -> C | None:
    """The column with the labels, where some were asked for. Raises DataError where they are missing."""
    if request.labels is None:
        return None
    if request.labels not in columns:
        raise DataError(f"{request.spec} has no labels '{request.labels}'{did_you_mean(request.labels, columns)}")
    return columns[request.labels]


def is_sample(shapes: Mapping[str, tuple[int, ...]], request: SampleRequest) -> bool:
    """Are these the arrays of one sample: does one of them fit but for the batch axis, which it lacks?"""
    return any(_lacks_batch(shapes[port.name], port) for port in request.ports if port.name in shapes)


def _lacks_batch(shape: tuple[int, ...], port: Port) -> bool:
    due = [size for axis, size in enumerate(port.shape) if axis != port.batch_axis]
    return len(shape) == len(due) < len(port.shape) and all(
        size == expected or not isinstance(expected, int) for size, expected in zip(shape, due, strict=True)
    )


def from_rows(arrays: Mapping[str, Array], request: SampleRequest) -> Batch:
    """A batch from arrays whose first axis enumerates the samples, whatever axis does so for the model."""
    feed = dict(arrays)
    for port in request.ports:
        if port.batch_axis is not None and 0 < port.batch_axis < feed[port.name].ndim:
            feed[port.name] = np.moveaxis(feed[port.name], 0, port.batch_axis)
    return Batch(feed)


def one_sample(arrays: Mapping[str, Array], request: SampleRequest) -> Batch:
    """A batch of one sample: its arrays get the batch axis that they lack."""
    feed = dict(arrays)
    for port in request.ports:
        if port.batch_axis is not None and port.name in feed and feed[port.name].ndim + 1 == len(port.shape):
            feed[port.name] = np.expand_dims(feed[port.name], port.batch_axis)
    return Batch(feed)


def one_label(label: Array) -> Array:
    """The label of one sample as those of a batch of one."""
    return label if label.shape == (1,) else label[None]


def chunks(
    inputs: Mapping[str, Column],
    labels: Column | None,
    request: SampleRequest,
    source: str,
    *,
    labels_go_on: bool = False,
) -> Iterator[Batch]:
    """Chunks of columns; one with all of them where no axis enumerates samples.

    Args:
        inputs: a column for each input.
        labels: one for the labels.
        request: says along which axes, and how much at a time.
        source: what messages name.
        labels_go_on: the labels hold more samples than the inputs, those of other files.

    Raises DataError for different numbers of samples.
    """
    inputs = {port.name: _side_by_side(inputs[port.name], port) for port in request.ports}
    for port in request.ports:
        inputs[port.name].axis = port.batch_axis
    most = max((column.length or 0 for column in inputs.values()), default=0)
    for port in request.ports:
        if is_shared(port, inputs[port.name].shape, most):
            inputs[port.name].axis = None
    lengths = {name: column.length for name, column in inputs.items()}
    enumerating = {name: length for name, length in lengths.items() if length is not None}
    axes = {port.name: port.batch_axis for port in request.ports}
    own = None if labels is None or labels_go_on else labels.length
    for port in request.ports if len(set(enumerating.values())) > 1 else ():
        check_shape(inputs[port.name].shape, port, source)
    check_lengths(enumerating, axes, source, own)
    for _ in range(0, most, request.batch) if enumerating else range(1):
        feed = {name: column.take(request.batch) for name, column in inputs.items()}
        batch = Batch(feed, axes={name: column.axis for name, column in inputs.items()})
        count = next(iter(batch.lengths.values()), None)
        part = None if labels is None else labels.whole() if count is None else labels.take(count)
        yield Batch(feed, part, batch.axes)
