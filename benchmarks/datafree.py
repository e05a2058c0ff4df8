"""What is left of trained networks that were cut without data, and what made-up inputs are worth beside real ones.

    python benchmarks/datafree.py -o benchmarks/results/datafree.md      # what is not measured yet, and the table
    python benchmarks/datafree.py --models digits_resnet --cuts 2x

Accuracy in percent on the 450 test images of the digits, or the first 2,000 test images of CIFAR-10, after a cut to
1.25, 1.5 and 2 times fewer MACs, and with half of the units removed by their weights alone (l1):

- nothing: units chosen by their weights (l1), nothing recovered;
- drawn: recovered on 128 samples as `--data synthetic` gives them;
- made up: what `compress` does without data: the same samples, distilled from the network where torch is there;
- real: 512 training images.

Finished measurements go into a JSON file beside the table; delete it to start afresh.
"""

from __future__ import annotations

import json
import os
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime

import onnxprune as op
from onnxprune.analysis.inspect import inspect
from onnxprune.data.base import load_data
from onnxprune.data.sources.synthetic import hints_of
from onnxprune.model.signature import ports_of
from onnxprune.statistics.made_up import made_up_samples

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", ROOT.parent / "shared"))
CIFAR = SHARED / "data" / "cifar10"
MODELS = ("digits_resnet", "digits_transformer", "digits_lstm", "resnet20", "resnet56")
CUTS: dict[str, dict[str, Any]] = {
    "1.25x": {"target": "macs=0.8"},
    "1.5x": {"target": "macs=0.667"},
    "2x": {"target": "macs=0.5"},
    "l1 ratio=0.5": {"criterion": "l1", "ratio": 0.5},
}
TESTED, CALIBRATED, DRAWN = 2000, 512, 128


def path_of(model: str) -> Path:
    return (ROOT / "models" if model.startswith("digits") else CIFAR) / f"{model}.onnx"


@cache
def images(model: str, part: str) -> Any:
    """Images and labels: "train" to calibrate on, "test" to measure on."""
    if model.startswith("digits"):
        arrays = np.load(ROOT / "models" / f"digits_{'calibration' if part == 'train' else 'test'}.npz")
        return arrays["input"], arrays["labels"]
    tensors = runpy.run_path(str(CIFAR / "load.py"))["tensors"]
    return tensors(part, CALIBRATED if part == "train" else TESTED)


def accuracy(model: str, proto: bytes) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    given, labels = images(model, "test")
    name = session.get_inputs()[0].name
    found = [session.run(None, {name: given[at : at + 100]})[0].argmax(1) for at in range(0, len(given), 100)]
    return 100 * float(np.mean(np.concatenate(found) == labels))


def drawn(model: str) -> Any:
    analysis = inspect(path_of(model))
    hints = hints_of(analysis.model)
    return load_data("synthetic", ports_of(analysis.model), samples=DRAWN, batch=DRAWN, hints=hints)


@cache
def distilled(model: str) -> Any:
    return made_up_samples(inspect(path_of(model)))


INPUTS: dict[str, Callable[[str], Any]] = {
    "nothing": lambda _: None,
    "drawn": drawn,
    "made up": distilled,
    "real": lambda model: images(model, "train")[0][:CALIBRATED],
}


def measure(model: str, cut: str, inputs: str) -> float:
    options = {**CUTS[cut], **({"recover": "none"} if inputs == "nothing" else {})}
    made = op.compress(path_of(model), data=INPUTS[inputs](model), **options)
    return accuracy(model, made.proto().SerializeToString())


def table(known: dict[str, float]) -> str:
    lines = ["| model | cut | " + " | ".join(INPUTS) + " |", "|---|---|" + "---|" * len(INPUTS)]
    for model in MODELS:
        for cut in CUTS:
            cells = [known.get(f"{model} {cut} {inputs}") for inputs in INPUTS]
            if any(cell is not None for cell in cells):
                shown = ["" if cell is None else f"{cell:.1f}" for cell in cells]
                lines.append(f"| {model} ({known[f'{model} whole']:.1f}) | {cut} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--models", default=",".join(MODELS), help="names, with commas")
@click.option("--cuts", default=",".join(CUTS), help="names, with commas")
@click.option("--inputs", default=",".join(INPUTS), help="names, with commas")
@click.option("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results" / "datafree.md", show_default=True)
def main(models: str, cuts: str, inputs: str, output: Path) -> None:
    onnxruntime.set_default_logger_severity(3)
    store = output.with_suffix(".json")
    known = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}

    def noted(key: str, measured: Callable[[], float]) -> None:
        if key not in known:
            known[key] = measured()
            store.write_text(json.dumps(known, indent=0), encoding="utf-8")
            click.echo(f"{key}: {known[key]:.1f}", err=True)

    for model in models.split(","):
        noted(f"{model} whole", lambda: accuracy(model, path_of(model).read_bytes()))  # noqa: B023
        for cut in cuts.split(","):
            for given in inputs.split(","):
                noted(f"{model} {cut} {given}", lambda: measure(model, cut, given))  # noqa: B023
    output.write_text(f"`python benchmarks/datafree.py -o {output}`\n\n{table(known)}", encoding="utf-8")


if __name__ == "__main__":
    main()
