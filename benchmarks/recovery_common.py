"""Shared by the parts of `recovery.py`: rows and their cache, images, accuracy."""

from __future__ import annotations

import json
import os
import runpy
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", ROOT.parent / "shared"))
CIFAR = SHARED / "data" / "cifar10"
# Of a calibration set, and of a batch of it.
IMAGES, BATCH = 500, 50


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        model, method, ratio, seed: what was measured; the ratio is what was asked for.
        images: how many the calibration set has; 0 where none is used.
        value: accuracy in percent, or SNR in dB for transformers.
        reached: how many times fewer MACs the cut model has.
        wall, cpu: seconds of the whole run, where that was measured.
        note: what is odd about it.
    """

    model: str
    method: str
    ratio: float
    seed: int
    images: int
    value: float
    reached: float
    wall: float = 0.0
    cpu: float = 0.0
    note: str = ""

    @property
    def key(self) -> tuple[str, str, float, int, int]:
        return self.model, self.method, self.ratio, self.seed, self.images


class Cache:
    """Rows in a JSON lines file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.rows = {row.key: row for row in (Row(**json.loads(line)) for line in lines)}

    def has(self, *key: Any) -> bool:
        return key in self.rows

    def add(self, row: Row) -> None:
        self.rows[row.key] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        shown = f"{row.model:12} {row.method:34} {row.ratio:5} seed {row.seed} {row.images}: {row.value:.2f}"
        print(
            f"{shown} at {row.reached:.3f} {row.wall:.0f} s, cpu {row.cpu:.0f} s {row.note}",
            file=sys.stderr,
            flush=True,
        )


# Data


@cache
def loader() -> dict[str, Any]:
    return runpy.run_path(str(CIFAR / "load.py"))


@cache
def train_pixels() -> Any:
    return loader()["images"]("train")[0]


@cache
def test_set() -> tuple[Any, Any]:
    images, labels = loader()["tensors"]("test")
    return images, labels


def calibration(seed: int, count: int) -> Any:
    """Images of the training set, float32 [count, 3, 32, 32]."""
    drawn = np.random.default_rng(seed).choice(len(train_pixels()), IMAGES, replace=False)[:count]
    return loader()["normalise"](train_pixels()[drawn])


def data_of(images: Any, name: str = "input") -> Any:
    from onnxprune.data.base import Batch, Data

    parts = [Batch({name: images[at : at + BATCH]}) for at in range(0, len(images), BATCH)]
    return Data("images", False, lambda: iter(parts))


def accuracy(path: Path) -> float:
    """Percent of the test images."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    images, labels = test_set()
    found = [session.run(None, {"input": images[at : at + 250]})[0].argmax(1) for at in range(0, len(images), 250)]
    return float(np.mean(np.concatenate(found) == labels) * 100)
