"""Accuracy after one cut, criterion by criterion, so that a user sees which one to take.

    python benchmarks/criteria.py --jobs 2 -o benchmarks/results/criteria.md      # three minutes of one core
    python benchmarks/criteria.py --models digits_resnet --criteria l1,fisher

Every criterion removes the same number of units from every group: 30% of those inside blocks (heads, head entries,
neurons, channels and hidden units that a single node makes). What runs through a whole stage of residual blocks stays:
cutting it costs far more. Scores come from 500 images of the training set, with labels; accuracy is on test images.
As it is, which measures the choice alone; with --recover also after every layer was reconstructed on the same images,
as `onnxprune compress --data` does.
"""

from __future__ import annotations

import functools
import importlib.util
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, TextIO

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", ROOT.parent / "shared"))
CIFAR = SHARED / "data" / "cifar10"
MODELS = {
    "resnet20": CIFAR / "resnet20.onnx",
    "digits_resnet": ROOT / "models" / "digits_resnet.onnx",
    "digits_transformer": ROOT / "models" / "digits_transformer.onnx",
    "digits_lstm": ROOT / "models" / "digits_lstm.onnx",
}
RATIO, IMAGES, TEST_IMAGES, BATCH, RANDOM_SEEDS = 0.3, 500, 2000, 50, 5
# These take gradients at the labels where the data has some: they are measured without them, too.
USE_LABELS = ("taylor1", "taylor2", "snip", "grasp")


@dataclass
class Row:
    """One criterion, by model: accuracy in percent of the cut model as it is and recovered, seconds of scoring."""

    criterion: str
    needs: str
    accuracy: dict[str, float] = field(default_factory=dict)
    recovered: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def images_of(model: str) -> tuple[Any, Any, Any, Any]:
    """Images and labels to score with and to test on."""
    if model.startswith("digits"):
        arrays, test = (np.load(ROOT / "models" / f"digits_{name}.npz") for name in ("calibration", "test"))
        return arrays["input"][:IMAGES], arrays["labels"][:IMAGES], test["input"], test["labels"]
    spec = importlib.util.spec_from_file_location("load", CIFAR / "load.py")
    assert spec is not None
    assert spec.loader is not None
    load = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(load)
    return *load.tensors("train", IMAGES), *load.tensors("test", TEST_IMAGES)


def data_of(images: Any, labels: Any | None) -> Any:
    """Batches of BATCH images."""
    from onnxprune.data.base import Batch, Data

    def start() -> Any:
        for at in range(0, len(images), BATCH):
            here = slice(at, at + BATCH)
            yield Batch({"input": images[here]}, None if labels is None else labels[here].astype(np.int64))

    return Data("images", labels is not None, start)


def inner_groups(analysis: Any) -> list[Any]:
    """Groups that a single weight makes, or that are the state of a recurrent layer."""
    from onnxprune.analysis.producers import producing

    made = producing(analysis)
    matrices = {
        name
        for name, value in analysis.model.graph.initializers.items()
        if sum(n > 1 for n in value.const_value.shape.numpy()) > 1
    }

    def makers(group: Any) -> int:
        return sum((each.tensor, each.axis) in made and each.tensor in matrices for each in group.occurrences)

    return [group for group in analysis.groups if group.kind == "recurrent" or makers(group) == 1]


