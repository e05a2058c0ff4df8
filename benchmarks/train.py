"""The accuracy that a training wins back, on trained networks: with and without labels, from all images and from 500.

    python benchmarks/train.py                                   # all that is not measured yet, and the table
    python benchmarks/train.py --only 'resnet20 *' --seeds 0     # part of it

One call of `compress` prunes, recovers and trains. Criteria and recovery see 500 training images drawn by the seed, or
all of the digits but those that are kept apart to evaluate on, which nothing is fitted to.
CIFAR-10: accuracy on all 10,000 test images in ONNX Runtime; augmentation is crop and flip. The same cut of
torch-pruning trained in plain torch for as many steps is in it too (`train_peers.py`). Seconds are those of the
processor, one thread, for the whole call. Every finished measurement is a line of `train.jsonl` beside the table and
not measured again.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
import numpy as np
from recovery_common import BATCH, CIFAR, IMAGES, ROOT, Cache, Row, accuracy, data_of, loader, train_pixels
from recovery_common import calibration as calibration_images
from train_table import to_markdown

SEEDS = (0, 1, 2)
AUGMENT = ("crop", "flip")


@dataclass(frozen=True)
class Task:
    """One kind of training.

    Attributes:
        model, ratio: what is cut, and to how many times fewer MACs.
        method: its name in the table.
        images: how many are trained on.
        labelled: with their labels.
        options: of the training.
    """

    model: str
    ratio: float
    method: str
    images: int = 50_000
    labelled: bool = False
    options: dict[str, Any] = field(default_factory=dict)


CIFAR_OPTIONS: dict[str, Any] = {"augment": AUGMENT, "evaluations": 2, "holdout": 0.02}
FEW: dict[str, Any] = {"augment": AUGMENT, "holdout": 0.1, "evaluations": 5, "train": 600.0, "minutes": 14.0}
DIGITS: dict[str, Any] = {"batch_size": 64, "train": 60.0}
TASKS = (
    Task("resnet20", 2.11, "distilled, 1 epoch", options=CIFAR_OPTIONS),
    Task("resnet20", 2.11, "distilled and labels, 1 epoch", labelled=True, options=CIFAR_OPTIONS),
    Task("resnet20", 2.11, "distilled, 2 epochs", options={**CIFAR_OPTIONS, "train": 2.0}),
    Task(
        "resnet20",
        2.11,
        "distilled, without normalizations, 1 epoch",
        options={**CIFAR_OPTIONS, "normalization": "none"},
    ),
    Task("resnet20", 2.11, "distilled, 500 images, 15 minutes", images=IMAGES, options=FEW),
    Task("resnet56", 2.57, "distilled, 1 epoch", options=CIFAR_OPTIONS),
    Task("digits_transformer", 2.0, "distilled", 512, options=DIGITS),
    Task("digits_transformer", 2.0, "distilled and labels", 512, labelled=True, options=DIGITS),
    Task("digits_lstm", 3.0, "distilled", 512, options=DIGITS),
    Task("digits_resnet", 3.0, "distilled", 512, options=DIGITS),
)


def pruned(task: Task, seed: int, **training: Any) -> Any:
    """The result of `compress`: pruned and recovered, and trained where something is said of that."""
    import onnxprune as op

    images = task.model.startswith("resnet")
    if not images:
        data, calibration = digits(seed, labelled=task.labelled), None
    elif training:
        data, calibration = cifar(task, seed), data_of(calibration_images(seed, IMAGES))
    else:
        data, calibration = data_of(calibration_images(seed, IMAGES)), None
    return op.compress(
        original(task.model),
        data=data,
        calibration=calibration,
        target=(f"macs={1 / task.ratio}",),
        only=["heads", "neurons"] if task.model == "digits_transformer" else [],
        seed=seed,
        **training,
    )


def original(model: str) -> Path:
    return CIFAR / f"{model}.onnx" if model.startswith("resnet") else ROOT / "models" / f"{model}.onnx"


def digits(seed: int, *, labelled: bool = False) -> Any:
    """The calibration images of the digits models in an order of the seed."""
    from onnxprune.data.base import Batch, Data

    with np.load(ROOT / "models" / "digits_calibration.npz") as arrays:
        order = np.random.default_rng(seed).permutation(len(arrays["input"]))
        images, labels = arrays["input"][order], arrays["labels"][order]
    parts = [
        Batch({"input": images[at : at + BATCH]}, labels[at : at + BATCH] if labelled else None)
        for at in range(0, len(images), BATCH)
    ]
    return Data("digits", labelled, lambda: iter(parts))


def cifar(task: Task, seed: int) -> Any:
    """Training images in the order of the data set, or the 500 of the seed; decoded once, normalized batch by batch."""
    from onnxprune.data.base import Batch, Data

    pixels, labels = train_pixels(), loader()["images"]("train", 1)[1]
    if task.images < len(pixels):
        return data_of(calibration_images(seed, task.images))
    if task.labelled:
        labels = np.load(CIFAR / "train.npz")["labels"].astype(np.int64)
    normalise: Callable[[Any], Any] = loader()["normalise"]

    def batches() -> Iterator[Any]:
        for at in range(0, len(pixels), IMAGES):
            own = labels[at : at + IMAGES] if task.labelled else None
            yield Batch({"input": normalise(pixels[at : at + IMAGES])}, own)

    return Data("CIFAR-10", task.labelled, batches)


def measure(task: Task, seed: int, folder: Path, cache: Cache) -> None:
    """Prune, train, and note the accuracy before and after."""
    target = folder / "model.onnx"
    if not cache.has(task.model, "recovered", task.ratio, seed, IMAGES):
        report = pruned(task, seed).save(target)
        found, reached = accuracy_of(task.model, target), report.before.macs / report.after.macs
        cache.add(Row(task.model, "recovered", task.ratio, seed, IMAGES, found, reached))
    wall, cpu = time.perf_counter(), time.process_time()
    result = pruned(task, seed, **{"train": 1.0, **task.options})
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    report = result.save(target)
    found, reached = accuracy_of(task.model, target), report.before.macs / report.after.macs
    (training,) = report.trainings
    note = f"{training['updates']} updates, best at {training['best']['update']}; pruning and recovery included"
    cache.add(Row(task.model, task.method, task.ratio, seed, task.images, found, reached, wall, cpu, note))


def is_wanted(name: str, patterns: Sequence[str]) -> bool:
    """Does a pattern fit, or are there none?"""
    return not patterns or any(fnmatch(name, pattern) for pattern in patterns)


def accuracy_of(model: str, path: Path) -> float:
    """Percent of the test images."""
    if model.startswith("resnet"):
        return accuracy(path)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with np.load(ROOT / "models" / "digits_test.npz") as arrays:
        return float((session.run(None, {"input": arrays["input"]})[0].argmax(1) == arrays["labels"]).mean() * 100)


@click.command()
@click.option("--only", multiple=True, help="shell patterns of model and method, like 'digits_* distilled'")
@click.option("--seeds", default=",".join(map(str, SEEDS)), show_default=True)
@click.option("--peers/--no-peers", default=True, help="torch-pruning too")
@click.option("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results" / "train.md", show_default=True)
def main(only: tuple[str, ...], seeds: str, peers: bool, output: Path) -> None:
    """Measure what is missing and write the table."""
    import torch

    torch.set_num_threads(1)
    cache = Cache(output.with_suffix(".jsonl"))
    with tempfile.TemporaryDirectory() as place:
        for task in TASKS:
            for seed in map(int, seeds.split(",")):
                if not is_wanted(f"{task.model} {task.method}", only):
                    continue
                if not cache.has(task.model, "dense", 1.0, 0, 0):
                    found = accuracy_of(task.model, original(task.model))
                    cache.add(Row(task.model, "dense", 1.0, 0, 0, found, 1.0))
                if not cache.has(task.model, task.method, task.ratio, seed, task.images):
                    measure(task, seed, Path(place), cache)
        if peers:
            from train_peers import measure_peers

            measure_peers([int(seed) for seed in seeds.split(",")], only, cache)
    output.write_text(to_markdown(list(Cache(cache.path).rows.values())), encoding="utf-8")


if __name__ == "__main__":
    main()
