"""How much a search finds beside the tool's own allocation at six ratios, a uniform sweep and chance; and how well the
numbers that a search measures predict accuracy after training.

    python benchmarks/search.py --model digits_resnet --trials 40    # adds to benchmarks/results/search.json
    python benchmarks/search.py --correlation digits_resnet          # rank correlation with accuracy after training
    python benchmarks/search.py --table                              # writes benchmarks/results/search.md from it

Candidates are chosen by accuracy on one part of the images; the accuracies in the table are of another part, which no
search has seen.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.data.options import DataOptions
from onnxprune.evaluation.metrics import evaluate, metric
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.samples import Sources, samples_of
from onnxprune.pipeline.search.pareto import hypervolume
from onnxprune.pipeline.search.run import search
from onnxprune.pipeline.search.trial import make
from onnxprune.pipeline.search.workbench import Workbench
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.recover.step import Recover
from onnxprune.steps.train.step import Train
from onnxprune.support.progress import silent

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", ROOT.parent / "shared"))
RESULTS = ROOT / "benchmarks" / "results"
RATIOS = [(at + 1) / 7 for at in range(6)]
# Candidates count whose error is above the original's by no more than this; and the error of chance among ten classes.
NEAR, CHANCE = 0.10, 0.9
Samples = dict[str, np.ndarray]


def model_and_samples(name: str) -> tuple[Path, dict[str, Samples]]:
    """The file, and labelled samples to fit to, to choose by, and to report on."""
    if name.startswith("digits"):
        known, test = (dict(np.load(ROOT / "models" / f"digits_{part}.npz")) for part in ("calibration", "test"))
        first, rest = ({key: value[cut] for key, value in known.items()} for cut in (slice(128), slice(128, None)))
        return ROOT / "models" / f"{name}.onnx", {"fit": first, "choose": rest, "report": test}
    folder = SHARED / "data" / "cifar10"
    tensors = runpy.run_path(str(folder / "load.py"))["tensors"]
    found = {"fit": tensors("train", 256), "choose": tensors("test", 1000), "report": tensors("test", 3000, 1000)}
    return folder / f"{name}.onnx", {
        part: {"input": images, "labels": labels.astype(np.int64)} for part, (images, labels) in found.items()
    }


class Bench:
    """A model with its samples, and the accuracy of a candidate on each part."""

    def __init__(self, name: str, folder: Path) -> None:
        self.model, self.parts = model_and_samples(name)
        for part, arrays in self.parts.items():
            np.savez(folder / f"{part}.npz", **arrays)
        self.files = {part: DataOptions(data=str(folder / f"{part}.npz"), labels="labels") for part in self.parts}
        self.bench = Workbench.open(
            self.model,
            Sources(self.files["fit"], evaluation=self.files["choose"]),
            Recipe((Prune(), Recover())),
            folder / "shared",
        )
        context, original = self.bench.context, self.bench.analysis.model
        self.report = samples_of(self.files["report"], original, context)

    def error(self, model: Any) -> float:
        """1 - accuracy on the part to report on."""
        return 1 - evaluate(model, self.report, metric("accuracy", True))

    def point(self, recipe: Recipe) -> list[float]:
        """Share of the MACs, and the error to report."""
        made = make(self.bench, recipe, silent)
        report = made.result.report
        return [report.after.macs / report.before.macs, self.error(made.model)]


def compared(name: str, trials: int, samplers: Sequence[str], seed: int) -> dict[str, Any]:
    """Points of the fronts of the default, a uniform sweep, and each sampler."""
    found: dict[str, Any] = {"model": name, "trials": trials, "seed": seed, "fronts": {}, "seconds": {}}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        bench = Bench(name, folder)
        found["original"] = bench.error(bench.bench.given.source)
        for scope in ("auto", "uniform"):
            start = time.process_time()
            points = [bench.point(Recipe((Prune(ratio=ratio, scope=scope), Recover()))) for ratio in RATIOS]
            found["fronts"]["default" if scope == "auto" else scope] = points
            found["seconds"]["default" if scope == "auto" else scope] = time.process_time() - start
            print(name, scope, points, file=sys.stderr, flush=True)
        for sampler in samplers:
            start = time.process_time()
            result = search(
                bench.model,
                data=bench.files["fit"],
                evaluation=bench.files["choose"],
                folder=folder / sampler,
                study=sampler,
                minimize=["macs", "drop"],
                metric="accuracy",
                trials=trials,
                sampler=sampler,
                seed=seed,
            )
            points = [[each.measured["macs"].value, bench.error(each.file)] for each in result.front]
            found["fronts"][sampler] = points
            found["seconds"][sampler] = time.process_time() - start
            print(name, sampler, points, file=sys.stderr, flush=True)
    return found


def areas(found: Mapping[str, Any], worst: float) -> dict[str, float]:
    """The hypervolume of every front in (MACs, error), up to all MACs and an error of `worst`."""
    return {name: hypervolume(points, (1.0, worst)) for name, points in found["fronts"].items()}


SPACE = {"scope": ["auto", "knapsack", "uniform", "global"], "criterion": ["obs", "l1", "random"]}


def correlation(name: str, candidates: int, epochs: float, seed: int) -> dict[str, Any]:
    """Spearman's rank correlation of what can be measured before training with accuracy after it.

    Candidates have about the same MACs, so that not their size decides.
    """
    from scipy.stats import spearmanr

    random = np.random.default_rng(seed)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(name, Path(place))
        for number in range(candidates):
            prune = Prune(
                target="macs=0.3",  # type: ignore[arg-type]
                scope=str(random.choice(SPACE["scope"])),
                criterion=str(random.choice(SPACE["criterion"])),
                tilt=tuple(random.uniform(-2, 2, 3).round(3)),
            )
            before = {}
            for method in ("reconstruct", "batchnorm", "none"):
                made = make(bench.bench, Recipe((prune, Recover(method))), silent)
                before[method] = bench.bench.value(made.model, metric("accuracy", True))
                before[f"{method} agreement"] = bench.bench.value(made.model, metric("agreement", True))
            trained = make(bench.bench, Recipe((prune, Recover(), Train(epochs=epochs))), silent)
            before["after training"] = 1 - bench.error(trained.model)
            rows.append(before)
            print(number, before, file=sys.stderr, flush=True)
    after = [row["after training"] for row in rows]
    ranks = {key: float(spearmanr([row[key] for row in rows], after)[0]) for key in rows[0] if key != "after training"}
    return {"model": name, "candidates": candidates, "epochs": epochs, "rows": rows, "spearman": ranks}


def table(results: Mapping[str, Any]) -> str:
    """The page of results."""
    lines = [
        "# Search",
        "",
        "Written by `python benchmarks/search.py --table`. Hypervolume in (MACs, error): the area that a front",
        f"dominates up to all MACs and an error {NEAR:.0%} above the original's (*near*), or up to that of chance.",
        "Errors are of images that no search has seen. A search begins with the default at six ratios.",
        "",
        "| model | trials | way | near | to default | to uniform | up to chance | to default | CPU s |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for found in results.get("compared", []):
        near, far = areas(found, found["original"] + NEAR), areas(found, CHANCE)
        for name in found["fronts"]:
            cells = [found["model"], found["trials"], name, f"{near[name]:.4f}", _ratio(near, name, "default")]
            cells += [_ratio(near, name, "uniform"), f"{far[name]:.3f}", _ratio(far, name, "default")]
            spent = found["seconds"].get(name)
            lines.append(f"| {' | '.join(map(str, cells))} | {'-' if spent is None else f'{spent:.0f}'} |")
    if not any(set(found["fronts"]) - {"default", "uniform"} for found in results.get("compared", [])):
        lines += ["", "No search has been measured here yet, only the two that it has to beat."]
    if not results.get("correlation"):
        return "\n".join([*lines, ""])
    lines += ["", "Spearman's rank correlation with accuracy after training, candidates of the same MACs:", ""]
    lines += ["| model | candidates | epochs | measured before training | correlation |", "|---|--:|--:|---|--:|"]
    for found in results.get("correlation", []):
        for key, value in found["spearman"].items():
            lines.append(f"| {found['model']} | {found['candidates']} | {found['epochs']} | {key} | {value:.2f} |")
    return "\n".join([*lines, ""])


def _ratio(values: Mapping[str, float], name: str, base: str) -> str:
    return f"{values[name] / values[base]:.2f}" if values[base] else "-"


def add(kind: str, found: Mapping[str, Any]) -> None:
    """Add a measurement to the file of results; one of the same model and budget is replaced."""
    path = RESULTS / "search.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    key = lambda each: (each["model"], each.get("trials"), each.get("seed"))  # noqa: E731
    results[kind] = [each for each in results.get(kind, []) if key(each) != key(found)] + [found]
    path.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--correlation")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--samplers", default="tpe,evolution,random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.model:
        add("compared", compared(args.model, args.trials, args.samplers.split(","), args.seed))
    if args.correlation:
        add("correlation", correlation(args.correlation, args.candidates, args.epochs, args.seed))
    if args.table:
        (RESULTS / "search.md").write_text(table(json.loads((RESULTS / "search.json").read_text())))


if __name__ == "__main__":
    main()
