"""Arrays in numpy's files: an .npz file, or a folder of .npy or .npz files."""

from __future__ import annotations

import contextlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from onnxprune.data.base import Array, Batch, SampleRequest, SourceSample, Start, source
from onnxprune.data.columns import Column, chunks, inputs_of, is_sample, label_column, one_label, one_sample
from onnxprune.errors import DataError
from onnxprune.model.signature import Port
from onnxprune.support.messages import one_line

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


class ArrayRows(Column):
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

    def whole(self) -> Array:
        """The array, which is then kept."""
        if self._whole is None:
            whole = self._read(self.shape[::-1]).T if self._columns_first else self._read(self.shape)
            self._whole = whole
        return self._whole

    def rows(self, start: int, end: int) -> Array:
        """The next rows; the rows of an array in Fortran order are scattered over the file, so that is read whole."""
        if self._columns_first:
            return self.whole()[start:end]
        return self._read((end - start, *self.shape[1:]))

    def _read(self, shape: tuple[int, ...]) -> Array:
        content = bytearray(prod(shape) * self._dtype.itemsize)
        if self._file.readinto(content) < len(content):  # type: ignore[attr-defined]
            raise EOFError("the file ends too early")
        return np.frombuffer(content, self._dtype).reshape(shape)


def _recognizes(request: SampleRequest) -> bool:
    path = request.path
    return path.suffix in _SUFFIXES or (path.is_dir() and any(file.suffix in _SUFFIXES for file in path.iterdir()))


def _sample(folder: Path) -> SourceSample:
    x = np.arange(21, dtype=np.float32).reshape(7, 3)
    np.savez(folder / "rows.npz", x=x, y=np.arange(7))
    return SourceSample("rows.npz", (Port("x", "tensor(float)", ("batch", 3)),), {"labels": "y"})


@source(
    "arrays",
    "an .npz file with an array for each input, or a folder of .npy or .npz files",
    _recognizes,
    sample=_sample,
    options=("labels",),
)
def open_arrays(request: SampleRequest) -> Start:
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


def _together(files: list[Path], request: SampleRequest) -> Iterator[Batch]:
    """All samples, from arrays that lie side by side."""
    with _opened(files) as arrays:
        yield from chunks(inputs_of(arrays, request), label_column(arrays, request), request, request.spec)


def _one_by_one(files: list[Path], request: SampleRequest) -> Iterator[Batch]:
    """Samples from one file after the other; the labels come with them, or from a file of their own."""
    own = request.path / f"{request.labels}.npy"
    with contextlib.ExitStack() as stack:
        labels = label_column(stack.enter_context(_opened([own])), request) if own in files else None
        for file in files:
            if file == own:
                continue
            with _opened([file]) as arrays:
                inputs = inputs_of(arrays, request)
                beside = labels or label_column(arrays, request)
                if not is_sample({name: rows.shape for name, rows in inputs.items()}, request):
                    yield from chunks(inputs, beside, request, str(file), labels_go_on=labels is not None)
                    continue
                whole = {name: rows.whole() for name, rows in inputs.items()}
                label = None if beside is None else one_label(beside.whole()) if labels is None else beside.take(1)
                yield replace(one_sample(whole, request), labels=label)


@contextlib.contextmanager
def _opened(files: list[Path]) -> Iterator[dict[str, ArrayRows]]:
    """The arrays in some files by name. Raises DataError where one is not numpy's or is damaged, also in the block."""
    with contextlib.ExitStack() as stack:
        try:
            found = {}
            for file in files:
                for name, stream, size in _streams(file, stack):
                    found[name] = ArrayRows(stream, f"{file}: array '{name}'", size)
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
