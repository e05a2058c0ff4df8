"""Sparse methods side by side on the digits models, each from fresh weights, and what papers say of their order.

    python benchmarks/methods.py                                   # all that is not measured yet, and the table
    python benchmarks/methods.py --seeds 0 --only 'rigl*' --epochs 5

Every method trains on the 512 calibration images for as many epochs in all, but tickets, which take that many in every
round; accuracy is that on the 450 test images in ONNX Runtime, seconds are of the processor. Finished measurements are
lines of `methods.jsonl` beside the table and not measured again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import onnxprune as op

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ROUNDS = 3

# Two methods, the first of which papers find at least as good, at a sparsity.
ORDERINGS = (
    ("gradual", "rigl", 0.9, "Evci et al. 2020"),
    ("rigl", "set", 0.9, "Evci et al. 2020"),
    ("set", "static", 0.9, "Mocanu et al. 2018"),
    ("learning-rate rewinding", "low-rate fine-tuning", 0.95, "Renda et al. 2020"),
    ("ticket", "ticket, other weights", 0.9, "Frankle & Carbin 2019"),
    ("synflow", "snip", 0.99, "Tanaka et al. 2020"),
    ("gradual", "gradual, from scratch", 0.9, "Gale et al. 2019"),
)


def recipes(sparsity: float, epochs: float) -> dict[str, list[op.Step]]:
    """The methods by name."""

    def train(share: float = 1.0, **options: Any) -> op.Step:
        given = {"epochs": epochs * share, "distil": 0, "batch_size": 64, "keep": "last", **options}
        return op.Train(**given)

    def before(criterion: str, **options: Any) -> list[op.Step]:
        choice = op.Sparsify(sparsity=sparsity, weight_criterion=criterion, update="none", **options)
        return [op.Reinitialize(), choice, train()]

    def rounds(*steps: op.Step) -> op.Step:
        choice = op.Sparsify(
            sparsity=sparsity, weight_criterion="magnitude", sparsity_allocation="global", update="none"
        )
        return op.Repeat(times=ROUNDS, schedule="geometric", steps=(choice, *steps))

    fresh = op.Reinitialize()
    ticket = [fresh, op.Checkpoint("first"), train(), rounds(op.Rewind("first"), train())]
    gradual = train(training_method=f"gradual:{sparsity}")
    return {
        "dense": [fresh, train()],
        "gradual": [fresh, gradual],
        "gradual, from scratch": [fresh, gradual, op.Reinitialize(), train()],
        "rigl": [fresh, train(training_method=f"rigl:{sparsity},first=random,interval=8")],
        "set": [fresh, train(training_method=f"set:{sparsity},first=random,interval=8")],
        "static": [fresh, train(training_method=f"static:{sparsity},first=random")],
        "snip": before("snip"),
        "grasp": before("grasp"),
        "synflow": before("synflow"),
        "synflow, shuffled": before("synflow", shuffle=True),
        "random": before("random", sparsity_allocation="erk"),
        "ticket": ticket,
        "ticket, other weights": [*ticket, op.Reinitialize(), train()],
        "learning-rate rewinding": [fresh, train(), rounds(train(1 / ROUNDS))],
        "low-rate fine-tuning": [fresh, train(), rounds(train(1 / ROUNDS, rate_rewind=0.9))],
    }


def measure(model: str, steps: list[op.Step], seed: int) -> dict[str, float]:
    """Sparsity, accuracy and seconds of one method."""
    path = ROOT / "models" / f"{model}.onnx"
    start = time.process_time()
    fitted, tested = (np.load(ROOT / "models" / f"digits_{part}.npz") for part in ("calibration", "test"))
    recipe = op.Recipe((*steps, op.Clean()))
    result = recipe(path, data=(fitted["input"], fitted["labels"]), seed=seed, allow_damage=True)
    seconds = time.process_time() - start
    layers = result.report.sparsity["layers"] if result.report.sparsity else []
    zeros = sum(each["zeros"] for each in layers) / max(sum(each["weights"] for each in layers), 1)
    with tempfile.TemporaryDirectory() as folder:
        result.save(Path(folder) / "sparse.onnx")
        session = onnxruntime.InferenceSession(str(Path(folder) / "sparse.onnx"), providers=["CPUExecutionProvider"])
        found = session.run(None, {session.get_inputs()[0].name: tested["input"]})[0]
    accuracy = float((found.argmax(1) == tested["labels"]).mean())
    return {"zeros": zeros, "accuracy": accuracy, "seconds": seconds}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Every method with means and spreads over seeds, then the orderings."""
    groups: dict[tuple[str, float, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["model"], row["sparsity"], row["method"]].append(row)
    lines = [
        "| model | asked for | method | zeros | accuracy | spread | CPU | seeds |",
        "|---|--:|---|--:|--:|--:|--:|--:|",
    ]
    means: dict[tuple[str, float, str], float] = {}
    for (model, sparsity, method), found in groups.items():
        accuracies = [row["accuracy"] for row in found]
        means[model, sparsity, method] = float(np.mean(accuracies))
        zeros, seconds = (float(np.mean([row[name] for row in found])) for name in ("zeros", "seconds"))
        spread = f"{100 * float(np.std(accuracies)):.1f}"
        lines.append(
            f"| {model} | {sparsity:.0%} | {method} | {zeros:.1%} | {np.mean(accuracies):.1%} | {spread} | "
            f"{seconds:.0f} s | {len(found)} |"
        )
    lines += ["", "| papers say | model | at | difference in points | here |", "|---|---|--:|--:|---|"]
    for better, worse, sparsity, source in ORDERINGS:
        for model in dict.fromkeys(row["model"] for row in rows):
            pair = means.get((model, sparsity, better)), means.get((model, sparsity, worse))
            if pair[0] is not None and pair[1] is not None:
                ahead = 100 * (pair[0] - pair[1])
                said = f"{better} >= {worse} ({source})"
                lines.append(
                    f"| {said} | {model} | {sparsity:.0%} | {ahead:+.1f} | {'holds' if ahead >= 0 else 'fails'} |"
                )
    return lines


def main() -> None:
    """Measure all that is missing, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["digits_resnet", "digits_transformer", "digits_lstm"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--sparsities", nargs="*", type=float, default=[0.9, 0.95, 0.99])
    parser.add_argument("--only", default="*", help="pattern of methods")
    parser.add_argument("--epochs", type=float, default=20)
    given = parser.parse_args()
    kept = RESULTS / "methods.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {(row["model"], row["sparsity"], row["method"], row["seed"], row["epochs"]) for row in rows}
    for seed in given.seeds:
        for model in given.models:
            for sparsity in given.sparsities:
                for method, steps in recipes(sparsity, given.epochs).items():
                    key = (model, sparsity, method, seed, given.epochs)
                    if key in done or not fnmatch(method, given.only):
                        continue
                    row = {**dict(zip(("model", "sparsity", "method", "seed", "epochs"), key, strict=True))}
                    rows.append({**row, **measure(model, steps, seed)})
                    with kept.open("a") as out:
                        out.write(json.dumps(rows[-1]) + "\n")
                    print(rows[-1], flush=True)
    head = ["# Sparse methods", "", "Written by `python benchmarks/methods.py`, which says what is measured.", ""]
    (RESULTS / "methods.md").write_text("\n".join([*head, *table(rows), ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
