"""Tables on disk: parquet and Arrow files, and data sets as Hugging Face's `save_to_disk` writes them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.data import pixels
from onnxprune.data.base import Array, Batch, SampleRequest, SourceSample, Start, source
from onnxprune.data.columns import from_rows
from onnxprune.errors import DataError, MissingExtraError
from onnxprune.model.signature import Port
from onnxprune.support.messages import did_you_mean, one_line

Rows = Callable[[list[str], int], Iterator[Any]]

_SUFFIXES = {".parquet", ".arrow"}
# What `save_to_disk` leaves beside one table, and beside the folders of several.
_STATE, _SPLITS = "state.json", "dataset_dict.json"


def _recognizes(request: SampleRequest) -> bool:
    path = request.path
    if not path.is_dir():
        return path.suffix in _SUFFIXES
    return (path / _SPLITS).is_file() or any(file.suffix in _SUFFIXES for file in path.iterdir())


def _sample(folder: Path) -> SourceSample:
    import pyarrow
    import pyarrow.parquet

    rows = [[float(i), 1.0, 2.0] for i in range(7)]
    pyarrow.parquet.write_table(pyarrow.table({"x": rows, "y": list(range(7))}), folder / "rows.parquet")
    return SourceSample("rows.parquet", (Port("x", "tensor(float)", ("batch", 3)),), {"labels": "y"})


@source(
    "tables",
    "a .parquet or .arrow file, a folder of them, or a saved Hugging Face dataset",
    _recognizes,
    sample=_sample,
    options=("labels", "images"),
)
def open_tables(request: SampleRequest) -> Start:
    """Columns by input name; where the model has one input, the only column, or the only one of images, fits it.

    Lists, nested ones too, become axes and have to be of one length. Images are bytes, or structs with a field
    `bytes`. Tables are read a few rows at a time by pyarrow alone.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "data") from None
    files = _files(request)
    if not files:
        raise DataError(f"{request.spec} has no table in it")

    def start() -> Iterator[Batch]:
        for file in files:
            try:
                yield from _read(file, request)
            except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
                raise DataError(f"{file} cannot be read: {one_line(error)}; save or copy it again") from None

    return start


def _files(request: SampleRequest) -> list[Path]:
    """The tables, in order."""
    path = request.path
    if not path.exists():
        raise DataError(f"{request.spec} does not exist; check the path")
    if path.is_file():
        return [path]
    if (path / _SPLITS).is_file():
        splits = sorted(file.parent for file in path.glob(f"*/{_STATE}"))
        raise DataError(
            f"{path} has several tables; give one of them: {', '.join(map(str, splits)) or 'none is there'}"
        )
    if (path / _STATE).is_file():
        try:
            names = [entry["filename"] for entry in json.loads((path / _STATE).read_text())["_data_files"]]
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path / _STATE} does not name the data files; save the data set again") from None
        return [path / Path(name).name for name in names]
    return sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)


def _read(file: Path, request: SampleRequest) -> Iterator[Batch]:
    with _opened(file) as (schema, rows):
        yield from read_rows(schema, rows, str(file), request)


