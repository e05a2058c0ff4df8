"""Arrays in numpy's files: an .npz file, or a folder of .npy or .npz files."""

from __future__ import annotations

import contextlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnxprune.data.base import Array, Batch, Request, Start, source
from onnxprune.errors import DataError
from onnxprune.support.messages import did_you_mean, one_line

_SUFFIXES = {".npy", ".npz"}
# What numpy and zipfile raise at damaged files.
_DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    RuntimeError,
    OverflowError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


class Rows:
    """An array in a file of `size` bytes, read from its first row on.

    Raises DataError for what is not a plain array (objects would need pickle, which is never read) or not all there.
    """

    def __init__(self, file: IO[bytes], name: str, size: int) -> None:
        self._file = file
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, self._columns_first, self._dtype = read_header(file)
        if self._dtype.hasobject:
            raise DataError(f"{name} holds Python objects, which are never read; save it as numbers")
        if prod(self.shape) * self._dtype.itemsize > size:
            raise DataError(f"{name} is truncated; save or copy it again")
        self._whole: Array | None = None
        self._position = 0

    def take(self, count: int) -> Array:
        """The next rows, `count` or as many as are left; all of an array that has no rows."""
        if self._whole is None and (self._columns_first or not self.shape):  # its rows are scattered over the file
            self._whole = self._read(self.shape[::-1]).T
        if not self.shape and self._whole is not None:
            return self._whole
        start = self._position
        self._position = min(start + count, self.shape[0])
        if self._whole is not None:
            return self._whole[start : self._position]
        return self._read((self._position - start, *self.shape[1:]))

    def _read(self, shape: tuple[int, ...]) -> Array:
        content = bytearray(prod(shape) * self._dtype.itemsize)
        if self._file.readinto(content) < len(content):  # type: ignore[attr-defined]
            raise EOFError("the file ends too early")
        return np.frombuffer(content, self._dtype).reshape(shape)


def _recognizes(request: Request) -> bool:
    path = request.path
    return path.suffix in _SUFFIXES or (path.is_dir() and any(file.suffix in _SUFFIXES for file in path.iterdir()))


@source(
    "arrays",
    "an .npz file with an array for each input, or a folder of .npy or .npz files",
    _recognizes,
    options=("labels",),
)
def open_arrays(request: Request) -> Start:
    """Arrays by input name. Where the model has one input, one array fits it whatever its name.

    The .npy files of a folder are one array for each input where they are named so, else one sample each; an .npz file
    there holds the arrays of one sample or of several. Arrays are streamed; one in Fortran order is read whole.
    """
    if not request.path.exists():
        raise DataError(f"{request.spec} does not exist; check the path")
    if request.path.is_file():
        return lambda: _together([request.path], request)
    files = sorted(file for file in request.path.iterdir() if file.suffix in _SUFFIXES)
    arrays = {file.stem: file for file in files if file.suffix == ".npy"}
    if all(port.name in arrays for port in request.ports):
        return lambda: _together(list(arrays.values()), request)
    return lambda: _one_by_one(files, request)


def _together(files: list[Path], request: Request) -> Iterator[Batch]:
    """All samples, from arrays that lie side by side."""
    with _opened(files) as arrays:
        yield from _chunks(_inputs(arrays, request), _labels(arrays, request), request, request.spec)


def _one_by_one(files: list[Path], request: Request) -> Iterator[Batch]:
    """Samples from one file after the other; the labels come with them, or from a file of their own."""
    own = request.path / f"{request.labels}.npy"
    with contextlib.ExitStack() as stack:
        labels = _labels(stack.enter_context(_opened([own])), request) if own in files else None
        for file in files:
            if file == own:
                continue
            with _opened([file]) as arrays:
                inputs = _inputs(arrays, request)
                beside = labels or _labels(arrays, request)
                if any(len(inputs[port.name].shape) + 1 == len(port.shape) for port in request.ports):
                    yield _sample(inputs, beside, single=labels is None)
                else:
                    yield from _chunks(inputs, beside, request, str(file), shared=labels is not None)


def _sample(inputs: Mapping[str, Rows], labels: Rows | None, *, single: bool) -> Batch:
    """A file with one sample: its arrays lack the first axis."""
    feed = {name: _all(rows)[None] for name, rows in inputs.items()}
    if labels is None:
        return Batch(feed)
    return Batch(feed, np.atleast_1d(_all(labels)) if single else labels.take(1))


def _all(rows: Rows) -> Array:
    return rows.take(rows.shape[0] if rows.shape else 1)


def _chunks(
    inputs: Mapping[str, Rows], labels: Rows | None, request: Request, name: str, *, shared: bool = False
) -> Iterator[Batch]:
    """Chunks of rows of several arrays. `shared`: the labels go on in the next file."""
    arrays = {**inputs, **({} if labels is None or shared else {"labels": labels})}
    lengths = {key: rows.shape[0] for key, rows in arrays.items() if rows.shape}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{length} for '{key}'" for key, length in lengths.items())
        raise DataError(f"{name} has different numbers of samples: {listed}")
    for _ in range(0, max(lengths.values(), default=0), request.batch):
        feed = {key: rows.take(request.batch) for key, rows in inputs.items()}
        count = max(len(array) for array in feed.values() if array.ndim)
        yield Batch(feed, None if labels is None else labels.take(count))


@contextlib.contextmanager
def _opened(files: list[Path]) -> Iterator[dict[str, Rows]]:
    """The arrays in some files by name. Raises DataError where one is not numpy's or is damaged, also in the block."""
    with contextlib.ExitStack() as stack:
        try:
            found = {}
            for file in files:
                for name, stream, size in _streams(file, stack):
                    found[name] = Rows(stream, f"{file}: array '{name}'", size)
            yield found
        except _DAMAGED as error:
            raise DataError(f"{', '.join(map(str, files))} cannot be read: {one_line(error)}; save it again") from None


def _streams(file: Path, stack: contextlib.ExitStack) -> Iterator[tuple[str, IO[bytes], int]]:
    """Name, content and size of each array in a file."""
    if file.suffix == ".npy":
        yield file.stem, stack.enter_context(file.open("rb")), file.stat().st_size
        return
    archive = stack.enter_context(zipfile.ZipFile(file))
    for member in archive.infolist():
        yield member.filename.removesuffix(".npy"), stack.enter_context(archive.open(member)), member.file_size


def _inputs(arrays: Mapping[str, Rows], request: Request) -> dict[str, Rows]:
    """The array of each input."""
    found: dict[str, Any] = {name: rows for name, rows in arrays.items() if name != request.labels}
    if len(found) == len(request.ports) == 1:
        found = dict.fromkeys([request.ports[0].name], *found.values())
    for port in request.ports:
        if port.name not in found:
            known = did_you_mean(port.name, found)
            raise DataError(f"{request.spec} has no array for input '{port.name}' ({port}){known}")
    return {port.name: found[port.name] for port in request.ports}


def _labels(arrays: Mapping[str, Rows], request: Request) -> Rows | None:
    if request.labels is None:
        return None
    if request.labels not in arrays:
        raise DataError(f"{request.spec} has no labels '{request.labels}'{did_you_mean(request.labels, arrays)}")
    return arrays[request.labels]
