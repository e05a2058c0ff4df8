"""Accuracy that `onnxprune compress X.onnx` keeps at its defaults, with data and without, and the words it says.

python benchmarks/defaults.py -o benchmarks/results/defaults.md
python benchmarks/defaults.py digits_lstm resnet20 --options "--criterion l1 --ratio 0.5"

Scores are taken by this script, not by onnxprune, on evaluation samples that the run has not seen: accuracy where
there are labels, else the SNR of the output against that of the original. One thread; about ten minutes.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from recovery_common import CIFAR, ROOT, SHARED, loader
from row_tables import asked_of, put

TRAINED = SHARED / "real" / "trained"
# Images that CIFAR's models are calibrated with.
IMAGES = 512

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A trained file and its samples.

    Attributes:
        model: the file.
        calibration: .npz for `--data`.
        evaluation: makes the samples to judge by: inputs by name, and `labels` where there are some.
    """

    model: Path
    calibration: Path
    evaluation: Callable[[], Arrays]


def cases(folder: Path) -> dict[str, Case]:
    """Every model by its name; `folder` takes files that are made here."""
    models = ROOT / "models"
    found = {
        name: Case(models / f"{name}.onnx", models / "digits_calibration.npz", lambda: read(models / "digits_test.npz"))
        for name in ("digits_resnet", "digits_transformer", "digits_lstm")
    }
    if CIFAR.exists():
        images = folder / "cifar10.npz"
        np.savez(images, input=loader()["tensors"]("train", IMAGES)[0])
        found |= {name: Case(CIFAR / f"{name}.onnx", images, cifar_test) for name in ("resnet20", "resnet56")}
    for name in ("deepcut", "pulsevad_2.1k", "pulsevad_2.1k_int8", "attacut-c"):
        samples = name.partition("_")[0]
        if (TRAINED / f"{name}.onnx").exists():
            held = TRAINED / f"{samples}.evaluation.npz"
            calibration = TRAINED / f"{samples}.calibration.npz"
            found[name] = Case(TRAINED / f"{name}.onnx", calibration, lambda held=held: read(held))
    return found


def read(path: Path) -> Arrays:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


@cache
def cifar_test() -> Arrays:
    images, labels = loader()["tensors"]("test")
    return {"input": images, "labels": labels}


def outputs(model: Path, samples: Arrays) -> np.ndarray:
    """The first output, of all samples; in batches where the model takes them, else one at a time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    feed = {port.name: samples[port.name] for port in session.get_inputs()}
    step = 1 if any(isinstance(port.shape[0], int) for port in session.get_inputs()) else 250
    count = len(next(iter(feed.values())))
    parts = [
        session.run(None, {name: array[at : at + step] for name, array in feed.items()})[0]
        for at in range(0, count, step)
    ]
    return np.concatenate(parts)


def score(model: Path, original: Path, samples: Arrays) -> float:
    """Accuracy in [0, 1] where there are labels, else the SNR in dB against the original (inf for itself)."""
    given = outputs(model, samples)
    if "labels" in samples:
        chosen = given.argmax(1) if given.shape[1] > 1 else (given[:, 0] > 0.5)
        return float(np.mean(chosen == samples["labels"]))
    due = outputs(original, samples).astype(np.float64)
    noise = np.square(due - given).sum()
    return float(10 * np.log10(np.square(due).sum() / noise)) if noise else float("inf")


def compress(case: Case, options: str, *, data: bool, out: Path) -> tuple[dict[str, Any] | None, str]:
    """The JSON document of one run and nothing, or nothing and its refusal."""
    given = [*(["--data", str(case.calibration)] if data else []), *shlex.split(options)]
    command = [sys.executable, "-m", "onnxprune", "compress", str(case.model), *given, "-o", str(out), "--json"]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        return None, f"exit {done.returncode}: {done.stderr.strip()}"
    return json.loads(done.stdout), ""


def row(name: str, case: Case, options: str, *, data: bool, folder: Path) -> str:
    """One run and what came of it."""
    out = folder / "out.onnx"
    samples = case.evaluation()
    show = "{:.1%}".format if "labels" in samples else "{:.1f} dB".format
    before = score(case.model, case.model, samples)
    document, refusal = compress(case, options, data=data, out=out)
    cells = [name, "data" if data else "no data"]
    if document is None:
        return f"| {' | '.join([*cells, '-', '-', show(before), '-', refusal])} |"
    fewer = [f"{document['before'][what] / document['after'][what]:.2f}x" for what in ("parameters", "macs")]
    cells += [*fewer, show(before), show(score(out, case.model, samples)), said(document)]
    return f"| {' | '.join(cells)} |"


def said(document: dict[str, Any]) -> str:
    """The words of the run about quality, else its notes."""
    return "; ".join(document["notes"]) or "nothing"


def main() -> None:
    asked = asked_of(__doc__, "models")
    lines = [
        "# What compress keeps at its defaults",
        "",
        "Written by `python benchmarks/defaults.py -o benchmarks/results/defaults.md`: "
        f"`onnxprune compress MODEL{' ' if asked.options else ''}{asked.options}`, without data and with --data. "
        "Scores are taken on evaluation samples that the run has not seen: accuracy, or SNR where there are no labels.",
        "",
        "| model | samples | fewer parameters | fewer MACs | before | after | what the tool said |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name, case in cases(folder).items():
            for data in (False, True):
                if not asked.models or name in asked.models:
                    lines.append(row(name, case, asked.options, data=data, folder=folder))
                    print(lines[-1], file=sys.stderr, flush=True)
    put(lines, asked.output)


if __name__ == "__main__":
    main()