def read_rows(schema: Any, rows: Rows, source: str, request: SampleRequest) -> Iterator[Batch]:
    """Samples from the rows of a table.

    Args:
        schema: of the table, a `pyarrow.Schema`.
        rows: gives some columns, by name, in record batches of at most so many rows.
        source: what messages name.
        request: what is asked for.
    """
    columns = {port.name: _column(port, schema, request) for port in request.ports}
    if request.labels is not None and request.labels not in schema.names:
        raise DataError(f"{source} has no column '{request.labels}'{did_you_mean(request.labels, schema.names)}")
    decoders = {
        port.name: pixels.recipe(port, request.images)
        for port in request.ports
        if _holds_images(schema.field(columns[port.name]).type)
    }
    wanted = [*columns.values(), *([] if request.labels is None else [request.labels])]
    for part in rows(list(dict.fromkeys(wanted)), request.batch):
        feed = {}
        for name, column in columns.items():
            told = f"{source}: column '{column}'"
            entries = part.column(column)
            feed[name] = _images(entries, decoders[name], told) if name in decoders else _numbers(entries, told)
        batch = from_rows(feed, request)
        if request.labels is not None:
            labels = _numbers(part.column(request.labels), f"{source}: column '{request.labels}'")
            batch = replace(batch, labels=labels)
        yield batch


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, Rows]]:
    """The schema of a table, and a function that gives some columns in record batches of at most so many rows."""
    import pyarrow
    import pyarrow.parquet

    if file.suffix == ".parquet":
        # pre_buffer, which is the default, would read all row groups at once
        with pyarrow.parquet.ParquetFile(file, pre_buffer=False) as table:
            yield table.schema_arrow, lambda columns, count: table.iter_batches(batch_size=count, columns=columns)
        return
    with pyarrow.memory_map(str(file)) as mapped:
        try:
            stream = pyarrow.ipc.open_stream(mapped)  # as `save_to_disk` writes
            batches = iter(stream)
        except pyarrow.ArrowInvalid:
            stream = pyarrow.ipc.open_file(mapped)
            batches = (stream.get_batch(index) for index in range(stream.num_record_batches))
        yield stream.schema, lambda columns, count: _slices(batches, columns, count)


def _slices(batches: Iterator[Any], columns: list[str], count: int) -> Iterator[Any]:
    """Record batches cut to at most `count` rows. Raises pyarrow.ArrowInvalid for damaged ones."""
    for batch in batches:
        if batch.num_rows < 0:
            raise ValueError("it says to have fewer than no rows")
        selected = batch.select(columns)
        selected.validate(full=True)
        for start in range(0, selected.num_rows, count):
            yield selected.slice(start, count)


def _column(port: Port, schema: Any, request: SampleRequest) -> str:
    """The name of the column for an input."""
    names: list[str] = [name for name in schema.names if name != request.labels]
    if port.name in names:
        return port.name
    if len(request.ports) == 1:
        images = [name for name in names if _holds_images(schema.field(name).type)]
        for candidates in (names, images):
            if len(candidates) == 1:
                return candidates[0]
    known = did_you_mean(port.name, names)
    raise DataError(f"{request.spec} has no column for input '{port.name}' ({port}){known}")


def _holds_images(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return "bytes" in {field.name for field in kind}
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _images(column: Any, recipe: pixels.PixelRecipe, name: str) -> Array:
    """Encoded images as one array. Raises DataError for images of several sizes and for those that are elsewhere."""
    arrays = []
    for row in column.to_pylist():
        content = row["bytes"] if isinstance(row, dict) else row
        if content is None:
            raise DataError(f"{name} has an image without its bytes; save the data set with the images in it")
        arrays.append(recipe.array(content, f"{name}: an image"))
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise DataError(f"{name} has images of several sizes, like {shapes[0]} and {shapes[1]}; use --resize or --crop")
    return np.stack(arrays)


def _numbers(column: Any, name: str) -> Array:
    """Numbers, or lists of them as further axes. Raises DataError for gaps and for lists of several lengths."""
    import pyarrow
    from pyarrow import types

    if column.null_count:
        raise DataError(f"{name} has {column.null_count} entries without a value; fill them in or drop those rows")
    if isinstance(column, pyarrow.FixedShapeTensorArray):
        return np.asarray(column.to_numpy_ndarray())
    if isinstance(column, pyarrow.ExtensionArray):
        return _numbers(column.storage, name)
    if not (types.is_list(column.type) or types.is_large_list(column.type) or types.is_fixed_size_list(column.type)):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
    if len(lengths) > 1:
        raise DataError(f"{name} has lists of {lengths[0]} to {lengths[-1]} entries; pad them to one length")
    inner = _numbers(column.flatten(), name)
    return inner.reshape(len(column), -1 if len(inner) else 0, *inner.shape[1:])
