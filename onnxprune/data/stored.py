"""Samples written to a folder, where other processes find them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnxprune.data.base import Batch, Data, length_of


def store(data: Data, folder: Path) -> tuple[str, int]:
    """Write the batches where other processes find them; the digest of what they hold, and how many samples that is."""
    total, samples = hashlib.sha256(), 0
    folder.mkdir()
    for index, batch in enumerate(data.batches()):
        texts = {name: array.dtype.kind == "O" for name, array in batch.feed.items()}
        arrays = {f"input {name}": array.astype(str) if texts[name] else array for name, array in batch.feed.items()}
        if batch.labels is not None:
            arrays["labels"] = batch.labels
        for name, array in sorted(arrays.items()):
            total.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        np.savez(folder / f"batch{index}.npz", **arrays)  # type: ignore[arg-type]
        samples += length_of(batch)
    return total.hexdigest(), samples


def stored(folder: Path) -> Data:
    """The samples that `store` wrote."""
    files = sorted(folder.glob("batch*.npz"), key=lambda file: int(file.stem.removeprefix("batch")))

    def batches() -> Iterator[Batch]:
        for file in files:
            with np.load(file, allow_pickle=False) as arrays:
                feed = {name.removeprefix("input "): arrays[name] for name in arrays.files if name != "labels"}
                yield Batch(feed, arrays["labels"] if "labels" in arrays.files else None)

    return Data("stored samples", next(batches()).labels is not None, batches)