class Bench:
    """One model with its data."""

    def __init__(self, name: str) -> None:
        from onnxprune.pipeline import run as pipeline

        self.name, self.path = name, MODELS[name]
        self.images, self.labels, self.test, self.test_labels = images_of(name)
        self.analysis = pipeline.inspect(self.path)
        self.groups = inner_groups(self.analysis)

    def accuracy(self, path: Path) -> float:
        """In percent."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        parts = [self.test[at : at + 250] for at in range(0, len(self.test), 250)]
        found = np.concatenate([session.run(None, {"input": part})[0].argmax(1) for part in parts])
        return 100 * float((found == self.test_labels).mean())

    def measure(self, criterion: str, *, labelled: bool, seed: int, recovered: bool) -> tuple[float, float, float]:
        """Accuracy in percent of what is left, as it is and recovered (or again), and the seconds that scoring took."""
        from onnxprune.analysis import inspect as opening
        from onnxprune.model.file import save
        from onnxprune.pipeline import run as pipeline
        from onnxprune.steps.plan import plan_from_masks
        from onnxprune.steps.prune.allocation.base import share, weakest
        from onnxprune.steps.prune.score import score_model
        from onnxprune.steps.recover.methods import recover_layers

        start = time.perf_counter()
        data = data_of(self.images, self.labels if labelled else None)
        scores = score_model(self.analysis, self.groups, criterion, data, seed=seed)
        seconds = time.perf_counter() - start
        lost = [(group, weakest(scores[group.id], share(RATIO, group.units))) for group in self.groups]
        plan = plan_from_masks(lost, {})
        result = pipeline.apply(self.path, plan)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pruned.onnx"
            save(result.model, path)
            cut = self.accuracy(path)
            if not recovered:
                return cut, cut, seconds
            pruned = opening.analyze_model(result.model)
            recover_layers(self.analysis, pruned, plan.keep(self.analysis), "reconstruct", data)
            save(pruned.model, path)
            return cut, self.accuracy(path), seconds


def to_markdown(rows: list[Row], whole: dict[str, float], *, recovered: bool) -> str:
    names = list(whole)
    heads = " | ".join(names)
    lines = [
        "# Criteria side by side",
        "",
        f"Accuracy in percent after {RATIO:.0%} of the units inside blocks have gone from every group at once, "
        + ("and behind the arrow after every layer was reconstructed. " if recovered else "without any recovery. ")
        + f"Scores come from {IMAGES} training images, with labels; `random` is the mean of {RANDOM_SEEDS} seeds. "
        + f"ResNet-20 is tested on the first {TEST_IMAGES} images of its test set, the digits models on all 450: "
        + "differences of two points are chance.",
        "",
        f"Written by `python benchmarks/criteria.py --jobs 2{' --recover' if recovered else ''} "
        "-o benchmarks/results/criteria.md`. The seconds are those of scoring ResNet-20 on one core of a machine that "
        "others used too.",
        "",
        f"| criterion | needs | {heads} | mean | s |",
        f"|---|---|{'---|' * len(names)}---|---|",
        f"| (not pruned) | | {' | '.join(f'{whole[name]:.1f}' for name in names)} | {mean(whole.values()):.1f} | |",
    ]
    for row in sorted(rows, key=lambda row: -mean(row.recovered.values())):
        cells = [shown(row.accuracy[name], row.recovered[name]) for name in names]
        cells.append(shown(mean(row.accuracy.values()), mean(row.recovered.values())))
        seconds = f"{row.seconds['resnet20']:.1f}" if "resnet20" in row.seconds else ""
        lines.append(f"| {row.criterion} | {row.needs} | {' | '.join(cells)} | {seconds} |")
    return "\n".join(lines) + "\n"


def shown(cut: float, recovered: float) -> str:
    return f"{cut:.1f}" if cut == recovered else f"{cut:.1f} → {recovered:.1f}"


@functools.cache
def bench_of(model: str) -> Bench:
    """One per process."""
    return Bench(model)


def measured(task: tuple[str, bool, Sequence[str], bool]) -> Row:
    """One row of the table."""
    from onnxprune.steps.prune.criteria.base import criteria

    criterion, labelled, models, recovered = task
    row = Row(
        criterion if labelled else f"{criterion}, labels drawn", ", ".join(criteria[criterion].needs) or "nothing"
    )
    for model in models:
        seeds = range(RANDOM_SEEDS if criterion == "random" else 1)
        found = [
            bench_of(model).measure(criterion, labelled=labelled, seed=seed, recovered=recovered) for seed in seeds
        ]
        row.accuracy[model], row.recovered[model], row.seconds[model] = map(mean, zip(*found, strict=True))
    return row


@click.command()
@click.option("--models", default=",".join(MODELS), help="names, with commas")
@click.option("--criteria", "wanted", default="", help="names, with commas (default: all)")
@click.option("--recover", "recovered", is_flag=True, help="measure after reconstruction, too: four times as long")
@click.option("--jobs", default=1, help="processes")
@click.option("-o", "--output", type=click.File("w"), default="-", help="where to write the table; -: here")
def main(models: str, wanted: str, recovered: bool, jobs: int, output: TextIO) -> None:
    """Measure every criterion on every model and write the table."""
    from onnxprune.steps.prune.criteria.base import criteria

    names = models.split(",")
    whole = {name: bench_of(name).accuracy(MODELS[name]) for name in names}
    tasks = [
        (criterion, labelled, names, recovered)
        for criterion in (wanted.split(",") if wanted else criteria.names())
        for labelled in ((True, False) if criterion in USE_LABELS else (True,))
    ]
    rows = []
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for row in pool.map(measured, tasks):
            rows.append(row)
            cells = (f"{name} {shown(row.accuracy[name], row.recovered[name])}" for name in names)
            print(row.criterion, *cells, sep="  ", file=sys.stderr)
    text = to_markdown(rows, whole, recovered=recovered)
    output.write(text)


if __name__ == "__main__":
    main()
