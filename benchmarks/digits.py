"""Run commands of the documentation on the trained networks in models/: size, and accuracy on held-out images.

python benchmarks/digits.py -o benchmarks/results/digits.md

Accuracy is that of digits_test.npz, which neither training nor scores nor recovery have seen. One thread; minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from row_tables import put

MODELS = Path(__file__).resolve().parents[1] / "models"
WITH_DATA = "--data models/digits_calibration.npz"
CASES = [
    ("digits_resnet", "--criterion group-l2"),
    ("digits_resnet", "--criterion group-l2 --ratio 0.2"),
    ("digits_resnet", "--criterion group-l2 --ratio 0.2 --recover fold"),
    ("digits_resnet", "--data synthetic --samples 256"),
    ("digits_resnet", f"{WITH_DATA} --recover none"),
    ("digits_resnet", WITH_DATA),
    ("digits_resnet", f"{WITH_DATA} --target macs=0.5"),
    ("digits_resnet", f"{WITH_DATA} --labels labels --target drop=0.01"),
    ("digits_transformer", WITH_DATA),
    ("digits_transformer", f"--only heads --only neurons {WITH_DATA}"),
    ("digits_transformer", f"--only heads --only neurons {WITH_DATA} --recover none"),
    ("digits_lstm", WITH_DATA),
]


def onnxprune(*args: object) -> dict:
    """The JSON document of one run, in the repository so that the paths of the table are those of the reader."""
    command = [sys.executable, "-m", "onnxprune", *map(str, args), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=MODELS.parent, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def accuracy(model: Path) -> float:
    """Share of the test images that are read right."""
    script = [sys.executable, str(MODELS / "digits.py"), str(model)]
    done = subprocess.run(script, check=True, capture_output=True, text=True)
    return float(done.stdout.split("%")[0].split()[-1])


def row(name: str, options: str, folder: Path) -> str:
    """One command and what came of it."""
    model, out = MODELS / f"{name}.onnx", folder / "out.onnx"
    report = onnxprune("compress", f"models/{name}.onnx", *shlex.split(options), "-o", out)
    before, after = report["before"], report["after"]
    fewer = [f"{before[what] / after[what]:.2f}x" for what in ("parameters", "macs")]
    cells = [f"`{name}.onnx {options}`", *fewer, f"{accuracy(model):.2f}%", f"{accuracy(out):.2f}%"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    output = parser.parse_args().output
    lines = [
        "# One command on the trained digits models",
        "",
        "Written by `python benchmarks/digits.py -o benchmarks/results/digits.md`. `onnxprune compress models/` is "
        "in front of each row. Accuracy is that of 450 test images that nothing has seen: one is 0.22 points.",
        "",
        "| command | fewer parameters | fewer MACs | accuracy before | after |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, options in CASES:
            lines.append(row(name, options, Path(folder)))
            print(lines[-1], file=sys.stderr)
    put(lines, output)


if __name__ == "__main__":
    main()
