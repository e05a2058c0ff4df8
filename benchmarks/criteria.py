"""Accuracy after one cut, criterion by criterion, so that a user sees which one to take.

    python benchmarks/criteria.py                                  # all that is not measured yet, and the table
    python benchmarks/criteria.py --criteria l1,fisher --seeds 0

Every criterion removes the same number of units from every group: 30% of those inside blocks (heads, head entries,
neurons, channels and hidden units that a single node makes). What runs through a whole stage of residual blocks stays:
cutting it costs far more. Scores come from 128 images of the training set, with labels; accuracy is on test images, as
it is, which measures the choice alone, and after every layer was reconstructed on the same images, as `onnxprune
compress --data` does. A seed draws the images, and is that of the criterion.

Every finished measurement goes into a JSON lines file beside the table; what stands there is not measured again. Delete
it to start afresh.
"""

from __future__ import annotations

import functools
import json
import os
import runpy
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", ROOT.parent / "shared"))
CIFAR = SHARED / "data" / "cifar10"
MODELS = {
    "digits_resnet": ROOT / "models" / "digits_resnet.onnx",
    "digits_transformer": ROOT / "models" / "digits_transformer.onnx",
    "digits_lstm": ROOT / "models" / "digits_lstm.onnx",
    "resnet20": CIFAR / "resnet20.onnx",
}
RATIO, IMAGES, TEST_IMAGES, BATCH, SEEDS = 0.3, 128, 1000, 64, 3
# These take gradients at the labels where the data has some: they are measured without them, too.
USE_LABELS = ("taylor1", "taylor2", "snip", "grasp")
# Scores that a training leaves; there is none here.
OF_OTHERS = ("learned",)
KINDS = ("accuracy", "recovered")


@dataclass(frozen=True)
class Row:
    """One measurement: accuracy in percent of the cut model as it is and recovered, CPU seconds of scoring."""

    criterion: str
    labelled: bool
    model: str
    seed: int
    accuracy: float
    recovered: float
    seconds: float

    @property
    def name(self) -> str:
        """The name of the criterion in the table."""
        return self.criterion if self.labelled else f"{self.criterion}, labels drawn"

    @property
    def key(self) -> tuple[str, str, int]:
        return self.name, self.model, self.seed


def images_of(model: str, seed: int) -> tuple[Any, Any, Any, Any]:
    """Images and labels to score with, drawn by the seed, and to test on."""
    if model.startswith("digits"):
        arrays, test = (np.load(ROOT / "models" / f"digits_{name}.npz") for name in ("calibration", "test"))
        drawn = np.random.default_rng(seed).permutation(len(arrays["input"]))[:IMAGES]
        return arrays["input"][drawn], arrays["labels"][drawn], test["input"], test["labels"]
    load = runpy.run_path(str(CIFAR / "load.py"))  # its images are in random order
    return *load["tensors"]("train", IMAGES, seed * IMAGES), *load["tensors"]("test", TEST_IMAGES)


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
    """One model with the data of one seed."""

    def __init__(self, name: str, seed: int = 0) -> None:
        from onnxprune.pipeline import run as pipeline

        self.name, self.path, self.seed = name, MODELS[name], seed
        self.images, self.labels, self.test, self.test_labels = images_of(name, seed)
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

    def measure(self, criterion: str, *, labelled: bool) -> Row:
        """The accuracy that is left, as it is and recovered, and the CPU seconds that scoring took."""
        from onnxprune.analysis import inspect as opening
        from onnxprune.model.file import save
        from onnxprune.passes.remove_units import RemoveUnits
        from onnxprune.pipeline import run as pipeline
        from onnxprune.steps.plan import plan_from_masks
        from onnxprune.steps.prune.allocation.base import share, weakest
        from onnxprune.steps.prune.score import score_model
        from onnxprune.steps.recover.methods import recover_layers

        start = time.process_time()
        data = data_of(self.images, self.labels if labelled else None)
        scores = score_model(self.analysis, self.groups, criterion, data, seed=self.seed)
        seconds = time.process_time() - start
        removed = [(group, weakest(scores[group.id], share(RATIO, group.units))) for group in self.groups]
        plan = plan_from_masks(removed, {})
        model = pipeline.inspect(self.path)
        RemoveUnits(model, plan.keep(model))(model.model)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pruned.onnx"
            save(model.model, path)
            cut = self.accuracy(path)
            pruned = opening.analyze_model(model.model)
            recover_layers(self.analysis, pruned, plan.keep(self.analysis), "reconstruct", data, seed=self.seed)
            save(pruned.model, path)
            return Row(criterion, labelled, self.name, self.seed, cut, self.accuracy(path), seconds)


