"""One-shot sparsity without training: accuracy on CIFAR-10 of ResNet-20 and ResNet-56, fitted to 500 unlabeled images.

python benchmarks/sparsify.py                              # all rows; with --write into benchmarks/results
python benchmarks/sparsify.py resnet20 --test 2000         # one model, on so many test images
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from row_tables import arguments, tabulate, zipped

import onnxprune as op

ROOT = Path(__file__).resolve().parents[1]
CIFAR = Path(os.environ.get("ONNXPRUNE_SHARED") or ROOT.parent / "shared") / "data" / "cifar10"
RESULTS = ROOT / "benchmarks" / "results" / "sparsify.md"
ROWS: dict[str, dict[str, Any]] = {
    "50%, magnitude, nothing fitted": {"sparsity": 0.5, "weight_criterion": "magnitude", "update": "none"},
    "50%, magnitude, biases": {"sparsity": 0.5, "weight_criterion": "magnitude", "update": "biases"},
    "50%, magnitude, weights": {"sparsity": 0.5, "weight_criterion": "magnitude", "update": "weights"},
    "50%, wanda, biases": {"sparsity": 0.5, "weight_criterion": "wanda"},
    "50%, obs": {"sparsity": 0.5},
    "50%, obs, uniform": {"sparsity": 0.5, "sparsity_allocation": "uniform"},
    "80%, obs": {"sparsity": 0.8},
    "2:4, magnitude, nothing fitted": {"pattern": "2:4", "weight_criterion": "magnitude", "update": "none"},
    "2:4, obs": {"pattern": "2:4"},
    "4:8, obs": {"pattern": "4:8"},
}


def accuracy(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 in ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    found = [session.run(None, {name: images[at : at + 100]})[0] for at in range(0, len(images), 100)]
    return float((np.concatenate(found).argmax(1) == labels).mean())


def measure(model: str, test: int, wanted: list[str]) -> Iterator[str]:
    """A row of the table for each way."""
    sys.path.insert(0, str(CIFAR))
    from load import tensors  # type: ignore[import-not-found]

    (images, _), (tested, labels) = tensors("train", n=500), tensors("test", n=test)
    dense = CIFAR / f"{model}.onnx"
    before = accuracy(dense, tested, labels)
    yield f"| {model} | dense | 0.0% | {before:.2%} | | {zipped(dense):,} | |"
    with tempfile.TemporaryDirectory() as folder:
        for name, options in ROWS.items():
            if wanted and name not in wanted:
                continue
            start, target = time.process_time(), Path(folder) / "sparse.onnx"
            report = op.Recipe([op.Sparsify(**options), op.Clean()])(dense, data=images, allow_damage=True).save(target)
            seconds = time.process_time() - start
            layers = report.sparsity["layers"] if report.sparsity else []
            zeros = sum(each["zeros"] for each in layers) / sum(each["weights"] for each in layers)
            top1 = accuracy(target, tested, labels)
            points = f"{100 * (top1 - before):+.2f}"
            yield f"| {model} | {name} | {zeros:.1%} | {top1:.2%} | {points} | {zipped(target):,} | {seconds:.0f} s |"


def main() -> None:
    """Print the table, and write it where that is asked for."""
    given = arguments(__doc__ or "", ("resnet20", "resnet56"), RESULTS)
    head = [
        f"Written by `{' '.join(['python benchmarks/sparsify.py', *sys.argv[1:]])}`: {given.test:,} test images,",
        "fitted to 400 of 500 unlabeled training images (the rest measure what the report says), no training.",
        "",
        "| model | how | zeros | top-1 | points | zipped | CPU |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    tabulate(given, measure, "One-shot sparsity", head, RESULTS)


if __name__ == "__main__":
    main()
