"""Do arrays fit the inputs of a model? Names, types, shapes, NaN and numbers of samples, each with one clear line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnxprune.data.batch import WAY_OUT, Array, Batch
from onnxprune.errors import DataError
from onnxprune.model.signature import Feed, Port
from onnxprune.support.messages import did_you_mean


def checked(chunk: Batch, ports: Sequence[Port], source: str, *, whole: bool) -> Batch:
    """A chunk without what the model does not need, cast to the types of its inputs.

    Args:
        chunk: arrays as a source gives them.
        ports: the inputs of the model.
        source: what messages name.
        whole: the chunk is fed as the batch that it is; else it is cut and joined along the batch axes.

    Raises DataError for what does not fit.
    """
    feed = {port.name: _array(port, chunk.feed, source, whole) for port in ports}
    most = max((feed[port.name].shape[axis] for port in ports if (axis := _axis(port, feed)) is not None), default=1)
    axes = {port.name: None if is_shared(port, feed[port.name].shape, most) else port.batch_axis for port in ports}
    found = replace(chunk, feed=feed, axes=axes)
    if found.labels is not None and found.labels.dtype.kind not in "fiub":
        raise DataError(f"{source}: labels must be numbers, but they are {found.labels.dtype.name}")
    # Batches that are fed whole may have inputs with other axes; where they have not, labels have to agree too.
    if not whole or len(set(found.lengths.values())) == 1:
        check_lengths(found.lengths, axes, source, None if found.labels is None else len(found.labels))
    return found


def is_shared(port: Port, shape: tuple[int, ...], samples: int) -> bool:
    """Is an array for all samples? It is where its shape is fixed and has room for one sample, and there are more."""
    return port.batch_axis is None or (samples > 1 and port.batch_size == 1 and shape == port.shape)


def check_lengths(
    lengths: Mapping[str, int], axes: Mapping[str, int | None], source: str, labels: int | None = None
) -> None:
    """Raises DataError where inputs, and labels, have different numbers of samples."""
    found = [(count, name, axes.get(name, 0)) for name, count in lengths.items()]
    found += [] if labels is None or not found else [(labels, "labels", 0)]
    if len({count for count, _, _ in found}) > 1:
        listed = ", ".join(f"{count} for '{name}' along axis {axis}" for count, name, axis in found)
        raise DataError(f"{source} has different numbers of samples: {listed}; give as many of each, {WAY_OUT}")


def _axis(port: Port, feed: Feed) -> int | None:
    return port.batch_axis if feed[port.name].ndim else None


def _array(port: Port, feed: Feed, source: str, whole: bool) -> Array:
    if port.name not in feed:
        raise DataError(f"{source} has nothing for input '{port.name}' ({port}){did_you_mean(port.name, feed)}")
    array = np.asarray(feed[port.name])
    if array.ndim == 1 and len(port.shape) == 2 and port.batch_axis == 0 and port.shape[1] == 1:
        array = array[:, None]  # a column of numbers
    check_shape(array.shape, port, source, whole=whole)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        wrong = array.size - int(np.count_nonzero(np.isfinite(array)))
        raise DataError(f"{source}: {wrong} of {array.size} values for input '{port.name}' are NaN or infinite")
    return _cast(array, port, source)


def check_shape(shape: tuple[int, ...], port: Port, source: str, *, whole: bool = False) -> None:
    """The batch axis has to fit only where the chunk is fed whole, else batches are still to be cut along it.

    Raises DataError where it does not.
    """
    if not port.shape:
        return
    due = [None if axis == port.batch_axis and not whole else size for axis, size in enumerate(port.shape)]
    fits = len(shape) == len(due) and all(
        size == expected or not isinstance(expected, int) for size, expected in zip(shape, due, strict=True)
    )
    if not fits:
        found = "x".join(map(str, shape)) or "a single number"
        where = {0: "", None: ", the same for all samples"}.get(
            port.batch_axis, f" with the samples along axis {port.batch_axis}"
        )
        way_out = f"; bring it to that shape, {WAY_OUT}" if where else ""
        raise DataError(f"{source}: input '{port.name}' is {port}{where}, but the data is {found}{way_out}")


def _cast(array: Array, port: Port, source: str) -> Array:
    """To the input's type: between floats as long as nothing overflows, between integers as long as nothing is lost."""
    dtype = port.dtype
    if array.dtype == dtype:
        return array
    if dtype.kind == "U" and array.dtype.kind in "UO":
        return array.astype(object)
    if array.dtype.kind not in ("f" if dtype.kind == "f" else "iub" if dtype.kind in "iub" else ""):
        raise DataError(
            f"{source}: input '{port.name}' is {port}, but the data is {array.dtype.name}; convert it and scale it as "
            "in the model's training"
        )
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    lossless = np.isfinite(cast).all() if dtype.kind == "f" else (cast == array).all()
    if not lossless:
        low, high = array.min(), array.max()
        raise DataError(f"{source}: input '{port.name}' is {port}, which cannot hold the data's values {low} to {high}")
    return cast
