"""Arrays that are computed once for all trials, in a folder that several processes read: arrays, mapped into memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.data.base import Batch, Data
from onnxprune.steps.prune.score import UnitScores

Array = npt.NDArray[Any]
_INDEX = "index.json"


class Shared:
    """Lists of arrays by key, each in a folder of its own that appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def arrays(self, key: str, make: Callable[[], tuple[Sequence[Array], Any]]) -> tuple[list[Array], Any]:
        """The arrays of a key, read-only and mapped into memory, and the note beside them.

        Args:
            key: what they depend on; two keys are two folders.
            make: computes the arrays, and a note that JSON can hold, where no process has done so yet.
        """
        place = self.folder / hashlib.sha256(key.encode()).hexdigest()[:24]
        if not (place / _INDEX).exists():
            self._write(place, *make())
        index = json.loads((place / _INDEX).read_text())
        # Not a memmap: the view of one is an ordinary array that still lies in the file.
        found = [np.asarray(np.load(place / f"{at}.npy", mmap_mode="r")) for at in range(index["count"])]
        return found, index["note"]

    def _write(self, place: Path, arrays: Sequence[Array], note: Any) -> None:
        made = Path(tempfile.mkdtemp(prefix=".making-", dir=self.folder))
        try:
            for at, array in enumerate(arrays):
                np.save(made / f"{at}.npy", array, allow_pickle=False)
            (made / _INDEX).write_text(json.dumps({"count": len(arrays), "note": note}))
            if not place.exists():
                os.rename(made, place)  # another process may have been faster
        except OSError:
            if not place.exists():
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def data(self, data: Data) -> tuple[Data, str]:
        """The same samples, read from the folder; and the digest of what they hold, by which they are found there."""
        packed, digest, batches = _packed(data)
        arrays, note = self.arrays(f"samples {digest}", lambda: (packed, batches))
        return replace(data, start=lambda: _batches(arrays, note), part=None), digest


def _packed(data: Data) -> tuple[list[Array], str, list[dict[str, Any]]]:
    """Every array of every batch, their digest, and what they are; texts are of fixed length there."""
    arrays: list[Array] = []
    batches: list[dict[str, Any]] = []
    total = hashlib.sha256()
    for batch in data.batches():
        named = {**batch.feed, **({} if batch.labels is None else {"": batch.labels})}
        texts = [name for name, array in named.items() if array.dtype.kind == "O"]
        batches.append({"names": list(named), "texts": texts, "axes": dict(batch.axes)})
        for name, array in named.items():
            stored = array.astype(str) if name in texts else np.ascontiguousarray(array)
            total.update(f"{name} {stored.dtype} {stored.shape}".encode() + stored.tobytes())
            arrays.append(stored)
    return arrays, total.hexdigest(), batches


def _batches(arrays: Sequence[Array], notes: Sequence[Any]) -> Iterator[Batch]:
    at = iter(arrays)
    for note in notes:
        named = {name: next(at) for name in note["names"]}
        named = {name: array.astype(object) if name in note["texts"] else array for name, array in named.items()}
        labels = named.pop("", None)
        yield Batch(named, labels, note["axes"])


class SharedScores:
    """Scores of the original's units in a shared folder.

    Args:
        shared: the folder.
        base: what all of them depend on: the model, the samples, the seed.
    """

    def __init__(self, shared: Shared, base: str) -> None:
        self._shared = shared
        self._base = base
        self._held: dict[str, UnitScores] = {}

    def __call__(self, key: str, compute: Callable[[], UnitScores]) -> UnitScores:
        """The scores of a key, computed where no process has done so yet."""
        if key not in self._held:

            def make() -> tuple[list[Array], Any]:
                made = compute()
                return list(made.scores.values()), {"names": list(made.scores), "unseen": list(made.unseen)}

            arrays, note = self._shared.arrays(f"scores {self._base} {key}", make)
            self._held[key] = UnitScores(dict(zip(note["names"], arrays, strict=True)), tuple(note["unseen"]))
        return self._held[key]
