"""Data as people have it at hand in Python: arrays, dictionaries of arrays, and whatever can be iterated over.

All of it becomes chunks like those of files, so that the same code checks, casts and cuts it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.data.base import NO_HINTS, Data, Hints, SampleRequest, Start, load_data, open_passes, passes, request_for
from onnxprune.data.batch import Array, Batch
from onnxprune.data.columns import Held, chunks, inputs_of, is_sample, label_column, one_label, one_sample
from onnxprune.data.items import array_of, batches_of, is_array, iterator
from onnxprune.data.pixels import AS_SUGGESTED, ImageOptions
from onnxprune.data.stored import kept
from onnxprune.errors import DataError, MissingExtraError, UsageError, WrongTypeError
from onnxprune.model.signature import Port
from onnxprune.support.messages import one_line

_ACCEPTED = (
    "a path, module:function or synthetic; an array, or a dict of arrays; a table of pyarrow, pandas or polars; a "
    "torch DataLoader or Dataset; or a list or generator of arrays, of dicts or of (input, label) pairs"
)
# The key of labels that are given as an array of their own.
_LABELS = "labels given apart"


def as_data(
    given: Any,
    ports: Sequence[Port],
    *,
    batch: int = 32,
    labels: Any = None,
    samples: int | None = None,
    seed: int = 0,
    sizes: Mapping[str, int] = {},
    images: ImageOptions = AS_SUGGESTED,
    tokenizer: Path | None = None,
    hints: Hints = NO_HINTS,
) -> Data:
    """Samples for a model, from whatever they are in.

    - Data, which is returned as it is, whatever the other arguments.
    - A path, `module:function` or `synthetic`: see `load_data`.
    - One array, or a tensor, for a model with one input; a dict of them by input name; a table of pyarrow, or of what
      gives itself as one (pandas, polars), with a column for each input. They are cut along the batch axis of each
      input (`Port.batch_axis`).
    - A list, a generator, a DataLoader, anything that can be iterated over, of arrays, dicts of arrays, or (input,
      label) pairs. Inputs of a model with several may also come in their order, as in the batches of a TensorDataset,
      the label last. An item is a batch where its arrays have as many axes as the inputs, and is fed as it is, or cut
      where the model fixes the size of batches; it is one sample where they fit but for the batch axis.
    - A tuple is one item: `(x, y)` are inputs and their labels.

    Arrays and lists are read again in every pass. Everything else is read once, here, and kept, in a
    temporary folder where it is large (`stored.kept`): so every pass gives the same, whether or not a DataLoader
    shuffles or a Dataset draws augmentations, and generators are not exhausted.

    Args:
        given: the samples.
        ports: the model's inputs, as `signature.ports_of` gives them.
        batch: samples in a batch, where they do not come in batches; where the batch axis of an input is static, its
            size is taken instead, and what is left at the end and does not fill a batch is left out.
        labels: the key of the labels in dicts, the column of a table; or, beside an array or a dict of arrays, the
            labels themselves, samples along axis 0.
        samples: at most this many, the first ones; all by default.
        seed: of everything random.
        sizes: sizes of symbolic axes, by name or `input[axis]`.
        images: what is done to images, in files and tables.
        tokenizer: a `tokenizer.json` for text.
        hints: what synthetic data may know of the model.

    Raises WrongTypeError for what is none of this, UsageError for impossible options, DataError for data that does not
    fit, or is empty.
    """
    if isinstance(given, Data):
        return given
    apart = not (labels is None or isinstance(labels, str))
    if isinstance(given, str | os.PathLike):
        if apart:
            raise UsageError(f"labels of {os.fspath(given)} are named, as the array or column that they are in")
        return load_data(
            os.fspath(given),
            ports,
            labels=labels,
            samples=samples,
            batch=batch,
            seed=seed,
            sizes=sizes,
            images=images,
            tokenizer=tokenizer,
            hints=hints,
        )
    request = request_for(_name(given), ports, _LABELS if apart else labels, samples, batch, seed, sizes, images)
    columns = None if _is_table(given) else _columns(given, request)
    if apart:
        if columns is None:
            raise UsageError(f"labels of {request.spec} come with its items, as (input, label) pairs or in dicts")
        columns[_LABELS] = array_of(labels, "what is given as labels")
    if columns is not None:
        return open_passes(request, passes(request, lambda: _cut(columns, request), whole=False))
    if _is_table(given):
        return open_passes(request, passes(request, _rows(given, request), whole=False))
    if isinstance(given, tuple):
        return open_passes(request, passes(request, lambda: batches_of(iter([given]), request), whole=False))
    if isinstance(given, list):
        return open_passes(request, passes(request, lambda: batches_of(iter(given), request), whole=True))
    items = _items(given)
    return open_passes(request, kept(passes(request, lambda: batches_of(items, request), whole=True)()))


def _name(given: Any) -> str:
    """How messages and reports call it."""
    if isinstance(given, Mapping):
        return "the dict of arrays"
    is_one = is_array(given) and not _is_table(given)
    return "the array" if is_one else f"the {type(given).__name__} that was given"


def _is_table(given: Any) -> bool:
    """Has it columns, and does it give them in the way of Arrow?"""
    return hasattr(given, "__arrow_c_stream__") and (hasattr(given, "columns") or hasattr(given, "schema"))


def _columns(given: Any, request: SampleRequest) -> dict[str, Array] | None:
    """The arrays by input name, of one array or a dict of them; None for anything else."""
    ports, spec = request.ports, request.spec
    if isinstance(given, Mapping):
        named = {str(name): value for name, value in given.items()}
        needed = {port.name for port in ports} | {request.labels}
        alone = len(named.keys() - {request.labels}) == 1
        return {
            name: array_of(value, f"'{name}' of {spec}") if alone or name in needed else np.zeros(0)
            for name, value in named.items()
        }
    if not is_array(given):
        return None
    if len(ports) > 1:
        names = ", ".join(f"'{port.name}' ({port})" for port in ports)
        raise DataError(f"{spec} can be one input only, but the model has {names}; give a dict of arrays by input name")
    return {ports[0].name: array_of(given, spec)}


def _cut(arrays: Mapping[str, Array], request: SampleRequest) -> Iterator[Batch]:
    """Chunks of arrays that lie side by side; the one sample, where they lack the batch axis."""
    held = {name: Held(array) for name, array in arrays.items()}
    inputs, labels = inputs_of(held, request), label_column(held, request)
    if is_sample({name: column.shape for name, column in inputs.items()}, request):
        sample = one_sample({name: column.whole() for name, column in inputs.items()}, request)
        yield sample if labels is None else replace(sample, labels=one_label(labels.whole()))
        return
    yield from chunks(inputs, labels, request, request.spec)


def _rows(given: Any, request: SampleRequest) -> Start:
    """Make a start of passes over the rows of a table."""
    try:
        import pyarrow
    except ImportError:
        raise MissingExtraError("pyarrow", "data") from None
    from onnxprune.data.sources.tables import read_rows

    try:
        table = pyarrow.table(given)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{request.spec} cannot be read as a table: {one_line(error)}") from error

    def rows(columns: list[str], count: int) -> Iterator[Any]:
        return iter(table.select(columns).to_batches(max_chunksize=count))

    return lambda: read_rows(table.schema, rows, request.spec, request)


def _items(given: Any) -> Iterator[Any]:
    """Raises WrongTypeError for what cannot be iterated over."""
    try:
        if not isinstance(given, bytes | bytearray | set | frozenset):
            return iterator(given)
    except TypeError:
        pass
    raise WrongTypeError(f"data is given as {_ACCEPTED}; not as {type(given).__name__}")
