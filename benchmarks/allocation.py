"""Where to cut: accuracy of every allocation at equal MACs, beside torch-pruning's modes; latency reached and asked.

    python benchmarks/allocation.py -o benchmarks/results/allocation.md          # all that is not measured yet
    python benchmarks/allocation.py --models resnet20 --speedups 2.11 --scopes auto,uniform

Units are scored by L1, so that only the allocation differs; every cut is recovered by layer-wise least squares on a few
unlabeled training images, which the last column of a row leaves out. Finished rows go into a JSON lines file beside the
table and are not measured again. torch-pruning (optional, `pip install --no-deps torch-pruning`) cuts by L1 too, in its
global and isomorphic modes, with BatchNorm re-estimated on the same images: it has no other recovery without training.
Latency is that of one sample on one thread of the CPU, measured beside the original once more after the search.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from row_tables import put

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", ROOT.parent / "shared"))
CIFAR = SHARED / "data" / "cifar10"
SCOPES = ("auto", "uniform", "global", "isomorphic", "greedy", "knapsack", "sensitivity")
# Where uniform loses: the same MACs taken inside the residual blocks only, and from the streams between them only.
PLACES = ("uniform inside", "uniform streams")
PEERS = ("torch-pruning global", "torch-pruning isomorphic")
LATENCIES = (0.8, 0.6)
BATCH = 64


@cache
def loader() -> dict[str, Any]:
    """The functions of load.py."""
    return runpy.run_path(str(CIFAR / "load.py"))


@cache
def arrays(model: str, images: int, tests: int) -> tuple[Path, Any, Any, Any]:
    """The file, calibration images, test images and their labels."""
    if model.startswith("digits"):
        calibration, test = (np.load(ROOT / "models" / f"digits_{part}.npz") for part in ("calibration", "test"))
        return ROOT / "models" / f"{model}.onnx", calibration["input"][:images], test["input"], test["labels"]
    test, labels = loader()["tensors"]("test", tests)
    return CIFAR / f"{model}.onnx", loader()["tensors"]("train", images)[0], test, labels


def data_of(images: Any, labels: Any = None) -> Any:
    """Batches of the one input."""
    from onnxprune.data.base import Batch, Data

    starts = range(0, len(images), BATCH)
    parts = [Batch({"input": images[i : i + BATCH]}, None if labels is None else labels[i : i + BATCH]) for i in starts]
    return Data("images", labels is not None, lambda: iter(parts))


def accuracy(path: Path, images: Any, labels: Any) -> float:
    """Percent."""
    from onnxprune.evaluation.metrics import evaluate, metric

    return 100 * evaluate(path, data_of(images, labels), metric("accuracy", True))


def streams(path: Path) -> list[str]:
    """The groups of a ResNet that residual blocks add to: inside a block, units occur in two weights and a bias."""
    from onnxprune.pipeline import run as pipeline

    groups = pipeline.inspect(path).groups
    return [group.id for group in groups if len({occurrence.tensor for occurrence in group.occurrences}) > 3]


def ours(model: str, scope: str, speedup: float, images: int, tests: int) -> dict[str, float]:
    """Accuracy as cut and after recovery, and what the MACs came to."""
    from onnxprune.pipeline import run as pipeline

    path, calibration, test, labels = arrays(model, images, tests)
    row, (name, _, where) = {}, scope.partition(" ")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "cut.onnx"
        for recover in ("none", "reconstruct"):
            result = pipeline.compress(
                path,
                "l1",
                scope=name,
                only=streams(path) if where == "streams" else (),
                skip=streams(path) if where == "inside" else (),
                target=[f"macs={1 / speedup}"],
                data=data_of(calibration),
                recover=recover,
                cache=Path(tempfile.gettempdir()) / "onnxprune-benchmark",
            )
            result.save(target)
            row[recover] = accuracy(target, test, labels)
        row["reached"] = result.report.before.macs / result.report.after.macs
    return row


def torch_pruning(model: str, mode: str, speedup: float, images: int, tests: int) -> dict[str, float]:
    """The same for torch-pruning; recovered is BatchNorm re-estimated."""
    import recovery_peers as peers
    import torch
    import torch_pruning as tp

    torch.set_num_threads(1)
    path, calibration, test, labels = arrays(model, images, tests)
    network = peers.CifarResNet(path, calibration)

    def cut(share: float) -> tuple[Any, int]:
        import copy

        pruned = copy.deepcopy(network)
        pruner = tp.pruner.MagnitudePruner(
            pruned,
            torch.zeros(1, 3, 32, 32),
            importance=tp.importance.MagnitudeImportance(p=1),
            global_pruning=True,
            isomorphic=mode == "isomorphic",
            pruning_ratio=share,
            ignored_layers=[pruned.head],
        )
        pruner.step()
        return pruned, pruned.macs()

    found = peers.smallest_cut(cut, network.macs() / speedup)
    row = {"none": peers.accuracy(found, test, labels), "reached": network.macs() / found.macs()}
    peers.re_estimate(found, calibration)
    return {**row, "reconstruct": peers.accuracy(found, test, labels)}


def latency(model: str, scope: str, share: float) -> dict[str, float]:
    """The time of a cut asked for by latency, measured once more, and the MACs that are left."""
    from onnxprune.errors import TargetError
    from onnxprune.pipeline import run as pipeline
    from onnxprune.steps.prune.candidates import Trials

    path = arrays(model, 1, 1)[0]
    with tempfile.TemporaryDirectory() as folder, Trials(path) as trials:
        target = Path(folder) / "cut.onnx"
        try:
            result = pipeline.compress(path, criterion="l1", scope=scope, target=[f"latency={share}"])
        except TargetError as error:
            print(error, file=sys.stderr)
            return {"reached": float("nan"), "macs": float("nan")}
        result.save(target)
        before, after = trials.compare(target)
        return {"reached": after / before, "macs": result.report.after.macs / result.report.before.macs}


def to_markdown(rows: dict[str, dict[str, float]], images: int, tests: int) -> Iterator[str]:
    """A table of accuracies per model, then latencies."""
    yield "# Allocation"
    yield ""
    yield f"L1, {images} unlabeled images for recovery, {tests} test images (digits: 450); `benchmarks/allocation.py`."
    accuracies = [(*key.split("|"), row) for key, row in rows.items() if "none" in row]
    for model in dict.fromkeys(model for model, *_ in accuracies):
        yield from ("", f"## {model}", "")
        yield from ("| allocation | MACs, times fewer | accuracy, recovered | as cut |", "|---|---:|---:|---:|")
        mine = sorted(
            (row for row in accuracies if row[0] == model), key=lambda row: (float(row[2]), -row[3]["reconstruct"])
        )
        for _, scope, _, row in mine:
            yield f"| {scope} | {row['reached']:.2f} | {row['reconstruct']:.1f} | {row['none']:.1f} |"
    timed = [(*key.split("|"), row) for key, row in rows.items() if "macs" in row]
    if timed:
        yield from (
            "",
            "## Latency",
            "",
            "| model | allocation | asked | reached | MACs left |",
            "|---|---|---:|---:|---:|",
        )
        for model, scope, asked, row in timed:
            yield f"| {model} | {scope} | {asked.removeprefix('latency ')} | {row['reached']:.3f} | {row['macs']:.3f} |"


@click.command()
@click.option("--models", default="resnet20,resnet56,digits_resnet,digits_transformer", help="names, with commas")
@click.option("--speedups", default="1.5,2.11,2.57", help="times fewer MACs, with commas")
@click.option("--scopes", default=",".join((*SCOPES, *PLACES, *PEERS)), help="allocations and peers, with commas")
@click.option("--latencies/--no-latencies", default=True, help="also reach shares of the latency")
@click.option("--images", default=192, help="for recovery")
@click.option("--tests", default=2000, help="test images")
@click.option("-o", "--output", type=Path, help="where to write the table")
def main(
    models: str, speedups: str, scopes: str, latencies: bool, images: int, tests: int, output: Path | None
) -> None:
    """Measure what is missing and write the table."""
    kept = output.with_suffix(".jsonl") if output else None
    rows = dict(json.loads(line) for line in kept.read_text().splitlines()) if kept and kept.exists() else {}

    def add(key: str, row: dict[str, float]) -> None:
        rows[key] = row
        print(key, {name: round(value, 3) for name, value in row.items()}, file=sys.stderr, flush=True)
        if kept:
            with kept.open("a") as file:
                file.write(json.dumps([key, row]) + "\n")

    for model in models.split(","):
        for speedup in map(float, speedups.split(",")):
            for scope in scopes.split(","):
                key, peer = f"{model}|{scope}|{speedup}", scope.removeprefix("torch-pruning ")
                runs = scope in SCOPES or ("digits" not in model and (scope in PLACES or find_spec("torch_pruning")))
                if key not in rows and runs:
                    add(key, (ours if peer == scope else torch_pruning)(model, peer, speedup, images, tests))
        wanted = [(scope, share) for scope in ("auto", "latency") for share in LATENCIES] if latencies else []
        for scope, share in wanted:
            if f"{model}|{scope}|latency {share}" not in rows:
                add(f"{model}|{scope}|latency {share}", latency(model, scope, share))
    put(to_markdown(rows, images, tests), output)


if __name__ == "__main__":
    main()