@functools.cache
def bench_of(model: str, seed: int) -> Bench:
    """One per process."""
    return Bench(model, seed)


def _head(whole: dict[str, float]) -> list[str]:
    """The lines above the table, its columns, and the models as they were."""
    dense = " | ".join(f"{each:.1f}" for each in whole.values())
    return [
        "# Criteria side by side",
        "",
        f"Accuracy in percent after {RATIO:.0%} of the units inside blocks have gone from every group at once: as cut, "
        "and behind the arrow after every layer was reconstructed. "
        f"Scores and recovery see {IMAGES} training images, scores with labels but where it says otherwise. Means over "
        "draws of images, each with its seed of the criterion; `spread` is the largest difference of a model's "
        f"recovered accuracy between two of them. ResNet-20 is tested on {TEST_IMAGES} images of its test set, "
        "the digits models on all 450: from the test images alone a mean of four models is uncertain by about a point.",
        "",
        "Written by `python benchmarks/criteria.py`. The seconds are CPU seconds of scoring ResNet-20.",
        "",
        f"| criterion | needs | {' | '.join(whole)} | mean as cut | mean recovered | spread | seeds | s |",
        f"|---|---|{'---|' * len(whole)}---|---|---|---|---|",
        f"| (not pruned) | | {dense} | {mean(whole.values()):.1f} | | | | |",
    ]


def to_markdown(rows: list[Row]) -> str:
    """The table: means over seeds, sorted by what is left after recovery."""
    from onnxprune.steps.prune.criteria.base import criteria

    whole = {name: bench_of(name, 0).accuracy(path) for name, path in MODELS.items()}
    lines = _head(whole)
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        found.setdefault(row.name, {}).setdefault(row.model, []).append(row)
    complete = {name: each for name, each in found.items() if len(each) == len(whole)}
    means = {
        name: tuple(mean(mean(getattr(row, kind) for row in each[model]) for model in whole) for kind in KINDS)
        for name, each in complete.items()
    }
    for name, each in sorted(complete.items(), key=lambda pair: -means[pair[0]][1]):
        cells = [
            " → ".join(f"{mean(getattr(row, kind) for row in each[model]):.1f}" for kind in KINDS) for model in whole
        ]
        spread = max(
            max(values) - min(values) for values in ([row.recovered for row in some] for some in each.values())
        )
        seeds = min(len(some) for some in each.values())
        needs = ", ".join(criteria[each["resnet20"][0].criterion].needs) or "nothing"
        seconds = mean(row.seconds for row in each["resnet20"])
        numbers = f"{means[name][0]:.1f} | {means[name][1]:.1f} | {spread:.1f} | {seeds} | {seconds:.1f}"
        lines.append(f"| {name} | {needs} | {' | '.join(cells)} | {numbers} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--criteria", "wanted", default="", help="names, with commas (default: all)")
@click.option("--seeds", default=SEEDS, help="how many")
@click.option("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results" / "criteria.md", show_default=True)
def main(wanted: str, seeds: int, output: Path) -> None:
    """Measure what is missing and write the table."""
    from onnxprune.steps.prune.criteria.base import criteria

    cache = output.with_suffix(".jsonl")
    lines = cache.read_text(encoding="utf-8").splitlines() if cache.exists() else []
    rows = {row.key: row for row in (Row(**json.loads(line)) for line in lines)}
    names = wanted.split(",") if wanted else [name for name in criteria.names() if name not in OF_OTHERS]
    tasks = [(name, labelled) for name in names for labelled in ((True, False) if name in USE_LABELS else (True,))]
    for seed in range(seeds):
        for model in MODELS:
            for name, labelled in tasks:
                if Row(name, labelled, model, seed, 0, 0, 0).key in rows:
                    continue
                row = bench_of(model, seed).measure(name, labelled=labelled)
                rows[row.key] = row
                with cache.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
                print(
                    f"{row.name} {model} {seed}: {row.accuracy:.1f} -> {row.recovered:.1f}", file=sys.stderr, flush=True
                )
    output.write_text(to_markdown(list(rows.values())), encoding="utf-8")


if __name__ == "__main__":
    main()
