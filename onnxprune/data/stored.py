"""Samples that were read once and kept: in a folder, where other processes find them, or as long as needed."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnxprune.data.base import Batch, Data, Start, length_of

# Batches that are kept take this much in memory; what is more goes to a temporary folder.
MEMORY_BYTES = 256 << 20
_AXES = "axes"


def store(data: Data, folder: Path) -> tuple[str, int]:
    """Write the batches where other processes find them; the digest of what they hold, and how many samples that is."""
    total, samples = hashlib.sha256(), 0
    folder.mkdir()
    for index, batch in enumerate(data.batches()):
        for name, array in sorted(_write(batch, _file(folder, index)).items()):
            total.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        samples += length_of(batch)
    return total.hexdigest(), samples


def stored_samples(folder: Path) -> Data:
    """The samples that `store` wrote."""
    count = len(list(folder.glob("batch*.npz")))

    def batches() -> Iterator[Batch]:
        return (_read(_file(folder, index)) for index in range(count))

    return Data("stored samples", next(batches()).labels is not None, batches)


def kept(batches: Iterator[Batch]) -> Start:
    """Go through the batches of one pass and keep them: the first ones in memory, the others in a temporary folder.

    Returns what starts a pass over them; the folder goes with it.
    """
    held: list[Batch] = []
    folder: tempfile.TemporaryDirectory[str] | None = None
    size = written = 0
    for batch in batches:
        size += sum(array.nbytes for array in batch.feed.values())
        if size <= MEMORY_BYTES:
            held.append(batch)
            continue
        folder = folder or tempfile.TemporaryDirectory(prefix="onnxprune-", ignore_cleanup_errors=True)
        _write(batch, _file(Path(folder.name), written))
        written += 1

    def start() -> Iterator[Batch]:
        yield from held
        if folder is not None:
            yield from (_read(_file(Path(folder.name), index)) for index in range(written))

    return start


def _file(folder: Path, index: int) -> Path:
    return folder / f"batch{index}.npz"


def _write(batch: Batch, file: Path) -> dict[str, np.ndarray]:
    """Returns what was written, by name; texts are of fixed length there."""
    texts = {name: array.dtype.kind == "O" for name, array in batch.feed.items()}
    arrays = {f"input {name}": array.astype(str) if texts[name] else array for name, array in batch.feed.items()}
    arrays[_AXES] = np.array(json.dumps(dict(batch.axes)))
    if batch.labels is not None:
        arrays["labels"] = batch.labels
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return arrays


def _read(file: Path) -> Batch:
    with np.load(file, allow_pickle=False) as arrays:
        names = [name for name in arrays.files if name.startswith("input ")]
        feed = {name.removeprefix("input "): arrays[name] for name in names}
        feed = {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in feed.items()}
        return Batch(feed, arrays["labels"] if "labels" in arrays.files else None, json.loads(str(arrays[_AXES])))
